"""Small modules that together use every operator of the node, in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fedtiny_export import WSConv2d

torch.set_num_threads(1)


class Residual(nn.Module):
    """Two convolutions beside a 1x1 shortcut, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, stride=2, padding=1, bias=False)
        self.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, stride=2, bias=False), nn.BatchNorm2d(2 * width))
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.conv(x)) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


class Viewed(nn.Module):
    """Flattens with `view` and the batch size, as much user code does; adds a tensor to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, (3, 5), padding=(0, 2))
        self.head = nn.Linear(3 * 4 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = x + x
        return self.head(x.view(x.size(0), -1))


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=(2, 1), padding=(1, 0)),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 8, 1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def group_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 2),
        nn.GroupNorm(1, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 2),
        nn.GroupNorm(6, 6),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3, bias=False),
    )


def padded_pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.AvgPool2d((3, 2), stride=1, padding=(1, 0), count_include_pad=False),
        nn.ZeroPad2d((0, 1, 2, 0)),
        nn.AvgPool2d(3, stride=2),
        nn.ZeroPad2d((1, 0, 0, 1)),
        nn.Conv2d(4, 5, 2),
        nn.Flatten(),
        nn.Dropout(),
        nn.LazyLinear(4),
    )


def watch() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 8, 5, stride=2, padding=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, padding=1, groups=8),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AvgPool1d(3, stride=1, padding=1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def standardised() -> nn.Module:
    return nn.Sequential(
        *(WSConv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU()),
        *(WSConv2d(6, 6, 3, 2, groups=3, bias=False, eps=1e-3), nn.Flatten(), nn.Linear(6 * 4 * 3, 3)),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (lambda: Residual(4), (2, 9, 11)),
    "viewed": (Viewed, (1, 6, 7)),
    "depthwise": (depthwise, (2, 10, 7)),
    "group norms": (group_norms, (1, 19, 17)),
    "padded pools": (padded_pools, (3, 12, 9)),
    "watch": (watch, (6, 33)),
    "standardised": (standardised, (2, 9, 8)),
    "perceptron": (perceptron, (7,)),
}


@dataclass(frozen=True)
class Net:
    module: nn.Module
    input_shape: tuple[int, ...]

    def batch(self, n: int, seed: int = 1) -> torch.Tensor:
        return torch.randn((n, *self.input_shape), generator=torch.Generator().manual_seed(seed))


def make_net(name: str) -> Net:
    """A net of the zoo whose norms have scales, shifts and statistics that matter."""
    torch.manual_seed(0)
    build, input_shape = ZOO[name]
    module = build().eval()
    with torch.no_grad():
        module(torch.zeros((2, *input_shape)))
        for key, tensor in module.state_dict().items():
            if key.endswith("running_mean"):
                tensor.normal_(std=0.3)
            elif key.endswith("running_var") or tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
    return Net(module, input_shape)


@pytest.fixture(params=list(ZOO))
def net(request: pytest.FixtureRequest) -> Net:
    return make_net(request.param)


@pytest.fixture
def residual() -> Net:
    return make_net("residual")
