"""SNIP (Lee, Ajanthan and Torr, ICLR 2019): one pass of connection sensitivity on the server, then a fixed mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Method, Public, Start
from fedtiny.pruning.ranking import keep_best, weights_of
from fedtiny.pruning.saliency import gradients, required
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class Snip(Method):
    """Keeps the weights with the largest |w g| over all layers together (Eq. 5; its sum only scales).

    Deviations: the gradient is of the public samples, all in one batch, and at the pre-trained weights rather than at
    random ones; layers that the rule keeps dense are not ranked, and every layer keeps a weight.
    """

    density: float
    rule: Rule = "fedtiny"
    name: str = "snip"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        found = gradients(model, required(public, self.name))
        scores = {layer: np.abs(w * found[layer]) for layer, w in weights_of(model.graph, model.arrays).items()}
        return Start(masks=keep_best(model.graph, allocation, scores))
