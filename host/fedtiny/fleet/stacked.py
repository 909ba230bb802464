"""Local training of many simulated nodes as one torch program: weights stacked, every step of all nodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedtiny.federation.tasks import Train, Update
from fedtiny.fleet.grouped import Grouped, layout
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
    live = torch.stack([models[k].live for k in order]) if any(model.masked for model in models) else None
    momentum = torch.zeros_like(flat)
    seen: list[_Seen] = []
    first.module.train()
    began = 0
    for end in sorted(set(ends)):  # between two ends the same nodes train
        active = sum(other >= end for other in ends)
        stack = _Stack(first, flat[:active], momentum[:active], None if live is None else live[:active])
        for number in range(began, end):
            chosen = where[:active, number].T
            seen.append(stack.step(x[chosen], y[chosen], task))
        flat[:active], momentum[:active] = stack.rows()
        began = end
    updates: list[Update | None] = [None] * len(models)
    for row, k in enumerate(order):
        models[k].flat.copy_(flat[row])
        last = ends[row] // task.epochs
        losses, hits, moments = (
            torch.stack([part[row] for part in parts])
            for parts in zip(*((s.losses, s.hits, s.moments) for s in seen[ends[row] - last : ends[row]]), strict=True)
        )
        updates[k] = Update(
            values=uploaded(models[k].values(), task.upload),
            moments=_moments(moments, first, size),
            samples=len(data[k][0]),
            seen=last * size,
            loss_sum=float(losses.double().sum()),
            correct=int(hits.sum()),
        )
    return [update for update in updates if update is not None]


def _visits(samples: int, size: int, task: Train) -> np.ndarray:
    """Samples in the order of all epochs, an incomplete micro-batch left out."""
    whole = samples // size * size
    return np.concatenate([shuffled(samples, (task.seed + epoch) & _U32)[:whole] for epoch in range(task.epochs)])


class _Seen(NamedTuple):
    """What the nodes of a stack saw in one step, node by node."""

    losses: Tensor
    hits: Tensor
    moments: Sequence[Tensor]


class _Stack:
    """Weights and momentum (N, P) of nodes that train together, held parameter by parameter as `Grouped` wants them."""

    def __init__(self, model: NodeModel, flat: Tensor, momentum: Tensor, live: Tensor | None) -> None:
        self._nodes, self._loss = len(flat), model.loss
        self._shapes = [param.shape for param in model.params]
        self._fixed = sum(not param.requires_grad for param in model.params)  # these come first
        self._program = Grouped(model.module, self._nodes)
        self._weights, self._momentum = self._by_param(flat), self._by_param(momentum)
        self._live = None if live is None else self._by_param(live)[self._fixed :]
        for weight in self._weights[self._fixed :]:
            weight.requires_grad_()

    def step(self, x: Tensor, y: Tensor, task: Train) -> _Seen:
        """SGD by x (B, N, ...), y (B, N)."""
        outputs, moments = self._program.run(self._weights, x)
        samples, labels = x.transpose(0, 1).flatten(0, 1), y.T.reshape(-1)
        losses, hits = sample_losses(self._loss, outputs.flatten(0, 1), samples, labels)
        weights, momentum = self._weights[self._fixed :], self._momentum[self._fixed :]
        # each node's loss has gradients for its own weights alone
        gradients = torch.autograd.grad(losses.sum() / len(x), weights)
        with torch.no_grad():
            torch._foreach_add_(gradients, weights, alpha=task.weight_decay)
            if self._live is not None:
                torch._foreach_mul_(gradients, self._live)
            torch._foreach_mul_(momentum, task.momentum)
            torch._foreach_add_(momentum, gradients)
            torch._foreach_add_(weights, momentum, alpha=-task.lr)
        return _Seen(losses.detach().view(self._nodes, -1).sum(1), hits.view(self._nodes, -1).sum(1), moments.unbind(1))

    def rows(self) -> tuple[Tensor, Tensor]:
        """Weights and momentum (N, P)."""
        return self._by_node(self._weights), self._by_node(self._momentum)

    def _by_param(self, rows: Tensor) -> list[Tensor]:
        parts = torch.split(rows, [shape.numel() for shape in self._shapes], dim=1)
        whole = [part.reshape(-1, *shape[1:]) for part, shape in zip(parts, self._shapes, strict=True)]
        return [part.clone(memory_format=layout(part)) for part in whole]

    def _by_node(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.detach().reshape(self._nodes, -1) for part in parts], dim=1)


def _moments(batches: Tensor, model: NodeModel, size: int) -> F32:
    """sum[C], m2[C] of each norm over all micro-batches (Chan's formula, in float64).

    `batches` (micro-batches, 2, channels of all norms): mean and variance of each.
    """
    parts: list[Tensor] = []
    widths = [model.graph.tensors[op.output].shape[0] for op in model.graph.batchnorms]
    for (means, variances), positions in zip(
        (norm.double().unbind(1) for norm in torch.split(batches, widths, dim=2)), model.norm_positions, strict=True
    ):
        count = size * positions
        between = (means - means.mean(0)).square().sum(0)
        parts += [count * means.sum(0), count * (variances.sum(0) + between)]
    return torch.cat(parts).float().cpu().numpy() if parts else np.zeros(0, np.float32)
