"""Small torch modules that together use every operator of the engine that training knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions beside a 1x1 shortcut, added; a mean over the map."""

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


class Flattened(nn.Module):
    """A map of several rows and columns into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, (3, 5), padding=(0, 2))
        self.head = nn.Linear(3 * 4 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head((x + x).view(x.size(0), -1))


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=(2, 1), padding=(1, 0)),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.ReLU6(),
        nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU6(),
        nn.Conv2d(12, 8, 1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        nn.ZeroPad2d((0, 1, 2, 0)),
        nn.AvgPool2d(3, stride=2),
        nn.ZeroPad2d((1, 0, 0, 1)),
        nn.Conv2d(4, 5, 2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(5 * 3 * 2, 4),
    )


def watch() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 8, 5, stride=2, padding=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (lambda: Residual(4), (2, 9, 11)),
    "flattened": (Flattened, (1, 6, 7)),
    "depthwise": (depthwise, (2, 10, 7)),
    "pools": (pools, (3, 12, 9)),
    "watch": (watch, (6, 33)),
    "perceptron": (perceptron, (7,)),
}


def make_module(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module of the zoo in eval mode, its batch norms as after some training, and the shape of one sample."""
    make, shape = ZOO[name]
    torch.manual_seed(0)
    module = make()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module.eval(), shape


class Branches(nn.Module):
    """What inference takes and training does not: a concatenation, a softmax, a scale of constants."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 5, 1)
        self.after = nn.Conv2d(9, 6, 3, stride=2, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - 0.5) * 2.0
        x = torch.cat([torch.relu(self.left(x)), self.right(x)], dim=1)
        return torch.softmax(self.after(x).mean((2, 3)), dim=1)
