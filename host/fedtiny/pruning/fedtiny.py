"""FedTiny (Huang et al., ICDCS 2023): batch-norm selection among coarse masks, then progressive pruning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedtiny.pruning.density import Rule, allocate
from fedtiny.pruning.gradual import Gradual
from fedtiny.pruning.initial import Initial, initial_start
from fedtiny.pruning.method import Change, Method, Public, Request, Seen, Start
from fedtiny.pruning.pool import Masks, draw_pool
from fedtiny.pruning.progressive import Granularity, blocks, exchange, exchanged
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import Bits, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class FedTiny(Method):
    """Settings of the method.

    `initial`: what ranks the weights at the start. Candidates are magnitude's; from another score there is one mask.
    `gradual` also brings trained values; `dense_steps`, `pruning_steps` and `taught` are those of `Gradual`.
    `adaptation` off: candidates are judged with the statistics of the server's dense model, not with their own.
    `pool_size` 0: the published 0.1 / density, at least 2. `selection` off: the plain magnitude mask of the allocation.
    `progressive` off: the masks of the start stay. Adjusting rounds are every `delta_rounds` up to `stop_round`.
    `last_layers`: only these train, so only their masks are adjusted; 0: all.
    """

    density: float
    rule: Rule = "fedtiny"
    initial: Initial = "magnitude"
    selection: bool = True
    adaptation: bool = True
    pool_size: int = 0
    spread: float = 0.5
    progressive: bool = True
    delta_rounds: int = 10
    stop_round: int = 100
    granularity: Granularity = "block"
    score_batches: int = 4
    last_layers: int = 0
    dense_steps: int = Gradual.dense_steps
    pruning_steps: int = Gradual.pruning_steps
    taught: float = Gradual.taught
    name: str = "fedtiny"

    def __post_init__(self) -> None:
        if self.delta_rounds < 1 or self.stop_round < 1 or self.score_batches < 1 or self.pool_size < 0:
            raise ConfigError(
                f"delta_rounds = {self.delta_rounds}, stop_round = {self.stop_round}, score_batches = "
                f"{self.score_batches}, pool_size = {self.pool_size}: the first three are at least 1, the last 0."
            )
        if not 0.0 <= self.spread < 1.0:
            raise ConfigError(f"spread {self.spread} is out of range: choose 0 <= spread < 1.")
        _ = self._gradual  # refuses what it cannot be

    @property
    def begins(self) -> str:
        return "pruning" if self.initial == "gradual" else super().begins

    @property
    def _gradual(self) -> Gradual:
        return Gradual(dense_steps=self.dense_steps, pruning_steps=self.pruning_steps, taught=self.taught)

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        allocation = allocate(model.graph, self.density, self.rule)
        size = self.pool_size or max(2, round(0.1 / self.density))
        if not self.selection or not allocation.masked or self.initial != "magnitude":
            return initial_start(
                self.initial,
                model,
                density=self.density,
                rule=self.rule,
                seed=seed,
                public=public,
                gradual=self._gradual,
            )
        pool = draw_pool(model, allocation, size=size, spread=self.spread, seed=seed)
        return Start(masks=pool.union, pool=pool, adapt=self.adaptation)

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        if not self.progressive or self.delta_rounds > self.stop_round:
            return 0
        live = max((int(np.count_nonzero(mask)) for mask in masks.values()), default=0)
        return exchanged(live, self.delta_rounds, self.stop_round)

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        constants = graph.constants(self.last_layers)
        trained = {layer: mask for layer, mask in masks.items() if graph.layer_names[layer] not in constants}
        walk = blocks(graph, trained, self.granularity)
        if not self.progressive or not walk or round_number > self.stop_round or round_number % self.delta_rounds:
            return None
        block, layers = walk[adjustments % len(walk)]
        k = {layer: self._count(masks[layer], round_number) for layer in layers}
        k = {layer: count for layer, count in k.items() if count}
        return Request(block=block, k=k, batches=self.score_batches) if k else None

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        rows = allocate(graph, self.density, self.rule).rows
        changed: dict[int, Bits] = {}
        total = 0
        for layer, count in request.k.items():
            floor = -(-rows[layer] // 2) if layer in rows else 0  # a class may lose at most half of its minimum
            changed[layer], moved = exchange(masks[layer], seen.weights[layer], seen.gradients[layer], count, floor)
            total += moved
        return Change(masks=changed, pruned=total, grown=total)

    def _count(self, mask: Bits, round_number: int) -> int:
        live = int(np.count_nonzero(mask))
        return min(exchanged(live, round_number, self.stop_round), live, mask.size - live)
