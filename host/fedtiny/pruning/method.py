"""What a federated pruning method decides; the round loop asks and never knows which method answers.

A method is one small object in one file. It keeps nothing itself: the masks, the round, the number of adjustments so
far and the arrays that it asked the server to remember are all it may look at, so a run resumes from those alone.
`Method` answers every question as a method with fixed masks would; only `start` has to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.pool import Masks, Pool
from fedtiny_export.graph import F32, Graph
from fedtiny_export.model import Model

Memory = Mapping[str, NDArray[Any]]
"""Arrays that a method has the server remember between rounds, by names of its own."""


@dataclass(frozen=True, kw_only=True)
class Public:
    """The server's public samples x (n, C, H, W) with labels y (n,), held out from the nodes; the run's loss."""

    x: F32
    y: NDArray[np.uint16]
    loss: str = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Local training under the start's masks before the first round; `settle` reads what it came to.

    Nobody keeps the weights. `nodes`: how many do it, the first of the fleet that can; 0: all, to the run's quorum.
    """

    epochs: int
    lr: float
    nodes: int = 0


@dataclass(frozen=True, kw_only=True)
class Start:
    """The masks that nodes load. With a `pool` they are its union and the nodes choose one of its candidates.

    `adapt`: whether batch-norm statistics are measured for each candidate before it is judged. `arrays`: parameters
    and statistics that begin with other values than the model's, by name.
    """

    masks: Masks
    pool: Pool | None = None
    adapt: bool = True
    probe: Probe | None = None
    arrays: Mapping[str, F32] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    """An adjusting round: `k` largest gradients of pruned weights by layer number, over `batches` mini-batches.

    With no `k` the nodes only train. `indices_only`: nodes tell which weights, not how large their gradients are.
    `own_masks`: half-way through its epochs each node goes on under masks of its own (`Method.own_masks`).
    """

    block: str
    k: Mapping[int, int]
    batches: int
    indices_only: bool = False
    own_masks: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """What local training does beside SGD; only simulated nodes can.

    `extrude`: how many of a layer's smallest live weights are drawn to 0, by layer number, by `penalty` times their
    square. `lr_floor`: no learning rate below this share of the first. `activations`: share of a layer's inputs, the
    largest, that its weight gradient sees.
    """

    extrude: Mapping[int, int] = field(default_factory=dict)
    penalty: float = 0.0
    lr_floor: float = 0.0
    activations: float = 1.0

    @property
    def plain(self) -> bool:
        return not self.extrude and self.activations >= 1.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one node came back with: its weights of all layers and, where asked, the pruned weights that it named.

    `indices`: flat, ascending, of its largest gradients; `masks`: those that it ended under.
    """

    samples: int
    weights: Mapping[int, F32]
    masks: Masks
    indices: Mapping[int, NDArray[np.uint32]] = field(default_factory=dict)
    gradients: Mapping[int, F32] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An adjusting round after aggregation, by layer number: averaged `weights`, those `before` the round, averaged
    `gradients` of pruned weights (0 where none was reported), and the nodes' `answers` in node order.

    `travel`: (before - weights) / travel is about the mean gradient of a live weight. `seed`: of what is drawn.
    """

    weights: Mapping[int, F32]
    before: Mapping[int, F32]
    gradients: Mapping[int, F32]
    answers: Sequence[Answer]
    travel: float
    round_number: int
    seed: int
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Change:
    """New masks of the layers that changed, with the number of weights pruned and grown in all.

    `arrays`: parameters that take other values, by name. `memory`: replaces what was remembered; None leaves it.
    """

    masks: Masks
    pruned: int
    grown: int
    arrays: Mapping[str, F32] = field(default_factory=dict)
    memory: Memory | None = None


class Method:
    """A method with fixed masks; others answer more of the questions.

    Settings are the fields of the dataclass that a method is: those of [pruning] by their names, others by
    `pruning.options`.
    """

    name: str
    density: float
    """Target: share of all convolution and linear weights."""

    @property
    def begins(self) -> str:
        """What the server does in `start`, for who watches: one of the phases of progress.PHASES."""
        return "scoring"

    @property
    def rounds_min(self) -> int:
        """Rounds that a run needs for the method to come to its end."""
        return 1

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        """Masks for the pre-trained model. Raises ConfigError where the density cannot be had."""
        raise NotImplementedError

    def settle(self, model: Model, start: Start, answers: Sequence[Answer]) -> Masks:
        """The masks, after a probe. The model is the one that the nodes began from."""
        return start.masks

    def topk_max(self, graph: Graph, masks: Masks) -> int:
        """The most entries of one layer that any later request asks for: nodes reserve memory for them."""
        return 0

    def training(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Training:
        """What this round's local training does beside SGD."""
        return Training()

    def request(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Request | None:
        """What this round (first: 1) asks beside training; `adjustments` counts the requests answered before."""
        return None

    def own_masks(self, graph: Graph, masks: Masks, request: Request, answer: Answer) -> Masks:
        """One node's own masks of the layers that it changes; as many live weights in each layer as before."""
        return {}

    def adjust(self, graph: Graph, masks: Masks, request: Request, seen: Seen) -> Change:
        """New masks from what an adjusting round came to."""
        return Change(masks={}, pruned=0, grown=0)

    def width(self, own: int, weights: Callable[[int], int]) -> int:
        """Channels of the first stage of the model that trains; `weights` counts those of a width."""
        return own

    def why_not(self, fleet: str) -> str | None:
        """Why it cannot run on a kind of fleet (native, simulated, wire), in words that follow "because"."""
        return None


def weighted_mean(parts: Sequence[F32], samples: Sequence[int]) -> F32:
    """The mean of arrays of one shape, weighted by samples; sums run in float64."""
    total = np.zeros(parts[0].shape, np.float64)
    for part, count in zip(parts, samples, strict=True):
        total += part.astype(np.float64) * count
    return (total / sum(samples)).astype(np.float32)
