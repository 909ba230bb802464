"""Where a method that changes its masks may start from: the masks of a method that does not."""

from __future__ import annotations

from typing import Literal

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.grasp import Grasp
from fedtiny.pruning.method import Public
from fedtiny.pruning.pool import Masks, magnitude_masks
from fedtiny.pruning.ranking import random_masks
from fedtiny.pruning.snip import Snip
from fedtiny.pruning.synflow import SynFlow
from fedtiny_export.model import Model

Initial = Literal["magnitude", "snip", "grasp", "synflow", "random"]


def initial_masks(
    initial: Initial, model: Model, *, density: float, rule: Rule, seed: int, public: Public | None
) -> Masks:
    """Masks at the allocated densities; magnitude and random layer by layer, the others ranked over all layers."""
    allocation = allocate(model.graph, density, rule)
    if not allocation.masked:
        return {}
    if initial == "magnitude":
        return magnitude_masks(model, allocation)
    if initial == "random":
        return random_masks(model.graph, allocation, seed=seed)
    made: dict[str, type[Snip] | type[Grasp] | type[SynFlow]] = {"snip": Snip, "grasp": Grasp, "synflow": SynFlow}
    return made[initial](density=density, rule=rule).start(model, seed=seed, public=public).masks
