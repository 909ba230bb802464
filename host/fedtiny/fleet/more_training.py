"""What simulated nodes do in local training beside SGD: pruned activations and extrusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedtiny_export.graph import Op, OpKind
from fedtiny_export.reference import GraphModule


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
