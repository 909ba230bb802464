"""Weight standardisation (Qiao et al., arXiv 1903.10520): the convolution whose weight is normalised before use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fedtiny_export.graph import STANDARDISE


def standardised(weight: Tensor, eps: float) -> Tensor:
    """(w - mean) / sqrt(var + eps) of each output channel, with the biased variance, for a weight (O, ...).

    Without zeros this is `torch.var_mean(weight, (1, 2, 3), correction=0)` applied, as in the StdConv2d of Big Transfer
    (Kolesnikov et al., arXiv 1912.11370). A weight of exactly 0 is pruned: it takes no part in mean and variance and
    stays 0; its gradient is the one that it would have if it took part, which is what growing it would follow.
    """
    live = weight != 0
    axes = tuple(range(1, weight.dim()))
    count = live.sum(axes, keepdim=True).clamp(min=1)
    mean = weight.sum(axes, keepdim=True) / count
    # the other branch of each `where` is 0 and carries the gradient of a weight of 0
    squares = torch.where(live, (weight - mean).square(), -2 * mean.detach() * weight)
    scale = torch.rsqrt(squares.sum(axes, keepdim=True) / count + eps)
    return torch.where(live, (weight - mean) * scale, weight * scale.detach())


class WSConv2d(nn.Conv2d):
    """`nn.Conv2d` with a standardised weight; `from_torch` knows it. 0 < eps <= 1."""

    def __init__(self, *args: Any, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        standardise: Callable[[Tensor, float], Tensor] = standardised
        if torch.onnx.is_in_onnx_export():
            standardise = _Marked.apply
        y: Tensor = self._conv_forward(x, standardise(self.weight, self.eps), self.bias)
        return y


class _Marked(torch.autograd.Function):
    """Exports as one operator, so that the importer finds the stored weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, eps: float) -> Tensor:
        return standardised(weight, eps)

    @staticmethod
    def symbolic(g: Any, weight: Any, eps: float) -> Any:
        return g.op("::".join(STANDARDISE), weight, epsilon_f=eps).setType(weight.type())
