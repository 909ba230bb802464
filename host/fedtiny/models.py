"""Reference models in torch, of the size that a microcontroller trains. Loads torch: import it inside functions.

Every model takes (n, C, H, W) float32, returns logits (n, classes) and is made of modules that export to the
node's operators (firmware/BLOB.md). The residual nets follow He et al. (arXiv 1512.03385), `vgg11` Simonyan and
Zisserman (arXiv 1409.1556), the depthwise separable one the keyword net of Zhang et al. (arXiv 1711.07128). `resnet8`,
`ds-cnn` and `autoencoder` are the reference models of MLPerf Tiny (arXiv 2106.07597), without the biases and the
dropout that a norm makes idle. `resnet18` and `vgg11` are those of papers on federated pruning: no board holds them.
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fedtiny_export.errors import ConfigError
from fedtiny_export.ws_conv import WSConv2d

Norm = Callable[[int], nn.Module]

NORMS = ("batch", "group", "standardised")
GROUP_CHANNELS = 8  # channels per group of a group norm, where that divides


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(max(1, channels // math.gcd(channels, GROUP_CHANNELS)), channels)


def _conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    norm: Norm,
    *,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> nn.Sequential:
    """Convolution without bias, then its norm; "same" padding for odd kernels."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(outputs)))


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = (
            nn.Identity() if same else _conv(inputs, outputs, (1, 1), norm, stride=(stride, stride))
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


def _head(features: int, classes: int) -> list[tuple[str, nn.Module]]:
    return [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(features, classes))]


