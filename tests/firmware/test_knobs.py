"""The knobs of memory: exact ones change no bit of a result, packed activations change gradients by their rounding."""

from __future__ import annotations

import ctypes as ct
import hashlib
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fedtiny.models import build
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, _library, plan
from fedtiny_export.errors import CoreError
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch

from .nets import NETS, make, node_of, random_masks, random_samples

ERR_STATE, ERR_ARG = 5, 6
EXACT: tuple[dict[str, Any], ...] = ({"lean": True}, {"layerwise": True}, {"plain_sgd": True})
TOGETHER = [{k: v for knob in chosen for k, v in knob.items()} for n in (1, 2, 3) for chosen in combinations(EXACT, n)]
RESIDUALS = ("residual", "strided residual with group norm", "separable", "separable with group norm", "max pool twice")


def work(model: Model, density: float, norm: str, knobs: dict[str, Any], momentum: float = 0.0) -> str:
    """SHA-256 of everything that a node answers: gradients are in it as the steps that they make."""
    masks = random_masks(model, density) if density < 1 else {}
    node = node_of(model, masks, micro_batch=3, norm=norm, topk_max=9, **knobs)
    x, y = random_samples(11, model.graph.classes)
    node.set_samples(x, y, 5)
    total = hashlib.sha256(node.infer(x).tobytes())
    tally, moments = node.train(epochs=2, lr=0.05, momentum=momentum, weight_decay=1e-3, seed=1)
    for part in (node.values(), moments, np.float64(tally.loss_sum), node.measure_bn(0)[0]):
        total.update(part.tobytes())
    if masks:
        for part in node.score(len(model.graph.layers) - 2, 9, batches=2, seed=3):
            total.update(part.tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_an_exact_knob_changes_no_bit(name: str, density: float, norm: str) -> None:
    _, model = make(name)
    density = density if len(model.graph.layers) > 2 else 1.0
    expected = work(model, density, norm, {})
    for knobs in TOGETHER:
        assert work(model, density, norm, knobs) == expected, knobs


@pytest.mark.parametrize("name", RESIDUALS)
def test_momentum_is_the_same_layer_by_layer(name: str) -> None:
    _, model = make(name)
    knobs = {"lean": True, "layerwise": True}
    assert work(model, 0.3, "batch", knobs, momentum=0.9) == work(model, 0.3, "batch", {}, momentum=0.9)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize(("keep", "tolerance"), [("f16", 1e-2), ("int8", 5e-2)])
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", [name for name in NETS if name != "conv 3x3"])
def test_packed_activations_change_gradients_by_their_rounding(
    name: str, lean: bool, keep: str, tolerance: float, norm: str
) -> None:
    """Rounding: 5e-4 of a value in half precision, 2e-3 of a channel's range in 8 bits; a ReLU near 0 may flip."""
    _, model = make(name)
    x, y = random_samples(4, model.graph.classes)
    found = []
    for knobs in ({}, {"keep": keep, "lean": lean}):
        node = node_of(model, {}, norm=norm, **knobs)
        node.set_samples(x, y, 0)
        found.append(node.gradient(0, 4))
    (exact, loss), (rounded, same_loss) = found
    assert loss == same_loss, "the forward pass is exact whatever is kept"
    assert float(np.linalg.norm(rounded - exact)) <= tolerance * float(np.linalg.norm(exact))


def test_a_node_without_momentum_refuses_momentum_and_one_that_steps_by_layer_has_no_gradient() -> None:
    _, model = make("residual")
    x, y = random_samples(6, model.graph.classes)
    node = node_of(model, {}, plain_sgd=True, layerwise=True)
    node.set_samples(x, y, 0)
    with pytest.raises(CoreError) as caught:
        node.train(epochs=1, lr=0.1, momentum=0.5, weight_decay=0.0, seed=0)
    assert caught.value.status == ERR_ARG
    with pytest.raises(CoreError) as caught:
        node.gradient(0, 1)
    assert caught.value.status == ERR_STATE


@pytest.mark.parametrize("keep", ["f32", "f16", "int8"])
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_plan_adds_up_and_no_knob_leaves_the_planned_bytes(name: str, lean: bool, keep: str) -> None:
    """Arenas that start filled with different bytes give the same bits: nothing is read that was not written."""
    _, model = make(name)
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.3))
    x, y = random_samples(5, model.graph.classes)
    values = []
    for fill in (0, 0xA5):
        config = NodeConfig(micro_batch=4, modes=("train",), keep=keep, lean=lean, layerwise=lean, plain_sgd=lean)
        used = plan(blob, config).peak
        guarded = np.full(used // 8 + 66, 0x0101010101010101 * fill, np.uint64)
        node = CoreNode(blob, config, guarded[32:])
        assert sum(node.memory.by_kind().values()) == used
        node.set_samples(x, y, 0)
        node.train(epochs=2, lr=0.05, momentum=0.0, weight_decay=0.0, seed=0)
        values.append(node.values())
        around = guarded.view(np.uint8)
        assert (around[:256] == fill).all()
        assert (around[256 + used :] == fill).all()
    np.testing.assert_array_equal(values[0], values[1])


def test_half_precision_is_that_of_ieee_754_and_bytes_are_the_nearest_of_256_levels() -> None:
    lib = ct.CDLL(_library()._name)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=4096) * 10.0 ** rng.uniform(-9, 4.5, 4096)).astype(np.float32)
    x[:6] = 0.0, -0.0, 1e9, -1e9, 65519.0, 2.0**-25
    packed, back = np.zeros(2 * x.size, np.uint8), np.empty_like(x)
    pointers = [ct.c_void_p(array.ctypes.data) for array in (packed, x, back)]
    lib.ft_pack_channel(pointers[0], 1, 1, x.size, 0, pointers[1])
    lib.ft_pack_restore(pointers[2], pointers[0], 1, 1, x.size, 0)
    with np.errstate(over="ignore"):
        expected = np.clip(x, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(packed.view(np.float16), expected)
    np.testing.assert_array_equal(back, expected.astype(np.float32))
    lib.ft_pack_channel(pointers[0], 2, 1, x.size, 0, pointers[1])
    lib.ft_pack_restore(pointers[2], pointers[0], 2, 1, x.size, 0)
    step = (float(x.max()) - float(x.min())) / 255
    assert np.abs(back.astype(np.float64) - x).max() <= 0.501 * step


def tiny(name: str, shape: tuple[int, int, int], classes: int, norm: str, density: float) -> bytes:
    """A reference model with a share of the weights of every layer but the first."""
    model = from_torch(build(name, input_shape=shape, classes=classes, norm=norm), shape)
    masks: dict[str, Bits] = {}
    rng = np.random.default_rng(0)
    for layer in model.graph.layer_names[1:]:
        flat = np.zeros(model.arrays[layer].size, np.bool_)
        flat[rng.permutation(flat.size)[: round(density * flat.size)]] = True
        masks[layer] = flat.reshape(model.arrays[layer].shape)
    arrays: dict[str, F32] = {k: v * masks[k] if k in masks else v for k, v in model.arrays.items()}
    return write_blob(model.graph, arrays, masks)


SMALL = {"lean": True, "layerwise": True}
SMALLEST = {**SMALL, "plain_sgd": True, "keep": "int8"}


@pytest.mark.parametrize(
    ("row", "net", "batch", "density", "knobs", "most"),
    [
        ("ref.train.d0.1", ("lenet-mini", (1, 28, 28), 10, "batch"), 1, 0.1, SMALL, 48_000),
        ("resnet8.train.d0.1", ("resnet8", (3, 32, 32), 10, "group"), 1, 0.1, SMALLEST, 256 * 1024),
        ("resnet8.train.mb4.d0.1", ("resnet8", (3, 32, 32), 10, "batch"), 4, 0.1, SMALLEST, 900_000),
        ("dscnn.train.d0.1", ("ds-cnn", (1, 49, 10), 12, "group"), 1, 0.1, SMALLEST, 128_000),
        ("preset, exact", ("resnet-mini", (1, 28, 28), 10, "batch"), 8, 0.05, SMALL, 750_000),
    ],
)
def test_the_planned_bytes_of_the_published_rows(
    row: str,
    net: tuple[str, tuple[int, int, int], int, str],
    batch: int,
    density: float,
    knobs: dict[str, Any],
    most: int,
) -> None:
    memory = plan(tiny(*net, density), NodeConfig(micro_batch=batch, modes=("train",), **knobs))
    print(f"{row}: {memory.peak} bytes, {memory.by_kind()}")
    assert memory.peak <= most
