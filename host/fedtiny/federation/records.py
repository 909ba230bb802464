"""What happened, as frozen values: selections, rounds, and the state from which a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedtiny.federation.tasks import LinkBytes
from fedtiny.pruning.method import Memory
from fedtiny.pruning.pool import Masks
from fedtiny_export.errors import FleetError
from fedtiny_export.graph import F32

Phase = Literal["data", "load", "probe", "select", "train", "adjust", "measure"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One node's answer as it comes. `problem`: why the node was left out, None when its answer was accepted.

    `round` 0 is the preparation; `done` of `asked` nodes have answered in this phase.
    """

    round: int
    phase: Phase
    node: str
    done: int
    asked: int
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A node that did not answer in a phase of a round."""

    node: str
    phase: Phase
    reason: str


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An answer that the server refused: wrong shape, NaN or infinity, or entries that nobody asked for."""

    node: str
    phase: Phase
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The candidates' mean losses on all development sets and the one with the smallest.

    `bytes`: union once plus thresholds; `bytes_if_sent_apart`: every candidate as its own blob; both to one node.
    `flops`: the most that one device spent on it.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    densities: tuple[float, ...]
    chosen: int
    bytes: int
    bytes_if_sent_apart: int
    flops: float

    @property
    def count(self) -> int:
        return len(self.losses)


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """Weights that changed places in an adjusting round."""

    round: int
    block: str
    pruned: int
    grown: int


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """A finished round (first: 1). `train_loss` and `train_accuracy` as nodes saw them while training; `loss` and
    `accuracy` of the aggregated model from the server's evaluation; `densities` by layer name; bytes of this round, and
    those on the nodes' links where they have any."""

    round: int
    lr: float
    participants: tuple[str, ...]
    failures: tuple[Failure, ...]
    rejections: tuple[Rejection, ...]
    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float
    density: float
    densities: Mapping[str, float]
    adjustment: Adjustment | None
    bytes_down: int
    bytes_up: int
    flops: float
    link: Mapping[str, LinkBytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """All that a run needs to go on after `round`: randomness is keyed by (seed, round), nodes are loaded anew.

    `round` -1: not prepared. `arrays` by parameter name, dense; `masks` by layer number; `tally`: bytes and FLOPs;
    `memory`: what the method remembers.
    """

    round: int
    adjustments: int
    arrays: Mapping[str, F32]
    masks: Masks
    selection: Selection | None = None
    tally: Mapping[str, Any] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)


class QuorumLost(FleetError):
    """Fewer nodes than the quorum answered; `state` is the run after its last finished round."""

    def __init__(self, message: str, state: ServerState) -> None:
        self.state = state
        super().__init__(message)
