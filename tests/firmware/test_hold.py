"""A layer with a mask is held as its live weights or whole, whichever is quicker, and nobody sees a difference."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fedtiny.bench import builds, counting
from fedtiny.bench.cases import Case
from fedtiny.bench.cases import blob as blob_of
from fedtiny.emulation import missing_packages
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, _library, _Memory, plan
from fedtiny_export.errors import CoreError
from fedtiny_export.masks import encode_mask
from fedtiny_export.torch_in import from_torch

from .nets import ALL_MODES, INPUT, NETS, make, random_masks, random_samples
from .test_high_water import marks

NET = "conv over rows of 14"
LAYERS = {"convolution": 1, "linear": 2, "small linear": 3}
SCORED = 20


def blob(density: float) -> bytes:
    _, model = make(NET)
    masks = random_masks(model, density)
    arrays = {name: array * masks.get(name, np.True_) for name, array in model.arrays.items()}
    return write_blob(model.graph, arrays, masks)


def config(**settings: Any) -> NodeConfig:
    usual = {"micro_batch": 1, "modes": ALL_MODES, "topk_max": SCORED, "score_tile_bytes": 300}
    return NodeConfig(**usual | settings)


def node_of(density: float, **settings: Any) -> CoreNode:
    return CoreNode(blob(density), config(**settings))


def whole_weights(density: float, **settings: Any) -> int:
    """Weights that are held though they are pruned, from the bytes of the plan."""
    both = [plan(blob(density), config(hold=hold, **settings)).weights for hold in ("by_cost", "sparse")]
    return (both[0] - both[1]) // 4


def pruned(density: float, layer: int) -> int:
    masks = random_masks(make(NET)[1], density)
    return int((~masks[make(NET)[1].graph.layer_names[layer]]).sum())


def answers(node: CoreNode, *, by_layer: bool) -> list[Any]:
    """Everything that a node tells, with a mask that changes on the way: each layer loses weights and gains fewer."""
    x, y = random_samples(12, 3)
    node.set_samples(x, y, 5)
    told: list[Any] = []

    def train(seed: int) -> None:
        tally, moments = node.train(epochs=2, lr=0.05, momentum=0.0 if by_layer else 0.9, weight_decay=0.01, seed=seed)
        told.extend([node.values(), tally.loss_sum, tally.correct, moments])

    train(0)
    masks = random_masks(make(NET)[1], 0.9)
    scores = {layer: node.score(layer, SCORED, batches=3, seed=1) for layer in LAYERS.values()}
    for layer, (rows, gradients) in scores.items():
        told.extend([rows, gradients])
        mask = masks[make(NET)[1].graph.layer_names[layer]]
        mask.flat[np.flatnonzero(mask)[:3]] = False
        mask.flat[rows[:2]] = True
        node.set_mask(layer, encode_mask(mask))
    node.set_values(np.linspace(-0.2, 0.2, node.value_count, dtype=np.float32))
    train(1)
    if not by_layer:
        told.extend(node.gradient(0, 1))
    told.extend([node.evaluate(1).loss_sum, node.infer(x)])
    return told


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("last_layers", [0, 3])
def test_a_node_tells_the_same_however_its_layers_are_held(by_layer: bool, last_layers: int) -> None:
    knobs = {"layerwise": by_layer, "plain_sgd": by_layer, "last_layers": last_layers}
    assert whole_weights(0.9, **knobs) == sum(pruned(0.9, layer) for layer in LAYERS.values())
    nodes = [node_of(0.9, hold=hold, **knobs) for hold in ("by_cost", "sparse")]
    for whole, sparse in zip(*(answers(node, by_layer=by_layer) for node in nodes), strict=True):
        np.testing.assert_array_equal(whole, sparse)


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("density", [0.05, 0.9])
def test_a_mask_is_read_back_as_it_was_set_however_its_layer_is_held(net: str, density: float) -> None:
    _, model = make(net)
    loaded, later = random_masks(model, density), random_masks(model, density, seed=1)
    node = CoreNode(write_blob(model.graph, model.arrays, loaded), config(topk_max=0))
    for layer, name in enumerate(model.graph.layer_names[1:], 1):
        assert node.mask(layer) == np.packbits(loaded[name], bitorder="little").tobytes()
        later[name].flat[np.flatnonzero(later[name])[loaded[name].sum() :]] = False  # no more than there was
        node.set_mask(layer, encode_mask(later[name]))
        assert node.mask(layer) == np.packbits(later[name], bitorder="little").tobytes()
    with pytest.raises(CoreError, match="argument"):
        node.mask(0)


def test_a_batch_side_by_side_a_low_density_and_who_asks_for_it_stay_sparse() -> None:
    assert whole_weights(0.9) == sum(pruned(0.9, layer) for layer in LAYERS.values())
    assert whole_weights(0.9, micro_batch=4) == pruned(0.9, LAYERS["convolution"])
    assert whole_weights(0.9, micro_batch=4, modes=("infer",)) == whole_weights(0.9)  # infers one by one
    assert whole_weights(0.3) == 0


@pytest.mark.parametrize("density", [0.5, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("modes", [("infer",), ("train",), ("train", "score")])
def test_lean_holds_a_layer_whole_only_where_it_takes_no_more_memory(density: float, modes: tuple[str, ...]) -> None:
    """A convolution in bands gains nothing; a linear layer's positions may take more than its pruned weights."""
    peaks = [plan(blob(density), config(lean=True, modes=modes, hold=hold)).peak for hold in ("by_cost", "sparse")]
    assert peaks[0] <= peaks[1]
    if density == 0.95:
        assert whole_weights(density, lean=True, modes=modes) >= pruned(density, LAYERS["linear"])


