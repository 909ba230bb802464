"""The planner's bytes are the node's high-water mark: what a mode plans it touches, to the last word and no further."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch

from fedtiny.models import NAMES, build
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, _library, plan
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


def high_water(blob: bytes, config: NodeConfig, mode: str, model: Model, pattern: int) -> int:
    """Bytes up to the last that the node changed, in an arena filled with the pattern and with 4 KiB behind it."""
    peak = plan(blob, config).peak
    arena = np.full(peak + 4096 + 8, pattern, np.uint8)
    start = -arena.ctypes.data % 8
    node, handle = CoreNode(blob, config), ctypes.c_void_p()
    status = _library().ft_load(arena.ctypes.data + start, peak, blob, len(blob), config._struct(), handle, None)
    assert status == 0
    node._node = handle
    work(node, mode, model, config.plain_sgd)
    return int(np.flatnonzero(arena[start:] != pattern)[-1]) + 1


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
    # two patterns: a byte that happens to be written with one of them is not missed
    mark = max(high_water(blob, config, mode, model, pattern) for pattern in (0xA5, 0x5A))
    assert mark == plan(blob, config).peak
