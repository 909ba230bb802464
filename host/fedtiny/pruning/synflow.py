"""SynFlow (Tanaka et al., NeurIPS 2020): prunes without data, in many small steps, what carries the least flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedtiny.pruning.density import Allocation, Rule, allocate
from fedtiny.pruning.method import Method, Public, Start
from fedtiny.pruning.pool import Masks, by_name
from fedtiny.pruning.ranking import keep_best
from fedtiny.pruning.saliency import path_scores
from fedtiny_export.errors import ConfigError
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class SynFlow(Method):
    """R = 1' |W_L| ... |W_1| 1 (Eq. 2), scores |w| dR/d|w|; in step k of `steps` the share density^(k/steps) lives
    (Algorithm 1).

    Deviations: it starts from the pre-trained weights; norms only scale by |gamma|; layers that the rule keeps dense
    are not ranked, and every layer keeps a weight, as the paper's Theorem 3 promises for steps this small.
    """

    density: float
    rule: Rule = "fedtiny"
    steps: int = 100
    name: str = "synflow"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps = {self.steps} of synflow: choose at least 1; the paper takes 100.")

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        final = allocate(model.graph, self.density, self.rule)
        masks: Masks = {}
        for step in range(1, self.steps + 1):
            named = by_name(model.graph, masks)
            arrays = {name: a * named[name] if name in named else a for name, a in model.arrays.items()}
            scores = path_scores(replace(model, arrays=arrays))
            masks = keep_best(model.graph, _towards(final, step / self.steps), scores)
        return Start(masks=masks)


def _towards(final: Allocation, progress: float) -> Allocation:
    """The allocation on the way: every layer's density to the power of `progress`; rows shrink as slowly."""
    densities = {layer: density**progress for layer, density in final.densities.items()}
    rows = {
        layer: int(np.ceil(per_row * final.densities[layer] ** (progress - 1.0) - 1e-9))
        for layer, per_row in final.rows.items()
    }
    return Allocation(densities, rows)
