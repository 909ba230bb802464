"""GraSP (Wang, Zhang and Grosse, ICLR 2020): keeps the weights that carry the gradient's flow, then a fixed mask."""

from __future__ import annotations

from dataclasses import dataclass

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Method, Public, Start
from fedtiny.pruning.ranking import keep_best, weights_of
from fedtiny.pruning.saliency import hessian_gradient, required
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class Grasp(Method):
    """S(-w) = -w H g (Eq. 8); the largest S go (Algorithm 1), so the largest w H g stay, over all layers together.

    `temperature` divides the logits, 200 as in the paper's code. Deviations: those of SNIP (public samples, pre-trained
    weights, dense layers not ranked, a weight for every layer).
    """

    density: float
    rule: Rule = "fedtiny"
    temperature: float = 200.0
    name: str = "grasp"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        found = hessian_gradient(model, required(public, self.name), temperature=self.temperature)
        scores = {layer: w * found[layer] for layer, w in weights_of(model.graph, model.arrays).items()}
        return Start(masks=keep_best(model.graph, allocation, scores))
