"""Small torch modules, one for each operator and path that the node has, and how to put one on a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch
from fedtiny_export.ws_conv import WSConv2d

ALL_MODES = ("infer", "measure", "train", "score")


class Residual(nn.Module):
    """conv-BN-ReLU, then a block whose input feeds three readers: two convolutions and an add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.side = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.b(self.a(x)) + self.side(x) + x)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class DoubledAdd(nn.Module):
    """x + x: both inputs of the add are one tensor, which a convolution reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4 * 9 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.head(torch.flatten(torch.relu(x + x) + self.second(x), 1))


class Tiny(nn.Module):
    """What lets a node keep little: group norms, a plain and a strided residual block, a sum that feeds two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.GroupNorm(1, 4))
        self.c = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.GroupNorm(3, 6), nn.ReLU())
        self.d = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.GroupNorm(3, 6))
        self.side = nn.Conv2d(4, 6, 1, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.b(self.a(x)) + x)
        x = torch.relu(self.d(self.c(x)) + self.side(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def _separable(norm: Callable[[int], nn.Module]) -> nn.Module:
    return _conv(
        *(nn.Conv2d(2, 6, 3, 2, 1), norm(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False), norm(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 1, bias=False), norm(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, (1, 3), 1, (0, 1), groups=8), norm(8), nn.ReLU6(), nn.Conv2d(8, 8, 1), norm(8), nn.ReLU()),
        features=8 * 30,
    )


def _conv(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


# Every input is (2, 11, 9): odd and unequal sides, so that no stride or padding divides evenly by luck.
NETS: dict[str, Callable[[], nn.Module]] = {
    "conv 3x3": lambda: _conv(nn.Conv2d(2, 5, 3), features=5 * 9 * 7),
    "conv 3x3 padding": lambda: _conv(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1), features=4 * 99
    ),
    "conv 3x3 stride 2": lambda: _conv(nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1), features=4 * 6 * 5),
    "conv 1x1 stride 2": lambda: _conv(nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 4, 1, 2), features=4 * 6 * 5),
    "conv 1x1": lambda: _conv(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1), features=4 * 99),
    "conv 5x3 stride 3x2 padding 2x0": lambda: _conv(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, (5, 3), (3, 2), (2, 0), bias=False), features=4 * 4 * 4
    ),
    "conv 2x4 stride 4x1": lambda: _conv(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, (2, 4), (4, 1)), features=4 * 3 * 6),
    "conv as wide as the map": lambda: _conv(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, (11, 9)), features=6),
    "depthwise": lambda: _conv(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4), features=4 * 99),
    "depthwise stride 2, two per channel": lambda: _conv(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 3, 2, 1, groups=4), features=8 * 6 * 5
    ),
    "grouped": lambda: _conv(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 3, groups=2), features=6 * 9 * 7),
    # rows of 14: what a layer of kernels three wide gains most from, when it is held whole
    "conv over rows of 14": lambda: _conv(
        *(nn.Conv2d(2, 4, (1, 2), padding=(0, 3)), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(175, 8), nn.ReLU()),
        features=8,
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(198, 20), nn.ReLU(), nn.Linear(20, 3)),
    "batch norm": lambda: _conv(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), features=5 * 9 * 7),
    "batch norm first": lambda: _conv(nn.BatchNorm2d(2), nn.Conv2d(2, 5, 3), features=5 * 9 * 7),
    "batch norm of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(198, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3)
    ),
    "group norm": lambda: _conv(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), features=6 * 9 * 7),
    "relu6": lambda: _conv(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU6(), features=5 * 9 * 7),
    "max pool": lambda: _conv(nn.Conv2d(2, 5, 3), nn.MaxPool2d(2), features=5 * 4 * 3),
    "max pool 3x3 stride 2 padding 1": lambda: _conv(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), features=5 * 5 * 4
    ),
    "average pool": lambda: _conv(nn.Conv2d(2, 5, 3), nn.AvgPool2d(2), features=5 * 4 * 3),
    "average pool padding counted": lambda: _conv(nn.Conv2d(2, 5, 3), nn.AvgPool2d(3, 2, 1), features=5 * 5 * 4),
    "average pool padding not counted": lambda: _conv(
        nn.Conv2d(2, 5, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False), features=5 * 5 * 4
    ),
    "global average pool": lambda: _conv(nn.Conv2d(2, 5, 3), nn.AdaptiveAvgPool2d(1), features=5),
    "global max pool": lambda: _conv(nn.Conv2d(2, 5, 3), nn.AdaptiveMaxPool2d(1), features=5),
    "max pool twice": lambda: _conv(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU6()),
        nn.MaxPool2d(2),
        features=6 * 4,
    ),
    # eps: a depthwise channel may lose all its weights, and nothing then divides by a variance of nothing
    "separable": lambda: _separable(lambda channels: nn.BatchNorm2d(channels, eps=0.1)),
    "separable with group norm": lambda: _separable(lambda channels: nn.GroupNorm(2, channels)),
    "strided residual with group norm": Tiny,
    "standardised": lambda: _conv(
        *(WSConv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU()),
        *(WSConv2d(6, 8, 3, 2, 1, bias=False), nn.GroupNorm(4, 8), nn.ReLU()),
        *(WSConv2d(8, 6, 1, eps=1e-3), nn.GroupNorm(1, 6)),
        features=6 * 6 * 5,
    ),
    # eps: a depthwise channel may keep one weight or none, and a variance of nothing is then divided by
    "standardised depthwise and grouped": lambda: _conv(
        *(nn.Conv2d(2, 4, 1), WSConv2d(4, 4, 3, 1, 1, groups=4, eps=0.1), nn.GroupNorm(2, 4), nn.ReLU()),
        WSConv2d(4, 6, 3, groups=2, eps=0.1),
        features=6 * 9 * 7,
    ),
    "autoencoder": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten()),
    ),
    "residual": Residual,
    "doubled add": DoubledAdd,
}
INPUT = (2, 11, 9)


