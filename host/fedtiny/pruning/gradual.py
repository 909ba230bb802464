"""A sparse model that the server makes alone: its dense model is pruned little by little while what is left learns.

torch is imported inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedtiny.augment import Augment, augmented
from fedtiny.pruning.density import Allocation
from fedtiny.pruning.method import Public
from fedtiny.pruning.pool import Masks, by_name
from fedtiny.pruning.ranking import Scores, keep_best, weights_of
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fedtiny_export.reference import GraphModule

PRUNINGS = 60  # one cut in every 60th part of the steps
UNTIL = 0.6  # share of the steps after which the last cut is made; what follows only learns
BATCH = 20
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
LEAST_LR = 0.01  # share of the learning rate that cosine leaves at the end


@dataclass(frozen=True, kw_only=True)
class Gradual:
    """How the server prunes.

    `dense_steps`: of SGD on the dense model first. `pruning_steps`: of SGD while a copy of it is pruned and after.
    `taught`: share of the loss that is the dense model's outputs, both softened by `temperature`, in place of labels.
    """

    dense_steps: int = 300
    pruning_steps: int = 600
    lr: float = 0.05
    taught: float = 0.0
    temperature: float = 2.0
    augment: Augment = "shift"

    def __post_init__(self) -> None:
        if self.dense_steps < 0 or self.pruning_steps < PRUNINGS or not 0.0 <= self.taught <= 1.0:
            raise ConfigError(
                f"dense_steps = {self.dense_steps}, pruning_steps = {self.pruning_steps}, taught = {self.taught}: "
                f"choose at least 0, at least {PRUNINGS}, and 0 to 1."
            )


def prune_gradually(
    model: Model, public: Public, allocation: Allocation, how: Gradual, *, seed: int
) -> tuple[Masks, dict[str, F32]]:
    """Masks with as many live weights as the allocation gives, and all arrays of the sparse model.

    Its masked layers are ranked together by `lamp` and cut along the cubic schedule of Zhu and Gupta (arXiv 1710.01878,
    Eq. 1); between the cuts it learns the public samples, or also the dense model's outputs: (1 - a) CE + a T^2 KL
    (Hinton et al., arXiv 1503.02531). Statistics are those of all public samples at once. The same seed gives the same
    bits: one thread, own generator. Raises ConfigError for a teacher where the loss is not cross entropy.
    """
    import torch

    from fedtiny_export.reference import GraphModule, single_thread

    if how.taught and public.loss != "cross_entropy":
        raise ConfigError(f"a teacher gives classes, and the loss is {public.loss}: set taught = 0.")
    graph = model.graph
    school = _School(public, how, torch.Generator().manual_seed(seed))
    every = how.pruning_steps // PRUNINGS
    masks: dict[int, Bits] = {}

    with single_thread():
        dense = GraphModule(graph, model.arrays)
        school.train(dense, how.dense_steps)
        sparse = GraphModule(graph, dense.arrays())

        def cut(step: int) -> None:
            before, after = step / (UNTIL * how.pruning_steps), (step + every) / (UNTIL * how.pruning_steps)
            if step % every == 0 and before < 1.0:
                scores = lamp(weights_of(graph, sparse.arrays()))
                masks.update(keep_best(graph, _on_the_way(allocation, min(1.0, after)), scores))
                sparse.load_arrays({n: sparse.arrays()[n] * mask for n, mask in by_name(graph, masks).items()})

        teacher = dense if how.taught else None
        school.train(sparse, how.pruning_steps, teacher=teacher, masks=lambda: by_name(graph, masks), before=cut)
        arrays = sparse.arrays() | school.statistics(sparse)
    return dict(masks), arrays


def lamp(weights: dict[int, F32]) -> Scores:
    """w^2 over the sum of all squares of its layer that are not smaller (Lee et al., arXiv 2010.07611): comparable
    between layers, and 1 for the largest of each, so that none is cut off."""
    scores: dict[int, NDArray[np.float64]] = {}
    for layer, weight in weights.items():
        squares = np.square(weight.ravel(), dtype=np.float64)
        order = np.argsort(-squares, kind="stable")
        sums = np.cumsum(squares[order])
        flat = np.empty_like(squares)
        flat[order] = squares[order] / np.maximum(sums, np.finfo(np.float64).tiny)
        scores[layer] = flat.reshape(weight.shape)
    return scores


def _on_the_way(final: Allocation, done: float) -> Allocation:
    """The allocation after a share of the schedule: d + (1 - d) (1 - done)^3 in every layer, and so in every row."""
    left = (1.0 - done) ** 3
    densities = {layer: d + (1.0 - d) * left for layer, d in final.densities.items()}
    rows = {layer: math.ceil(n + (n / final.densities[layer] - n) * left - 1e-9) for layer, n in final.rows.items()}
    return Allocation(densities, rows)


class _School:
    """The public samples, and what training on them is."""

    def __init__(self, public: Public, how: Gradual, generator: torch.Generator) -> None:
        import torch

        self._x = torch.from_numpy(np.array(public.x, np.float32))
        self._y = torch.from_numpy(public.y.astype(np.int64))
        self._loss = public.loss
        self._how, self._generator = how, generator

    def train(
        self,
        module: GraphModule,
        steps: int,
        *,
        teacher: GraphModule | None = None,
        masks: Callable[[], dict[str, Bits]] = dict,
        before: Callable[[int], None] = lambda step: None,
    ) -> None:
        """SGD in place; what `masks` prunes stays 0. `before` is called with the number of each step, from 0."""
        import torch

        from fedtiny_export.reference import sample_losses

        lr = self._how.lr
        optimiser = torch.optim.SGD(module.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        module.train()
        for step, chosen in zip(range(steps), self._batches(), strict=False):
            cosine = (1.0 + math.cos(math.pi * step / steps)) / 2.0
            optimiser.param_groups[0]["lr"] = lr * (LEAST_LR + (1.0 - LEAST_LR) * cosine)
            before(step)
            x, y = augmented(self._x[chosen], self._how.augment, self._generator), self._y[chosen]
            outputs = module(x)
            loss = sample_losses(self._loss, outputs, x, y)[0].mean()
            if teacher is not None:
                loss = self._softened(loss, outputs, teacher, x)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                for name, mask in masks().items():
                    module.param(name).mul_(torch.from_numpy(mask))

    def statistics(self, module: GraphModule) -> dict[str, F32]:
        """Means and variances of every batch norm over all samples, by name."""
        import torch

        module.train()
        with torch.no_grad():
            moments = module.forward_with_moments(self._x)[1]
        found: dict[str, F32] = {}
        for op, (total, squares, count) in zip(module.graph.batchnorms, moments, strict=True):
            mean, var = (module.graph.params[i].name for i in op.params[2:])
            found |= {mean: (total / count).numpy(), var: (squares / count).numpy()}
        return found

    def _softened(self, loss: Tensor, outputs: Tensor, teacher: GraphModule, x: Tensor) -> Tensor:
        """The loss with the teacher's part; the teacher uses this batch's statistics too."""
        import torch
        from torch.nn.functional import kl_div, log_softmax

        t, taught = self._how.temperature, self._how.taught
        with torch.no_grad():
            wanted = log_softmax(teacher(x) / t, 1)
        away = kl_div(log_softmax(outputs / t, 1), wanted, reduction="batchmean", log_target=True)
        return (1.0 - taught) * loss + taught * t * t * away

    def _batches(self) -> Iterator[Tensor]:
        """Whole batches without end, pass after pass in another order; a pass leaves an incomplete batch out."""
        import torch

        size = min(BATCH, len(self._y))
        while True:
            order = torch.randperm(len(self._y), generator=self._generator)
            yield from torch.split(order[: len(order) // size * size], size)
