"""PruneFL (Jiang et al., TNNLS 2022, arXiv 1909.12326): the weights with the largest g^2 per unit of time live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.density import Allocation, Rule, allocate, kept, layer_sizes
from fedtiny.pruning.method import Answer, Change, Method, Probe, Public, Request, Seen, Start
from fedtiny.pruning.pool import Masks
from fedtiny.pruning.ranking import Scores, all_live, keep_rows, weights_of
from fedtiny.pruning.ssfl import PROBE_LR
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import F32, Bits, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class PruneFl(Method):
    """First one node decides with its own data, then all do every `delta_rounds` up to `stop_round`.

    Importance is g^2 / t_j (section IV-C): t_j is the time of a weight, to compute with it and to send it. Of the live
    weights of a layer only the smallest `prunable` by magnitude may go, a share that falls over the rounds as in the
    paper's code; these and all pruned weights compete over all layers together for the places that the rest leaves.
    The first decision goes down to the density in such steps, half of what may go at a time. Nodes upload the gradient
    of every pruned weight, which is what the method costs.

    Deviations: the density is fixed, where the paper also chooses it; every layer keeps half of what the rule gives it,
    for at densities of a few percent g^2 / t leaves some a weight or two and the net with them at chance (the best of
    four ways on one seed of Fashion-MNIST at 0.02: 70.0 % where the bare ranking came to 63.6 and less); a live
    weight's gradient is taken from what the node moved it in the round; g is averaged over `score_batches` before it
    is squared; the steps of the first decision share the gradient of one probe, at the pre-trained weights; dense
    layers are not ranked.
    """

    density: float
    rule: Rule = "fedtiny"
    delta_rounds: int = 10
    stop_round: int = 100
    score_batches: int = 4
    prunable: float = 0.3
    name: str = "prunefl"

    def __post_init__(self) -> None:
        if not 0.0 < self.prunable <= 1.0:
            raise ConfigError(f"prunable = {self.prunable} of prunefl is out of range: choose 0 < prunable <= 1.")

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        if not allocation.masked:
            return Start(masks={})
        return Start(masks=all_live(model.graph, allocation), probe=Probe(epochs=1, lr=PROBE_LR, nodes=1))

    def settle(self, model: Model, start: Start, answers: Sequence[Answer]) -> Masks:
        before, after = weights_of(model.graph, model.arrays), answers[0].weights
        graph = model.graph
        scores = {layer: ((w - after[layer]) / PROBE_LR) ** 2 / _time(graph, layer) for layer, w in before.items()}
        allocation, sizes = allocate(graph, self.density, self.rule), layer_sizes(graph)
        floors = _floors(allocation, sizes)
        masks = {layer: keep_rows(scores[layer], count) for layer, count in allocation.rows.items()}
        ranked = [layer for layer in allocation.masked if layer not in allocation.rows]
        budget = sum(kept(allocation.densities[layer], sizes[layer]) for layer in ranked)
        live: dict[int, Bits] = {layer: np.ones(before[layer].shape, np.bool_) for layer in ranked}
        while (count := sum(int(mask.sum()) for mask in live.values())) > budget:
            less = min(count - budget, max(1, int(count * self.prunable / 2)))
            may_go = {layer: _smallest(before[layer], live[layer], self.prunable, floors[layer]) for layer in ranked}
            dropped = _worst(scores, may_go, less)
            live = {layer: mask & ~dropped[layer] for layer, mask in live.items()}
        return dict(sorted((masks | live).items()))

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        """Of any mask that may come: weights move between layers, so a layer may lose all but a few."""
        return max((mask.size for mask in masks.values()), default=0)

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        if not masks or round_number % self.delta_rounds or round_number > self.stop_round:
            return None
        dead = {layer: int(mask.size - np.count_nonzero(mask)) for layer, mask in masks.items()}
        k = {layer: count for layer, count in dead.items() if count}
        return Request(block="all", k=k, batches=self.score_batches) if k else None

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        share = self.prunable * 0.5 ** (seen.round_number / self.stop_round)
        allocation = allocate(graph, self.density, self.rule)
        rows, floors = allocation.rows, _floors(allocation, layer_sizes(graph))
        changed: dict[int, Bits] = {}
        ranked: list[int] = []
        stays: dict[int, Bits] = {}
        scores: dict[int, F32] = {}
        for layer, mask in masks.items():
            scores[layer] = (_squares(seen, layer, mask) / _time(graph, layer)).astype(np.float32)
            stays[layer] = mask & ~_smallest(seen.weights[layer], mask, share, floors[layer])
            if layer in rows:  # a class keeps its share: the layer's weights compete among themselves
                changed[layer] = _filled(stays[layer].copy(), scores[layer], int(mask.sum()))
            else:
                ranked.append(layer)
        places = sum(int(masks[layer].sum()) - int(stays[layer].sum()) for layer in ranked)
        open_ = {layer: np.flatnonzero(~stays[layer]) for layer in ranked}
        each = [scores[layer].ravel()[at].astype(np.float64) for layer, at in open_.items()]
        order = np.argsort(-np.concatenate(each), kind="stable")[:places] if each else np.zeros(0, np.int64)
        chosen = np.zeros(sum(map(len, each)), np.bool_)
        chosen[order] = True
        at = 0
        for layer, positions in open_.items():
            new = stays[layer].ravel().copy()
            new[positions[chosen[at : at + len(positions)]]] = True
            changed[layer] = new.reshape(stays[layer].shape)
            at += len(positions)
        pruned = sum(int((masks[layer] & ~mask).sum()) for layer, mask in changed.items())
        grown = sum(int((~masks[layer] & mask).sum()) for layer, mask in changed.items())
        return Change(masks=dict(sorted(changed.items())), pruned=pruned, grown=grown)


TRAVEL = 32
"""What sending a weight takes, in multiply-accumulates: the paper's code has measured times for VGG11, 1.75e-7 s a
position of the map for computing and 5.6e-6 s for sending."""


def _time(graph: Graph, layer: int) -> int:
    """Of one weight of a layer: a multiply-accumulate at each position of its output map, and its way to the server."""
    _, height, width = graph.tensors[graph.layer_ops[layer].output].shape
    return height * width + TRAVEL


def _squares(seen: Seen, layer: int, mask: Bits) -> NDArray[np.float64]:
    """g^2 of each weight, averaged over nodes by their samples: of a pruned weight as reported, of a live one from
    what it moved in the node's own round."""
    samples = np.array([answer.samples for answer in seen.answers], np.float64)
    usual = float((samples**2).sum() / samples.sum())  # of the average node, whose travel is known
    total = np.zeros(mask.shape)
    for answer, count in zip(seen.answers, samples, strict=True):
        moved = (seen.before[layer] - answer.weights[layer]) / (seen.travel * count / usual)
        reported = answer.gradients.get(layer, np.zeros(mask.shape, np.float32))
        total += np.where(mask, moved, reported).astype(np.float64) ** 2 * count / samples.sum()
    return total


