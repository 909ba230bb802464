"""What simulated nodes do in local training beside SGD: pruned activations, extrusion, augmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fedtiny.federation.tasks import Augment
from fedtiny_export.graph import Op, OpKind
from fedtiny_export.reference import GraphModule

SHIFT = 2  # pixels or steps of time that `shift` moves a sample at most
CROP = 4  # pixels of padding that `crop-flip` crops from


class PrunedActivations(GraphModule):
    """A graph whose layers' weight gradients see only the largest `activations` of their inputs, sample by sample.

    Outputs and input gradients are exact: the pruned input adds the difference of two equal numbers to the output, and
    only the weight's gradient to the backward pass.
    """

    activations = 1.0

    def operate(self, op: Op, source: Tensor, params: list[Tensor | None]) -> Tensor:
        if self.activations >= 1.0 or not self.training or op.kind not in (OpKind.CONV2D, OpKind.LINEAR):
            return super().operate(op, source, params)
        weight, *bias = params
        assert weight is not None
        exact = super().operate(op, source, [weight.detach(), *bias])
        seen = super().operate(op, largest(source.detach(), self.activations), [weight])
        return exact + (seen - seen.detach())


def largest(x: Tensor, share: float) -> Tensor:
    """x (N, ...) with the smallest |x| of each sample set to 0: ceil(share x its elements) stay."""
    flat = x.flatten(1)
    keep = max(1, -int(-share * flat.shape[1] // 1))
    chosen = flat.abs().topk(keep, dim=1).indices
    return torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen)).reshape(x.shape)


def smallest(flat: Tensor, live: Tensor, spans: Mapping[int, slice], counts: Mapping[int, int]) -> Tensor:
    """1 at the `counts` smallest live weights of each layer, 0 elsewhere, in the order of the values vector."""
    chosen = torch.zeros_like(flat)
    for layer, count in counts.items():
        span = spans[layer]
        at = torch.nonzero(live[span] > 0).flatten()
        order = torch.argsort(flat[span][at].abs(), stable=True)[:count]
        chosen[span.start + at[order]] = 1.0
    return chosen


def augmented(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Samples x (N, C, H, W), each varied on its own. shift: by up to two places along every axis longer than one, 0
    moving in. crop-flip: a crop of the map padded by four, flipped in half of the cases (He et al., 1512.03385)."""
    if how == "none":
        return x
    n, _, height, width = x.shape
    reach = SHIFT if how == "shift" else CROP
    down, right = (reach if size > 1 else 0 for size in (height, width))
    padded = F.pad(x, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (n,), generator=generator)
    lefts = torch.randint(2 * right + 1, (n,), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if how == "crop-flip" else torch.zeros(n, dtype=torch.bool)
    rows = tops[:, None] + torch.arange(height)
    columns = torch.arange(width).expand(n, width)
    columns = lefts[:, None] + torch.where(flips[:, None], columns.flip(1), columns)
    sample = torch.arange(n)[:, None, None]
    device = x.device
    picked = padded.movedim(1, -1)[sample.to(device), rows[:, :, None].to(device), columns[:, None, :].to(device)]
    return picked.movedim(-1, 1).contiguous()
