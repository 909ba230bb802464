"""One small net per kernel, in which the kernel is nearly all of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedtiny.bench.cases import Case

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Net:
    """`pixels`: output pixels of the kernel, for MACs per weight; 0 where there is no weight.
    `averaged`: a global average follows, so that any map gives logits."""

    shape: Shape
    layers: Callable[[], list[nn.Module]]
    pixels: int = 0
    averaged: bool = True

    def module(self) -> nn.Module:
        """ReLU first, so that the kernel's input has a gradient."""
        from torch import nn

        tail: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if self.averaged else []
        return nn.Sequential(nn.ReLU(), *self.layers(), *tail)


def _conv(ci: int, co: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> Callable[[], list[nn.Module]]:
    def layers() -> list[nn.Module]:
        from torch import nn

        padding = (kernel[0] // 2, kernel[1] // 2)
        return [nn.Conv2d(ci, co, kernel, stride, padding, groups=groups)]

    return layers


def _layer(name: str, *arguments: int) -> Callable[[], list[nn.Module]]:
    def layers() -> list[nn.Module]:
        from torch import nn

        made: nn.Module = getattr(nn, name)(*arguments)
        return [made]

    return layers


def _linear() -> list[nn.Module]:
    from torch import nn

    return [nn.Flatten(), nn.Linear(784, 10)]


NETS: dict[str, Net] = {
    "conv64x64": Net((64, 8, 8), _conv(64, 64, (3, 3)), 64),
    "conv8x16": Net((8, 14, 14), _conv(8, 16, (3, 3)), 196),
    "conv16x32s2": Net((16, 16, 16), _conv(16, 32, (3, 3), 2), 64),
    "conv32x32k1": Net((32, 8, 8), _conv(32, 32, (1, 1)), 64),
    "conv1d16x32": Net((16, 1, 64), _conv(16, 32, (1, 5)), 64),
    "depthwise32": Net((32, 12, 10), _conv(32, 32, (3, 3), 1, 32), 120),
    "linear784x10": Net((784, 1, 1), _linear, 1, averaged=False),
    "batchnorm16": Net((16, 16, 16), _layer("BatchNorm2d", 16)),
    "groupnorm16": Net((16, 16, 16), _layer("GroupNorm", 2, 16)),
    "relu6": Net((16, 16, 16), _layer("ReLU6")),
    "maxpool": Net((16, 16, 16), _layer("MaxPool2d", 2)),
    "avgpool": Net((16, 16, 16), _layer("AvgPool2d", 2)),
}
KERNELS = tuple(NETS)
BARE = "bare64x8x8"
"""conv64x64's net without the convolution: its maps have the same shape on both sides."""
NETS[BARE] = Net((64, 8, 8), list)


def measured(densities: Sequence[float] = (0.1, 1.0)) -> Iterator[tuple[str, Case]]:
    """Every kernel's net: forward, and a whole step."""
    for name in KERNELS:
        for mode, what in (("infer", "forward"), ("train", "step")):
            for density in densities if NETS[name].pixels else (1.0,):
                suffix = f".d{density:g}" if NETS[name].pixels else ""
                yield f"{name}.{what}{suffix}", Case(model=name, density=density, mode=mode)
