"""FedDST (Bibikar et al., AAAI 2022, arXiv 2112.09824): nodes prune and grow on their own, the server settles it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Answer, Change, Method, Public, Request, Seen, Start
from fedtiny.pruning.pool import Masks
from fedtiny.pruning.progressive import exchange, exchanged
from fedtiny.pruning.ranking import keep_layer, keep_rows, random_masks
from fedtiny_export.graph import Bits, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class FedDst(Method):
    """In an adjusting round each node trains, drops its smallest weights and grows its largest gradients (RigL, as in
    Algorithm 2), trains on under its own mask and uploads both; the server averages every weight over the nodes that
    have it (Eq. 1) and keeps each layer's largest (Algorithm 1). It starts from a random mask.

    Deviations: the rule of density is that of all methods here (the paper's is `pruning.rule = "erk"`). The server
    computes a node's exchange from the weights and top-K gradients that it uploads and sends the mask back, so that
    any node can do it; the bytes are those that this takes, two more messages than in the paper. The share exchanged
    is FedTiny's cosine, the same for all methods here. An adjusting round's epochs are split between the two masks; of
    one epoch each gets a whole one, and the costs count both.
    """

    density: float
    rule: Rule = "fedtiny"
    delta_rounds: int = 10
    stop_round: int = 100
    score_batches: int = 4
    name: str = "feddst"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        return Start(masks=random_masks(model.graph, allocation, seed=seed))

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        live = max((int(np.count_nonzero(mask)) for mask in masks.values()), default=0)
        return exchanged(live, self.delta_rounds, self.stop_round) if self.delta_rounds <= self.stop_round else 0

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        if not masks or round_number % self.delta_rounds or round_number > self.stop_round:
            return None
        k = {}
        for layer, mask in masks.items():
            live = int(np.count_nonzero(mask))
            k[layer] = min(exchanged(live, round_number, self.stop_round), live, mask.size - live)
        k = {layer: count for layer, count in k.items() if count}
        return Request(block="all", k=k, batches=self.score_batches, own_masks=True) if k else None

    def own_masks(self, graph: Graph, masks: Masks, request: Request, answer: Answer) -> Masks:
        floors = self._floors(graph)
        return {
            layer: exchange(masks[layer], answer.weights[layer], answer.gradients[layer], k, floors.get(layer, 0))[0]
            for layer, k in request.k.items()
        }

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        changed: dict[int, Bits] = {}
        floors = self._floors(graph)
        for layer in request.k:
            mask = masks[layer]
            union = np.logical_or.reduce([answer.masks[layer] for answer in seen.answers])
            scores = np.where(union, np.abs(seen.weights[layer]), -1.0)
            if layer in floors:
                scores = np.where(keep_rows(scores, floors[layer]) & union, np.inf, scores)
            changed[layer] = keep_layer(scores, int(mask.sum()))
        moved = sum(int((changed[layer] & ~masks[layer]).sum()) for layer in changed)
        return Change(masks=changed, pruned=moved, grown=moved)

    def _floors(self, graph: Graph) -> dict[int, int]:
        """Weights that a row keeps of those it has, as in FedTiny's exchange."""
        return {layer: -(-count // 2) for layer, count in allocate(graph, self.density, self.rule).rows.items()}
