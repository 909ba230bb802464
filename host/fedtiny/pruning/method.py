"""What a federated pruning method decides; the round loop asks and never knows which method answers.

A method is stateless: the masks, the round and the number of adjustments so far are all it may look at, so a run
resumes from those alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedtiny.pruning.pool import Masks, Pool
from fedtiny_export.graph import F32, Graph
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class Start:
    """The masks that nodes load. With a `pool` they are its union and the nodes choose one of its candidates."""

    masks: Masks
    pool: Pool | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """An adjusting round: `k` largest gradients of pruned weights by layer number, over `batches` mini-batches."""

    block: str
    k: Mapping[int, int]
    batches: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """New masks of the layers that changed, with the number of weights pruned and grown in all."""

    masks: Masks
    pruned: int
    grown: int


class Method(Protocol):
    @property
    def name(self) -> str: ...

    def start(self, model: Model, *, seed: int) -> Start:
        """Masks for the pre-trained model. Raises ConfigError where the density cannot be had."""

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        """The most entries of one layer that any later request asks for: nodes reserve memory for them."""

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        """What this round (first: 1) asks beside training; `adjustments` counts the requests answered before."""

    def adjust(
        self, graph: Graph, masks: Masks, request: Request, weights: Mapping[int, F32], gradients: Mapping[int, F32]
    ) -> Change:
        """New masks from averaged weights and averaged gradients (0 where none was reported), by layer number."""
