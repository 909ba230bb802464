"""Where a method that changes its masks may start from: what another has made before any node is asked."""

from __future__ import annotations

from typing import Literal

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.gradual import Gradual, prune_gradually
from fedtiny.pruning.grasp import Grasp
from fedtiny.pruning.method import Public, Start
from fedtiny.pruning.pool import magnitude_masks
from fedtiny.pruning.ranking import random_masks
from fedtiny.pruning.saliency import required
from fedtiny.pruning.snip import Snip
from fedtiny.pruning.synflow import SynFlow
from fedtiny_export.model import Model

Initial = Literal["magnitude", "snip", "grasp", "synflow", "random", "gradual"]


def initial_start(
    initial: Initial,
    model: Model,
    *,
    density: float,
    rule: Rule,
    seed: int,
    public: Public | None,
    gradual: Gradual | None = None,
) -> Start:
    """Masks at the allocated densities; magnitude and random layer by layer, the others ranked over all layers.

    `gradual` has values of its own too; the others keep the pre-trained ones.
    """
    allocation = allocate(model.graph, density, rule)
    if not allocation.masked:
        return Start(masks={})
    if initial == "magnitude":
        return Start(masks=magnitude_masks(model, allocation))
    if initial == "random":
        return Start(masks=random_masks(model.graph, allocation, seed=seed))
    if initial == "gradual":
        samples = required(public, "gradual pruning")
        masks, arrays = prune_gradually(model, samples, allocation, gradual or Gradual(), seed=seed)
        return Start(masks=masks, arrays=arrays)
    made: dict[str, type[Snip] | type[Grasp] | type[SynFlow]] = {"snip": Snip, "grasp": Grasp, "synflow": SynFlow}
    return made[initial](density=density, rule=rule).start(model, seed=seed, public=public)
