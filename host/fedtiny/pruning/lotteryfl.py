"""LotteryFL (Li et al., 2020, arXiv 2008.03371): train dense, prune by magnitude, rewind to the start, again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate, kept, layer_sizes
from fedtiny.pruning.method import Change, Method, Public, Request, Seen, Start
from fedtiny.pruning.pool import Masks
from fedtiny.pruning.ranking import all_live, keep_layer, keep_rows
from fedtiny_export.graph import Bits, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class LotteryFl(Method):
    """Every `delta_rounds` up to `stop_round` each layer loses the same share of its live weights, the smallest |w|,
    and what lives goes back to its value at the start (Algorithm 1); the last time the target density is reached.

    Deviations: one mask for all, from averaged weights, where the paper gives each client its own ticket and tests it
    on that client's data; no threshold of accuracy before pruning, so that the density is reached in time.
    """

    density: float
    rule: Rule = "fedtiny"
    delta_rounds: int = 10
    stop_round: int = 100
    name: str = "lotteryfl"

    @property
    def rounds_min(self) -> int:
        return self._last + 1  # what is rewound has to be trained again

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        memory = {model.graph.params[index].name: model.arrays[model.graph.params[index].name].copy()
                  for index in model.graph.trained}  # fmt: skip
        allocation = allocate(model.graph, self.density, self.rule)
        return Start(masks=all_live(model.graph, allocation), memory=memory)

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        if not masks or round_number % self.delta_rounds or round_number > self._last:
            return None
        return Request(block="all", k={}, batches=0)

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        allocation, sizes = allocate(graph, self.density, self.rule), layer_sizes(graph)
        progress = min(1.0, seen.round_number / self._last)
        changed: dict[int, Bits] = {}
        for layer, mask in masks.items():
            scores = np.where(mask, np.abs(seen.weights[layer]), -1.0)
            if layer in allocation.rows:
                width = sizes[layer] // len(mask)
                changed[layer] = keep_rows(scores, _between(width, allocation.rows[layer], progress))
            else:
                final = kept(allocation.densities[layer], sizes[layer])
                changed[layer] = keep_layer(scores, _between(sizes[layer], final, progress))
        pruned = sum(int(mask.sum()) - int(changed[layer].sum()) for layer, mask in masks.items())
        arrays = {name: array.astype(np.float32) for name, array in seen.memory.items()}
        return Change(masks=changed, pruned=pruned, grown=0, arrays=arrays)

    @property
    def _last(self) -> int:
        return max(1, self.stop_round // self.delta_rounds) * self.delta_rounds


def _between(whole: int, final: int, progress: float) -> int:
    """Live weights on the way from all of them to the final number, the same share lost each time."""
    left: float = whole * (final / whole) ** progress
    return max(final, round(left))