@pytest.mark.parametrize("modes", [("infer",), ("measure",), ("train",), ("train", "score")])
@pytest.mark.parametrize("knobs", [{}, {"layerwise": True, "plain_sgd": True}], ids=str)
def test_the_plan_of_layers_held_whole_is_what_a_node_touches(modes: tuple[str, ...], knobs: dict[str, bool]) -> None:
    settings = config(modes=modes, **knobs)
    peak = plan(blob(0.9), settings).peak
    assert marks(blob(0.9), settings, make(NET)[1], (peak,)) == [peak]


def test_a_net_without_weights_holds_none() -> None:
    net = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = from_torch(net, INPUT)
    settings = config(modes=("train",))
    packed = write_blob(model.graph, model.arrays, {})
    peak = plan(packed, settings).peak
    assert marks(packed, settings, model, (peak,)) == [peak]


def test_another_form_is_refused() -> None:
    packed, argument = blob(0.9), 6
    scratch, settings = ctypes.create_string_buffer(1 << 16), config()._struct()
    settings.hold = 2
    arguments = (packed, len(packed), settings, scratch, len(scratch), _Memory())
    assert _library().ft_plan(*arguments) == argument


# A kernel's net, what it does, a density under and one over that from which it is held whole.
TURNS = [
    ("linear784x10", "infer", 0.34, 0.62),
    ("linear784x10", "train", 0.5, 0.85),
    ("conv8x16", "infer", 0.5, 0.7),
    ("conv8x16", "train", 0.78, 0.92),
]


def test_the_form_that_is_chosen_is_the_one_of_fewer_instructions(tmp_path: Path) -> None:
    """On a Cortex-M4F. A layer held whole takes no fewer instructions the less of it lives: what the larger
    density takes whole is the least that the smaller one would."""
    if missing := missing_packages(builds.board_of("m4f")):
        pytest.skip(f"apt-get install -y --no-install-recommends {' '.join(missing)}")
    forms = ("by_cost", "sparse")
    cases = {
        (net, mode, density, hold): Case(model=net, mode=mode, density=density, hold=hold)
        for net, mode, *densities in TURNS
        for density in densities
        for hold in forms
    }
    costs = counting.count_cases("m4f", builds.DETERMINISTIC, list(cases.values()), tmp_path)
    for net, mode, low, high in TURNS:
        weights = [
            plan(blob_of(cases[net, mode, d, h]), cases[net, mode, d, h].node_config).weights
            for d in (low, high)
            for h in forms
        ]
        assert weights[0] == weights[1], f"{net} {mode} is held whole at {low}"
        assert weights[2] > weights[3], f"{net} {mode} is held sparse at {high}"
        spent = {d: [costs[cases[net, mode, d, h]].instructions for h in forms] for d in (low, high)}
        whole, sparse = spent[high]
        assert whole < sparse, f"{net} {mode} at {high}"
        assert spent[low][0] == spent[low][1] < whole, f"{net} {mode} at {low}"
