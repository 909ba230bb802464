"""SSFL (Ohib et al., 2024, arXiv 2405.09037): one saliency pass on the nodes, averaged, then a fixed mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Answer, Method, Probe, Public, Start, weighted_mean
from fedtiny.pruning.pool import Masks
from fedtiny.pruning.ranking import all_live, keep_best, weights_of
from fedtiny_export.model import Model

PROBE_LR = 1e-3  # so small that the weights hardly move while the gradients add up, and large against float32's steps


@dataclass(frozen=True, kw_only=True)
class Ssfl(Method):
    """s = sum_k p_k |w g_k|, p_k = |D_k| / |D|; the largest over all layers together live.

    A node answers with the weights after one epoch of plain SGD at a learning rate of 0.001: what they moved, divided
    by it, is the sum of the gradients of all its mini-batches. So any node can do it that can hold the dense model
    once. Deviations: the paper takes one mini-batch; pre-trained weights; dense layers are not ranked.
    """

    density: float
    rule: Rule = "fedtiny"
    name: str = "ssfl"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        if not allocation.masked:
            return Start(masks={})
        return Start(masks=all_live(model.graph, allocation), probe=Probe(epochs=1, lr=PROBE_LR))

    def settle(self, model: Model, start: Start, answers: Sequence[Answer]) -> Masks:
        before = weights_of(model.graph, model.arrays)
        samples = [answer.samples for answer in answers]
        scores = {
            layer: weighted_mean([np.abs(w * (w - answer.weights[layer]) / PROBE_LR) for answer in answers], samples)
            for layer, w in before.items()
        }
        return keep_best(model.graph, allocate(model.graph, self.density, self.rule), scores)
