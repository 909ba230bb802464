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
            stack.step(x[chosen], y[chosen], task)
        seen.append(stack.seen())
        flat[:active], momentum[:active] = stack.rows()
        began = end
    updates: list[Update | None] = [None] * len(models)
    for row, k in enumerate(order):
        models[k].flat.copy_(flat[row])
        last = ends[row] // task.epochs
        losses, hits, means, variances = (
            torch.cat([steps[:, row] for steps in part if row < steps.shape[1]])[-last:]
            for part in zip(*seen, strict=True)
        )
        updates[k] = Update(
            values=uploaded(models[k].values(), task.upload),
            moments=_moments(means, variances, first, size),
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
    """What nodes that trained together saw, (steps, nodes[, channels of all norms])."""

    losses: Tensor
    hits: Tensor
    means: Tensor
    variances: Tensor


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
        self._eps = [op.eps for op in model.graph.batchnorms]
        self._seen: list[tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]] = []

    def step(self, x: Tensor, y: Tensor, task: Train) -> None:
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
        self._seen.append((losses.detach(), hits, moments))

    def seen(self) -> _Seen:
        """In all steps so far. Computed at once: small operations in every step would cost as much as its norms."""
        losses, hits, moments = zip(*self._seen, strict=True)
        norms = [[torch.stack(part) for part in zip(*norm, strict=True)] for norm in zip(*moments, strict=True)]
        means = [self._split(mean) for mean, _ in norms]
        spreads = [
            self._split(scale.square().reciprocal() - eps).clamp(min=0.0)
            for (_, scale), eps in zip(norms, self._eps, strict=True)
        ]
        none = [losses[0].new_zeros(len(losses), self._nodes, 0)]
        return _Seen(
            self._split(torch.stack(losses)).sum(2),
            self._split(torch.stack(hits)).sum(2),
            torch.cat(means or none, 2),
            torch.cat(spreads or none, 2),
        )

    def rows(self) -> tuple[Tensor, Tensor]:
        """Weights and momentum (N, P)."""
        return self._by_node(self._weights), self._by_node(self._momentum)

    def _split(self, steps: Tensor) -> Tensor:
        """(steps, nodes * n) -> (steps, nodes, n)"""
        return steps.view(len(steps), self._nodes, -1)

    def _by_param(self, rows: Tensor) -> list[Tensor]:
        parts = torch.split(rows, [shape.numel() for shape in self._shapes], dim=1)
        whole = [part.reshape(-1, *shape[1:]) for part, shape in zip(parts, self._shapes, strict=True)]
        return [part.clone(memory_format=layout(part)) for part in whole]

    def _by_node(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.detach().reshape(self._nodes, -1) for part in parts], dim=1)


def _moments(means: Tensor, variances: Tensor, model: NodeModel, size: int) -> F32:
    """sum[C], m2[C] of each norm over all micro-batches (Chan's formula, in float64), of its mean and variance in each,
    (micro-batches, channels of all norms)."""
    widths = [model.graph.tensors[op.output].shape[0] for op in model.graph.batchnorms]
    parts: list[Tensor] = []
    for mean, variance, positions in zip(
        torch.split(means.double(), widths, 1), torch.split(variances.double(), widths, 1), model.norm_positions,
        strict=True,
    ):  # fmt: skip
        between = (mean - mean.mean(0)).square().sum(0)
        parts += [size * positions * mean.sum(0), size * positions * (variance.sum(0) + between)]
    return torch.cat(parts).float().cpu().numpy() if parts else np.zeros(0, np.float32)
