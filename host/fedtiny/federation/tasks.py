"""What the server asks of a node and what a node answers; the only words that federation and fleets share.

Vectors (values, statistics, moments) are flat float32 arrays in the order that firmware/BLOB.md defines.
A *layer number* is a position in `Graph.layers`. A candidate is a row of per-layer magnitude thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtiny.augment import Augment
from fedtiny_export.errors import FleetError
from fedtiny_export.masks import EncodedMask

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
Keep = Literal["f32", "f16", "int8"]
Upload = Literal["f32", "f16"]
Loss = Literal["cross_entropy", "mse", "reconstruction"]


class Subset(IntEnum):
    """Which of a node's samples: its development set (a random 10 %) or all of them."""

    DEV = 0
    ALL = 1


class Norm(StrEnum):
    """How batch norms train: over the micro-batch, or with the stored statistics."""

    BATCH = "batch"
    FROZEN = "frozen"


@dataclass(frozen=True, kw_only=True)
class Describe:
    """-> Description."""


@dataclass(frozen=True, kw_only=True)
class PutData:
    """A bench's shard: x (n, C, H, W) float32, y (n,) labels; the first `dev_count` are the development set.

    A model that takes samples of another size goes: it is an earlier run's.
    -> Done.
    """

    x: F32
    y: NDArray[np.uint16]
    dev_count: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """A whole model; replaces what the node had, its own values and masks ready for work. -> Loaded.

    `keep`, `lean` and `plain_sgd` (training without momentum) are the core's knobs of memory; only `keep` rounds.
    `last_layers`: only these train (0: all), and batch norms before them use the stored statistics while training.
    `loss`, of training, scoring and evaluation: cross-entropy, the mean squared error from the one-hot label, or that
    from the sample itself.
    """

    blob: bytes
    micro_batch: int
    norm: Norm = Norm.BATCH
    topk_max: int = 0
    score_tile_bytes: int = 16384
    keep: Keep = "f32"
    lean: bool = False
    plain_sgd: bool = False
    last_layers: int = 0
    loss: Loss = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class Install:
    """New masks (only of layers whose mask changed), then values, then statistics if given. -> Done."""

    values: F32
    masks: Mapping[int, EncodedMask] = field(default_factory=dict)
    stats: F32 | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureBn:
    """Forward passes in training mode over a subset, parameters frozen.

    `candidates` (C, layers): thresholds on the values of the loaded blob; None measures the installed values, C = 1.
    -> Moments.
    """

    subset: Subset
    candidates: F32 | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Loss and hits per candidate, with `stats` (C, statistics) in place of the stored ones where given.

    -> Evaluation.
    """

    subset: Subset
    candidates: F32 | None = None
    stats: F32 | None = None


@dataclass(frozen=True, kw_only=True)
class Train:
    """Local SGD over all samples (torch.optim.SGD's rule, momentum from zero), the order of epoch e keyed by seed + e.

    `upload`: f16 rounds the values that go up (`rounded_f16`), not those that the node keeps. -> Update.

    What follows only simulated nodes do. `extrude`: how many of a layer's smallest live weights are drawn to 0, by
    layer number: `penalty` times the sum of their squares joins the loss. `activations`: share of a layer's inputs, the
    largest, that its weight gradient sees. `augment`: how samples are varied, anew in every epoch.
    """

    epochs: int
    lr: float
    momentum: float
    weight_decay: float
    seed: int
    upload: Upload = "f32"
    extrude: Mapping[int, int] = field(default_factory=dict)
    penalty: float = 0.0
    activations: float = 1.0
    augment: Augment = "none"

    def refuse_more(self) -> None:
        """For nodes that only do SGD. Raises FleetError where the task asks for more."""
        if self.extrude or self.activations < 1.0 or self.augment != "none":
            raise FleetError(
                "this node's training is plain SGD, without extrusion, pruned activations or augmentation: "
                "set fleet.kind=simulated"
            )


@dataclass(frozen=True, kw_only=True)
class Score:
    """Top-K gradients of pruned weights: `k` by layer number, averaged over `batches` micro-batches. -> TopK.

    `indices_only`: the gradients themselves are of no interest and do not count as payload.
    """

    k: Mapping[int, int]
    batches: int
    seed: int
    indices_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Infer:
    """x (n, C, H, W) -> Logits (n, classes) with the stored statistics."""

    x: F32


@dataclass(frozen=True, kw_only=True)
class Report:
    """-> NodeReport."""


Task = Describe | PutData | Load | Install | MeasureBn | Evaluate | Train | Score | Infer | Report


@dataclass(frozen=True, kw_only=True)
class Done:
    pass


@dataclass(frozen=True, kw_only=True)
class Description:
    board: str
    samples: int
    dev_samples: int


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """`memory`: bytes by kind as the planner computed them; `plan_bytes`: the arena that the model takes."""

    plan_bytes: int
    memory: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """moments (C, statistics) over `samples` samples."""

    moments: F32
    samples: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per candidate: loss *sums* (C,) and hits (C,), over `samples` samples."""

    loss_sum: NDArray[np.float64]
    correct: NDArray[np.int64]
    samples: int

    @property
    def loss(self) -> NDArray[np.float64]:
        """The mean loss of a sample (C,)."""
        return self.loss_sum / self.samples

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The share of hits (C,)."""
        return self.correct / self.samples


@dataclass(frozen=True, kw_only=True)
class Update:
    """values after local training; moments (statistics,), loss sum and hits as seen in the last local epoch.

    `samples`: |D_k|, the weight of this update; `seen`: samples that the moments and the loss cover.
    """

    values: F32
    moments: F32
    samples: int
    seen: int
    loss_sum: float
    correct: int


@dataclass(frozen=True, kw_only=True)
class TopK:
    """By layer number: flat indices (ascending) and mean gradients of the k largest among the pruned weights."""

    indices: Mapping[int, U32]
    gradients: Mapping[int, F32]
    samples: int  # |D_k|: the weight in the average over nodes


@dataclass(frozen=True, kw_only=True)
class Logits:
    logits: F32


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """Of a node with a link also its boot counter, the frames that it dropped and the blocks that it asked for again,
    since it was started."""

    board: str
    peak_bytes: int
    memory: Mapping[str, int]
    busy_s: float
    tasks: int
    boots: int | None = None
    dropped: int | None = None
    asked_again: int | None = None


def kind_of(task: Task) -> str:
    """put_data, measure_bn, …: the word of firmware/PROTOCOL.md."""
    return re.sub(r"(?<=.)(?=[A-Z])", "_", type(task).__name__).lower()


Reply = Done | Description | Loaded | Moments | Evaluation | Update | TopK | Logits | NodeReport


@dataclass(frozen=True, kw_only=True)
class NodeFailure:
    """A node that did not answer: `reason` is for people and says what to do next where that is known."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class LinkBytes:
    """Bytes by kind, frames, handshakes and retries included. Kinds are those of payload bytes, and `noise`: what came
    between frames, and frames that were dropped."""

    down: Mapping[str, int]
    up: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class NodeLink:
    """How a node is reached: the link's name, how the line is protected; its firmware and board where it has said."""

    link: str
    profile: str
    firmware: str = ""
    board: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskTime:
    """So many tasks of a kind, and the seconds that they took together."""

    count: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NodeHistory:
    """What the host saw of a node since the fleet was opened; of a node without a link only `tasks`.

    `tasks` by kind; over a link from the question to the whole answer, transfers included. `resets`: starts after the
    first session (a boot counter that moved). `refused`: tasks that it would not do. `dropped`: frames from it that the
    host did not take, by cause; `asked_again`: blocks that the host asked for again, `resent`: that it sent again.
    `last_seen`: when a session last began or an answer came, in seconds since 1970; `arena_bytes`: its memory in all.
    """

    tasks: Mapping[str, TaskTime]
    arena_bytes: int | None = None
    resets: int = 0
    sessions: int = 0
    refused: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    asked_again: int = 0
    resent: int = 0
    last_seen: float | None = None


class Fleet(Protocol):
    """Nodes that answer tasks. The server never learns which kind of node answers."""

    @property
    def name(self) -> str:
        """'native', 'simulated', …"""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids, in the order that aggregation uses."""

    def ask(
        self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0
    ) -> Iterator[tuple[str, tuple[Reply, ...] | NodeFailure]]:
        """Gives each named node its tasks, to be done in order, and yields the answers as they come.

        All replies of a node or one failure; a failure never stops the others. `round_number`: what tasks belong to.
        """

    def link_bytes(self) -> Mapping[str, LinkBytes]:
        """What went over each node's link so far; empty where nodes have none."""

    def links(self) -> Mapping[str, NodeLink]:
        """How each node is reached; empty where nodes have no link."""

    def histories(self) -> Mapping[str, NodeHistory]:
        """What was seen of each node so far; also after `close`."""

    def close(self) -> None: ...
