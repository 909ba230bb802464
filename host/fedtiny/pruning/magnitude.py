"""Magnitude at initialisation, as in FL-PQSU (Xu et al., ICPADS 2020): prune before training, then keep the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Method, Public, Start
from fedtiny.pruning.ranking import keep_each, weights_of
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class Magnitude(Method):
    """Each layer keeps its largest |w| at the allocated density.

    Of FL-PQSU's three stages this is the pruning alone, by the l1 norm of single weights where the paper takes whole
    filters (its section III-B), so that all methods prune the same things; its quantisation and selective updates
    change bytes, not masks. The weights ranked are those of the server's pre-training, as for every other method.
    """

    density: float
    rule: Rule = "fedtiny"
    name: str = "magnitude"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        scores = {layer: np.abs(w) for layer, w in weights_of(model.graph, model.arrays).items()}
        return Start(masks=keep_each(model.graph, allocation, scores))
