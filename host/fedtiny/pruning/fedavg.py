"""Dense federated averaging: the method that prunes nothing, and every other method's yardstick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedtiny.pruning.method import Change, Request, Start
from fedtiny.pruning.pool import Masks
from fedtiny_export.graph import F32, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    name: str = "fedavg"

    def start(self, model: Model, *, seed: int) -> Start:
        return Start(masks={})

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        return 0

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        return None

    def adjust(
        self, graph: Graph, masks: Masks, request: Request, weights: Mapping[int, F32], gradients: Mapping[int, F32]
    ) -> Change:
        return Change(masks={}, pruned=0, grown=0)
