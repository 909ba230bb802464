"""Which candidate the nodes' losses choose, and what offering them cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtiny.federation.cost import forward_flops
from fedtiny.federation.records import Selection
from fedtiny.federation.tasks import Evaluation
from fedtiny.pruning.pool import Masks, Pool, by_name, density_of
from fedtiny_export.blob import write_blob
from fedtiny_export.model import Model


def choose(model: Model, union: Masks, pool: Pool, judged: Sequence[Evaluation]) -> Selection:
    """The candidate with the smallest loss per sample over all nodes (ties: the first).

    `model` is the one that the pool was drawn from. A node passes over its samples twice per candidate: to measure and
    to judge.
    """
    graph = model.graph
    samples = sum(answer.samples for answer in judged)
    losses = np.sum([answer.loss_sum for answer in judged], axis=0) / samples
    hits = np.sum([answer.correct for answer in judged], axis=0) / samples
    candidates = [pool.masks(candidate, model) for candidate in range(len(pool))]
    named = [by_name(graph, masks) for masks in candidates]
    together = len(write_blob(graph, model.arrays, by_name(graph, union), names=False))
    most = max(answer.samples for answer in judged)
    shares = [{name: float(np.mean(mask)) for name, mask in masks.items()} for masks in named]
    return Selection(
        losses=tuple(float(loss) for loss in losses),
        accuracies=tuple(float(share) for share in hits),
        densities=tuple(density_of(graph, masks) for masks in candidates),
        chosen=int(np.argmin(losses)),
        bytes=together + pool.thresholds.nbytes,
        bytes_if_sent_apart=sum(len(write_blob(graph, model.arrays, masks, names=False)) for masks in named),
        flops=sum(2 * forward_flops(graph, densities, samples=most) for densities in shares),
    )