def _floors(allocation: Allocation, sizes: Sequence[int]) -> dict[int, int]:
    """Half of what the allocation gives each layer, rounded up."""
    return {layer: -(-kept(allocation.densities[layer], sizes[layer]) // 2) for layer in allocation.masked}


def _smallest(weights: F32, mask: Bits, share: float, floor: int) -> Bits:
    """The share of a layer's live weights that is smallest; `floor` weights are not among them."""
    live = np.flatnonzero(mask)
    count = min(math.ceil(share * len(live)), max(0, len(live) - floor))
    found = np.zeros(mask.size, np.bool_)
    found[live[np.argsort(np.abs(weights.ravel()[live]), kind="stable")[:count]]] = True
    return found.reshape(mask.shape)


def _worst(scores: Scores, among: Masks, count: int) -> dict[int, Bits]:
    """The `count` weights with the smallest scores of those marked, over all layers together."""
    layers = list(among)
    marked = np.concatenate([among[layer].ravel() for layer in layers])
    flat = np.where(marked, np.concatenate([scores[layer].ravel() for layer in layers]), np.inf)
    found = np.zeros(len(flat), np.bool_)
    found[np.argsort(flat, kind="stable")[:count]] = True
    found &= marked
    parts = np.split(found, np.cumsum([among[layer].size for layer in layers])[:-1])
    return {layer: part.reshape(among[layer].shape) for layer, part in zip(layers, parts, strict=True)}


def _filled(mask: Bits, scores: F32, count: int) -> Bits:
    """The mask with the best of what it leaves out, until `count` live."""
    flat = mask.ravel()
    out = np.flatnonzero(~flat)
    best = out[np.argsort(-scores.ravel()[out], kind="stable")]
    flat[best[: count - int(flat.sum())]] = True
    return flat.reshape(mask.shape)
