"""The planner's bytes are the node's high-water mark: what a mode plans it touches, to the last word and no further."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedtiny.models import NAMES, build
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, _Bank, _library, plan, plan_banks
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch

from .nets import ALL_MODES, INPUT, make, random_masks

MODELS = {
    "residual with batch norm": ("resnet-mini", (1, 28, 28), "batch"),
    "residual with group norm": ("resnet-mini", (1, 28, 28), "group"),
    "windows of sensors": ("watch-net", (9, 1, 100), "batch"),
    "no norm": ("lenet-mini", (1, 28, 28), "batch"),
    "standardised weights": ("standardised", INPUT, "group"),
    "depthwise separable": ("ds-cnn-mini", (1, 49, 10), "batch"),
}
SAMPLES, TOPK = 8, 20
KNOBS: dict[str, dict[str, Any]] = {
    "quick": {},
    "lean": {"lean": True},
    "layerwise": {"layerwise": True, "plain_sgd": True},
    "f16": {"keep": "f16", "layerwise": True, "plain_sgd": True},
    "smallest": {"keep": "int8", "lean": True, "layerwise": True, "plain_sgd": True},
}

PLENTY = 1 << 20
# Sizes of banks, from the bytes of a node's parts.
BANKS: dict[str, Callable[[dict[str, int]], list[int]]] = {
    "the work fills a small fast one": lambda parts: [parts["work"], PLENTY],
    "the weights fill a small fast one": lambda parts: [parts["weights"], PLENTY],
    "weights, work and the rest apart": lambda parts: [parts["weights"], parts["work"] + 8, PLENTY],
}


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    made = {}
    for name, (kind, shape, norm) in MODELS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = build(kind, input_shape=shape, classes=6, norm=norm) if kind in NAMES else make(kind)[0]
            made[name] = from_torch(net, shape)
    return made


def work(node: CoreNode, mode: str, model: Model, plain_sgd: bool) -> None:
    """Everything that the mode is for."""
    rng = np.random.default_rng(0)
    shape = model.graph.tensors[model.graph.input].shape
    x = rng.normal(size=(SAMPLES, *shape)).astype(np.float32)
    node.set_samples(x, rng.integers(0, model.graph.classes, SAMPLES).astype(np.uint16), SAMPLES)
    if mode == "infer":
        node.evaluate(1)
        node.infer(x[:1])
    elif mode == "measure":
        node.measure_bn(1)
    elif mode == "train":
        node.train(epochs=1, lr=0.01, momentum=0.0 if plain_sgd else 0.9, weight_decay=1e-4, seed=0)
    else:
        for layer in range(1, len(model.graph.layer_names)):
            node.score(layer, TOPK, batches=2, seed=0)


def high_water(blob: bytes, config: NodeConfig, model: Model, pattern: int, sizes: Sequence[int]) -> list[int]:
    """Of each bank the bytes up to the last that the node changed; banks hold the pattern, as do 4 KiB behind them."""
    memory = [np.full(size + 4096 + 8, pattern, np.uint8) for size in sizes]
    memory = [bank[-bank.ctypes.data % 8 :] for bank in memory]
    node, handle = CoreNode(blob, config), ctypes.c_void_p()
    banks = (_Bank * len(sizes))(*(_Bank(m.ctypes.data, size) for m, size in zip(memory, sizes, strict=True)))
    assert _library().ft_load_banks(banks, len(sizes), blob, len(blob), config._struct(), handle, None) == 0
    node._node = handle
    for each in config.modes:
        work(node, each, model, config.plain_sgd)
    return [int(np.flatnonzero(np.append(True, bank != pattern))[-1]) for bank in memory]


def marks(blob: bytes, config: NodeConfig, model: Model, sizes: Sequence[int]) -> list[int]:
    """Two patterns: a byte that happens to be written with one of them is not missed."""
    both = [high_water(blob, config, model, pattern, sizes) for pattern in (0xA5, 0x5A)]
    return [max(one) for one in zip(*both, strict=True)]


@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("name", MODELS)
def test_a_mode_touches_what_it_plans(
    name: str, mode: str, knobs: str, micro_batch: int, models: dict[str, Model]
) -> None:
    model = models[name]
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.1))
    config = NodeConfig(micro_batch=micro_batch, modes=(mode,), topk_max=TOPK, score_tile_bytes=500, **KNOBS[knobs])
    peak = plan(blob, config).peak
    assert marks(blob, config, model, (peak,)) == [peak]


@pytest.mark.parametrize("banks", BANKS)
@pytest.mark.parametrize("knobs", ["quick", "smallest"])
@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("name", MODELS)
def test_a_mode_touches_in_each_bank_what_it_plans(
    name: str, mode: str, knobs: str, banks: str, models: dict[str, Model]
) -> None:
    model = models[name]
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.1))
    # where scoring's rows do not stand behind the work, its last bytes are for weights' gradients
    modes = ("train", "score") if mode == "score" else (mode,)
    config = NodeConfig(micro_batch=4, modes=modes, topk_max=TOPK, score_tile_bytes=500, **KNOBS[knobs])
    _, one = plan_banks(blob, config, [PLENTY])
    sizes = BANKS[banks](one.parts)
    _, spread = plan_banks(blob, config, sizes)
    assert spread.missing is None
    assert len(set(spread.banks.values())) > 1
    assert marks(blob, config, model, sizes) == list(spread.used)
