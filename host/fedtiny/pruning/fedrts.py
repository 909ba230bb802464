"""FedRTS (Huang et al., NeurIPS 2025, arXiv 2501.19122): Thompson sampling over weights; nodes upload indices alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.method import Answer, Change, Memory, Method, Public, Request, Seen, Start
from fedtiny.pruning.pool import Masks
from fedtiny.pruning.ranking import keep_layer, keep_rows, random_masks
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import F32, Bits, Graph
from fedtiny_export.model import Model

F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FedRts(Method):
    """Every weight has a Beta(a, b) belief that it is one of those that should live.

    An adjustment observes X in [0, 1] for each: 1 for a live weight outside of the kappa smallest and for a pruned one
    among the kappa largest gradients, as each node sees it, weighted by |D_k|, and as the average shows it, mixed as
    (1 - gamma) to gamma; then a += lam X, b += lam (1 - X), and each layer keeps those with the largest draw from their
    beliefs (TSAdj). kappa = alpha_adj / 2 (1 + cos(pi t / R_stop)) n_l. Beliefs last from one adjustment to the next.

    Nodes upload which pruned weights have the largest gradients, not how large (over a wire the firmware's answer has
    both, and what links carry shows that). Deviations: for pruned weights "as the average shows it" is therefore the
    kappa with the most votes, and beliefs begin at Beta(1, 1). Every row of a classifier pruned by rows keeps its
    number.
    """

    density: float
    rule: Rule = "fedtiny"
    delta_rounds: int = 10
    stop_round: int = 100
    score_batches: int = 4
    gamma: float = 0.5
    lam: float = 10.0
    alpha_adj: float = 0.4
    name: str = "fedrts"

    def __post_init__(self) -> None:
        if not (0.0 <= self.gamma <= 1.0 and self.lam > 0.0 and 0.0 < self.alpha_adj <= 1.0):
            raise ConfigError(
                f"gamma = {self.gamma}, lam = {self.lam}, alpha_adj = {self.alpha_adj} of fedrts: choose 0 <= gamma <= "
                "1, lam > 0 and 0 < alpha_adj <= 1."
            )

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        return Start(masks=random_masks(model.graph, allocate(model.graph, self.density, self.rule), seed=seed))

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        live = max((int(np.count_nonzero(mask)) for mask in masks.values()), default=0)
        return self._kappa(live, self.delta_rounds) if self.delta_rounds <= self.stop_round else 0

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        if not masks or round_number % self.delta_rounds or round_number > self.stop_round:
            return None
        k = {}
        for layer, mask in masks.items():
            live = int(np.count_nonzero(mask))
            k[layer] = min(self._kappa(live, round_number), live, mask.size - live)
        k = {layer: count for layer, count in k.items() if count}
        return Request(block="all", k=k, batches=self.score_batches, indices_only=True) if k else None

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        rows = allocate(graph, self.density, self.rule).rows
        generator = np.random.default_rng([seen.seed, 0xF003])
        changed: dict[int, Bits] = {}
        memory: dict[str, F64] = {}
        for layer, k in request.k.items():
            mask = masks[layer]
            outcome = self._outcome(mask, seen.weights[layer], seen.answers, layer, k)
            a, b = (beliefs(seen.memory, kind, layer, mask) for kind in ("a", "b"))
            a, b = a + self.lam * outcome, b + self.lam * (1.0 - outcome)
            memory |= {f"a/{layer}": a, f"b/{layer}": b}
            draw = generator.beta(a, b)
            changed[layer] = keep_rows(draw, rows[layer]) if layer in rows else keep_layer(draw, int(mask.sum()))
        moved = sum(int((changed[layer] & ~masks[layer]).sum()) for layer in changed)
        return Change(masks=changed, pruned=moved, grown=moved, memory={**seen.memory, **memory})

    def _outcome(self, mask: Bits, average: F32, answers: Sequence[Answer], layer: int, k: int) -> F64:
        total = sum(answer.samples for answer in answers)
        votes = np.zeros(mask.size)
        for answer in answers:
            one = core(mask, answer.weights[layer], k).ravel().astype(np.float64)
            one[answer.indices.get(layer, np.zeros(0, np.uint32))] = 1.0
            votes += one * answer.samples / total
        together = core(mask, average, k).ravel().astype(np.float64)
        dead = np.flatnonzero(~mask.ravel())
        most = dead[np.argsort(-votes[dead], kind="stable")[:k]]
        together[most[votes[most] > 0]] = 1.0
        return ((1.0 - self.gamma) * votes + self.gamma * together).reshape(mask.shape)

    def _kappa(self, live: int, round_number: int) -> int:
        return math.ceil(self.alpha_adj / 2 * (1.0 + math.cos(round_number * math.pi / self.stop_round)) * live)


def core(mask: Bits, weights: F32, k: int) -> Bits:
    """The live weights without their `k` smallest."""
    return keep_layer(np.where(mask, np.abs(weights), -1.0), int(mask.sum()) - k) & mask


def beliefs(memory: Memory, kind: str, layer: int, mask: Bits) -> F64:
    """What is remembered of a layer; 1 before the first adjustment."""
    found = memory.get(f"{kind}/{layer}")
    return np.ones(mask.shape) if found is None else found.astype(np.float64)