def make(name: str, seed: int = 0) -> tuple[nn.Module, Model]:
    """A net with random norms, so that no factor is one and no statistic zero by default."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETS[name]()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d | nn.GroupNorm):
                nn.init.uniform_(layer.weight, 0.5, 3.0)
                nn.init.uniform_(layer.bias, -1.0, 2.0)
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.uniform_(-0.5, 0.5)
                layer.running_var.uniform_(0.5, 2.0)
    return module, from_torch(module, INPUT)


def random_masks(model: Model, density: float, seed: int = 0) -> dict[str, Bits]:
    """Masks for every layer but the first, with at least one live weight each."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name in model.graph.layer_names[1:]:
        mask = rng.random(model.arrays[name].shape) < density
        mask.flat[rng.integers(mask.size)] = True
        masks[name] = mask
    return masks


def apply_masks(module: nn.Module, masks: Mapping[str, Bits]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(torch.from_numpy(mask))


def random_samples(n: int, classes: int, seed: int = 0) -> tuple[F32, np.ndarray[tuple[int], np.dtype[np.uint16]]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *INPUT)).astype(np.float32), rng.integers(0, classes, n).astype(np.uint16)


def node_of(
    model: Model,
    masks: Mapping[str, Bits],
    *,
    micro_batch: int = 4,
    norm: str = "batch",
    topk_max: int = 0,
    tile: int = 0,
    **knobs: Any,
) -> CoreNode:
    arrays = {name: array * masks[name] if name in masks else array for name, array in model.arrays.items()}
    config = NodeConfig(
        micro_batch=micro_batch, modes=ALL_MODES, norm=norm, topk_max=topk_max, score_tile_bytes=tile, **knobs
    )
    return CoreNode(write_blob(model.graph, arrays, masks), config)