def _named(parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def _resnet_mini(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    w = width
    return _named(
        [
            ("stem", _conv(shape[0], w, (3, 3), norm, stride=(2, 2))),
            ("relu", nn.ReLU()),
            ("stage1", _Residual(w, w, 1, norm)),
            ("stage2", _Residual(w, 2 * w, 2, norm)),
            ("stage3", _Residual(2 * w, 4 * w, 2, norm)),
            *_head(4 * w, classes),
        ]
    )


def _watch_net(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    w = width
    return _named(
        [
            ("conv1", _conv(shape[0], w, (1, 7), norm, stride=(1, 2))),
            ("relu1", nn.ReLU()),
            ("conv2", _conv(w, 2 * w, (1, 5), norm)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d((1, 2))),
            ("conv3", _conv(2 * w, 3 * w, (1, 5), norm)),
            ("relu3", nn.ReLU()),
            ("pool3", nn.MaxPool2d((1, 2))),
            ("conv4", _conv(3 * w, 4 * w, (1, 3), norm)),
            ("relu4", nn.ReLU()),
            *_head(4 * w, classes),
        ]
    )


def _lenet_mini(shape: tuple[int, int, int], classes: int, width: int, _: Norm) -> nn.Module:
    channels, height, columns = shape
    return _named(
        [
            ("conv1", nn.Conv2d(channels, width, 3, padding=1)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(width, 2 * width, 3, padding=1)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flatten", nn.Flatten()),
            ("fc", nn.Linear(2 * width * (height // 4) * (columns // 4), classes)),
        ]
    )


def _ds_cnn_mini(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    parts: list[tuple[str, nn.Module]] = [
        ("stem", _conv(shape[0], width, (3, 3), norm, stride=(2, 2))),
        ("relu", nn.ReLU()),
    ]
    inputs = width
    for i, (outputs, stride) in enumerate([(width, 1), (2 * width, 2), (2 * width, 1), (2 * width, 1)], start=1):
        parts += [
            (f"depthwise{i}", _conv(inputs, inputs, (3, 3), norm, stride=(stride, stride), groups=inputs)),
            (f"relu{i}a", nn.ReLU()),
            (f"pointwise{i}", _conv(inputs, outputs, (1, 1), norm)),
            (f"relu{i}b", nn.ReLU()),
        ]
        inputs = outputs
    return _named([*parts, *_head(inputs, classes)])


class _TinyBlock(_Residual):
    """The residual block of MLPerf Tiny: where the shape changes, the shortcut is a bare convolution without a norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__(inputs, outputs, stride, norm)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)


def _resnet8(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    w = width
    return _named(
        [
            ("stem", _conv(shape[0], w, (3, 3), norm)),
            ("relu", nn.ReLU()),
            ("stage1", _TinyBlock(w, w, 1, norm)),
            ("stage2", _TinyBlock(w, 2 * w, 2, norm)),
            ("stage3", _TinyBlock(2 * w, 4 * w, 2, norm)),
            *_head(4 * w, classes),
        ]
    )


def _ds_cnn(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    stem = nn.Conv2d(shape[0], width, (10, 4), 2, (5, 1), bias=False)  # 49x10 -> 25x5, as "same" padding gives
    parts: list[tuple[str, nn.Module]] = [
        ("stem", nn.Sequential(OrderedDict(conv=stem, norm=norm(width)))),
        ("relu", nn.ReLU()),
    ]
    for i in range(1, 5):
        parts += [
            (f"depthwise{i}", _conv(width, width, (3, 3), norm, groups=width)),
            (f"relu{i}a", nn.ReLU()),
            (f"pointwise{i}", _conv(width, width, (1, 1), norm)),
            (f"relu{i}b", nn.ReLU()),
        ]
    return _named([*parts, *_head(width, classes)])


def _resnet18(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    """With a stem of 3x3 and no pool behind it, as for maps of 32 x 32."""
    w = width
    parts: list[tuple[str, nn.Module]] = [("stem", _conv(shape[0], w, (3, 3), norm)), ("relu", nn.ReLU())]
    for stage, (inputs, outputs, stride) in enumerate(
        [(w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2)], start=1
    ):
        parts += [
            (f"stage{stage}a", _Residual(inputs, outputs, stride, norm)),
            (f"stage{stage}b", _Residual(outputs, outputs, 1, norm)),
        ]
    return _named([*parts, *_head(8 * w, classes)])


def _vgg11(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    """Eight convolutions and one linear layer; maps are halved after five of them, as far as they are larger than 1."""
    parts: list[tuple[str, nn.Module]] = []
    inputs, height, columns = shape
    for i, (factor, pooled) in enumerate(
        [(1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True)], start=1
    ):
        parts += [(f"conv{i}", _conv(inputs, factor * width, (3, 3), norm)), (f"relu{i}", nn.ReLU())]
        inputs = factor * width
        kernel = (min(2, height), min(2, columns))
        if pooled and kernel != (1, 1):
            parts.append((f"pool{i}", nn.MaxPool2d(kernel)))
            height, columns = height // kernel[0], columns // kernel[1]
    return _named([*parts, *_head(inputs, classes)])


def _autoencoder(shape: tuple[int, int, int], classes: int, width: int, norm: Norm) -> nn.Module:
    """Four layers, a bottleneck, four layers, and as many outputs as the sample has values; `classes` plays no part."""
    features = math.prod(shape)
    sizes = [features, *[width] * 4, max(1, width // 16), *[width] * 4]
    vector = nn.BatchNorm1d if isinstance(norm(1), nn.BatchNorm2d) else norm
    parts: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        parts += [(f"fc{i}", nn.Linear(inputs, outputs)), (f"norm{i}", vector(outputs)), (f"relu{i}", nn.ReLU())]
    return _named([*parts, ("out", nn.Linear(width, features))])


_Build = Callable[[tuple[int, int, int], int, int, Norm], nn.Module]
_MODELS: dict[str, tuple[_Build, int, tuple[int, int]]] = {  # build, default width, smallest (H, W)
    "resnet-mini": (_resnet_mini, 16, (1, 1)),
    "watch-net": (_watch_net, 16, (1, 8)),
    "lenet-mini": (_lenet_mini, 8, (4, 4)),
    "ds-cnn-mini": (_ds_cnn_mini, 32, (1, 1)),
    "resnet8": (_resnet8, 16, (1, 1)),
    "ds-cnn": (_ds_cnn, 64, (2, 4)),
    "resnet18": (_resnet18, 64, (1, 1)),
    "vgg11": (_vgg11, 64, (1, 1)),
    "autoencoder": (_autoencoder, 128, (1, 1)),
}
NAMES = tuple(_MODELS)


def width_of(name: str) -> int:
    """A model's own width; 1 for a name that `build` refuses."""
    return _MODELS[name][1] if name in _MODELS else 1


def build(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: int | None = None,
    norm: str = "batch",
    seed: int = 0,
) -> nn.Module:
    """A fresh model for samples of `input_shape` (C, H, W); the same seed gives the same weights.

    `width`: channels of the first convolution (the others scale with it); None takes the model's own.
    `norm`: "batch"; "group" for nodes where only one sample fits; "standardised" for group norms behind convolutions
    whose weights are standardised (arXiv 1903.10520). `lenet-mini` has no norm and ignores it.
    Convolutions start as He et al. (arXiv 1502.01852) propose, norms at 1 and 0, linear layers as torch does.
    torch's global random state is left as it was. Raises ConfigError.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown model {name!r}. {hint}Choose one of: {', '.join(NAMES)}.")
    make, own_width, smallest = _MODELS[name]
    if norm not in NORMS:
        raise ConfigError(f"unknown norm {norm!r}. Choose one of: {', '.join(NORMS)}.")
    if width is not None and width < 1:
        raise ConfigError(f"width is {width}. Give at least 1, or leave it out for {name}'s own {own_width}.")
    if classes < 2:
        raise ConfigError(f"classes is {classes}. A classifier needs at least 2: look at the labels of the data set.")
    if min(input_shape) < 1 or input_shape[1] < smallest[0] or input_shape[2] < smallest[1]:
        raise ConfigError(
            f"{name} cannot take samples of shape {tuple(input_shape)}: it needs (C, H, W) with H >= {smallest[0]} "
            f"and W >= {smallest[1]}. Choose another model: {', '.join(n for n in NAMES if n != name)}."
        )
    make_norm = nn.BatchNorm2d if norm == "batch" else _group_norm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(input_shape, classes, width or own_width, make_norm)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if norm == "standardised":
        _standardise(model)
    return model


def _standardise(model: nn.Module) -> None:
    """Puts a convolution with standardised weight in the place of each that a norm follows (it has no bias)."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and child.bias is None:
                sizes: Any = (child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding)
                other = WSConv2d(*sizes, groups=child.groups, bias=False)
                other.weight = child.weight
                setattr(parent, name, other)


def count_weights(model: nn.Module) -> int:
    """Weights of convolutions and linear layers: what can be masked, and what density counts."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def count_parameters(model: nn.Module) -> int:
    """Everything that is trained: weights, biases and norms."""
    return sum(p.numel() for p in model.parameters())
