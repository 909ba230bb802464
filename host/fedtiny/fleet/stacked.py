"""Local training of many simulated nodes as one torch program: weights stacked, every step of all nodes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fedtiny.federation.tasks import Train, Update
from fedtiny.fleet.order import shuffled
from fedtiny.fleet.upload import uploaded
from fedtiny_export.graph import F32
from fedtiny_export.reference import sample_losses

if TYPE_CHECKING:
    from fedtiny.fleet.simulated import NodeModel

MOST = 64
"""Nodes in one stack: more gain nothing and take memory."""

_U32 = 0xFFFFFFFF


def can_stack(task: Train, samples: int, micro_batch: int) -> bool:
    """Whether a node may train in a stack: plain SGD, over whole micro-batches."""
    plain = not task.extrude and task.activations >= 1.0 and task.augment == "none"
    return plain and samples >= micro_batch


def train_together(models: Sequence[NodeModel], data: Sequence[tuple[Tensor, Tensor]], task: Train) -> list[Update]:
    """What each node would answer to the same task, within float tolerance; its values stay in its model.

    The models differ in weights and masks alone. Nodes with fewer samples leave the stack when they are done: the
    stack is ordered by the number of steps, so those that still train are its head.
    """
    first, size = models[0], models[0].micro_batch
    device = first.flat.device
    steps = [task.epochs * (len(x) // size) for x, _ in data]
    order = sorted(range(len(models)), key=lambda k: -steps[k])
    ends = [steps[k] for k in order]
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    offsets = np.cumsum([0, *(len(part) for part, _ in data)])
    visits = np.zeros((len(order), max(ends), size), np.int64)
    for row, k in enumerate(order):
        visits[row, : steps[k]] = offsets[k] + _visits(len(data[k][0]), size, task).reshape(-1, size)
    where = torch.from_numpy(visits).to(device)
    flat = torch.stack([models[k].flat for k in order])
    live = torch.stack([models[k].live for k in order])
    momentum = torch.zeros_like(flat)
    masked = any(model.masked for model in models)
    step = _step(first)
    tallies = [_Tally() for _ in order]
    for number in range(max(ends)):
        active = sum(end > number for end in ends)
        chosen = where[:active, number]
        grad, (losses, hits, moments) = step(flat[:active], x[chosen], y[chosen])
        grad = grad.add(flat[:active], alpha=task.weight_decay)
        grad[:, : first.constants] = 0.0
        if masked:
            grad.mul_(live[:active])
        momentum[:active].mul_(task.momentum).add_(grad)
        flat[:active].sub_(momentum[:active], alpha=task.lr)
        for row in range(active):
            if number >= ends[row] - ends[row] // task.epochs:  # its last epoch
                tallies[row].add(losses[row], hits[row], [(s[row], m[row]) for s, m in moments])
    updates: list[Update | None] = [None] * len(models)
    for row, k in enumerate(order):
        models[k].flat.copy_(flat[row])
        per_channel = [size * positions for positions in first.norm_positions]
        updates[k] = Update(
            values=uploaded(models[k].values(), task.upload),
            moments=tallies[row].moments(per_channel),
            samples=len(data[k][0]),
            seen=ends[row] // task.epochs * size,
            loss_sum=float(torch.stack(tallies[row].losses).double().sum()),
            correct=int(torch.stack(tallies[row].hits).sum()),
        )
    return [update for update in updates if update is not None]


def _visits(samples: int, size: int, task: Train) -> np.ndarray:
    """Samples in the order of all epochs, an incomplete micro-batch left out."""
    whole = samples // size * size
    return np.concatenate([shuffled(samples, (task.seed + epoch) & _U32)[:whole] for epoch in range(task.epochs)])


class _WithMoments(nn.Module):
    """A module whose call also gives the moments of its batch norms."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner.forward_with_moments(x)  # type: ignore[operator]


def _step(model: NodeModel) -> Callable[[Tensor, Tensor, Tensor], Any]:
    """(N, P) weights, (N, B, C, H, W) samples, (N, B) labels -> (N, P) gradients, and per node the loss and hits summed
    over its batch and the sums and squared deviations of each norm."""
    module = _WithMoments(model.module)
    module.train()
    names = {id(param): name for name, param in module.named_parameters()}
    spans, at = [], 0
    for param in model.params:
        spans.append((names[id(param)], at, param.shape))
        at += param.numel()
    buffers = dict(module.named_buffers())

    def loss(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        params = {name: weights[start : start + shape.numel()].view(shape) for name, start, shape in spans}
        outputs, moments = torch.func.functional_call(module, (params, buffers), (x,))
        losses, hits = sample_losses(model.loss, outputs, x, y)
        told = [(sums, squares) for sums, squares, _ in moments]
        return losses.mean(), (losses.sum().detach(), hits.sum(), told)

    step: Callable[[Tensor, Tensor, Tensor], Any] = torch.func.vmap(torch.func.grad(loss, has_aux=True))
    return step


class _Tally:
    """What one node saw in its last epoch."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.hits: list[Tensor] = []
        self._moments: list[list[tuple[Tensor, Tensor]]] = []

    def add(self, loss: Tensor, hits: Tensor, moments: list[tuple[Tensor, Tensor]]) -> None:
        self.losses.append(loss)
        self.hits.append(hits)
        self._moments.append(moments)

    def moments(self, per_channel: Sequence[int]) -> F32:
        """sum[C], m2[C] of each norm over all its micro-batches (Chan's formula, in float64)."""
        parts: list[Tensor] = []
        for count, norm in zip(per_channel, zip(*self._moments, strict=True), strict=True):
            sums = torch.stack([s for s, _ in norm]).double()
            squares = torch.stack([m for _, m in norm]).double()
            mean = sums.sum(0) / (count * len(norm))
            parts += [sums.sum(0), squares.sum(0) + count * ((sums / count - mean) ** 2).sum(0)]
        return torch.cat(parts).float().cpu().numpy() if parts else np.zeros(0, np.float32)
