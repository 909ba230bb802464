"""Payload bytes of every task and reply, by direction and kind.

Vectors and masks count as they are encoded (firmware/BLOB.md); scalars count at their width in the node's structs,
as `control`. Frames and retries are the link's: what fleets count of them is kept beside, by node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fedtiny.federation.tasks import (
    Describe,
    Description,
    Done,
    Evaluate,
    Evaluation,
    Infer,
    Install,
    LinkBytes,
    Load,
    Loaded,
    Logits,
    MeasureBn,
    Moments,
    NodeReport,
    PutData,
    Reply,
    Report,
    Score,
    Task,
    TopK,
    Train,
    Update,
    Upload,
)
from fedtiny_export.masks import entropy_bytes

Kind = Literal["model", "mask", "values", "statistics", "moments", "candidates", "topk", "data", "control"]
KINDS: tuple[Kind, ...] = (
    "model",
    "mask",
    "values",
    "statistics",
    "moments",
    "candidates",
    "topk",
    "data",
    "control",
)


def task_bytes(task: Task) -> Counter[Kind]:
    """What goes down with a task. One byte names it; a mask takes one for its encoding and two for its layer."""
    size: Counter[Kind] = Counter({"control": 1})
    match task:
        case Load():
            size["model"] += len(task.blob)
            size["control"] += 2 + 1 + 4 + 4
        case Install():
            size["values"] += task.values.nbytes
            size["mask"] += sum(len(mask.data) + 3 for mask in task.masks.values())
            size["statistics"] += 0 if task.stats is None else task.stats.nbytes
        case MeasureBn():
            size["candidates"] += 0 if task.candidates is None else task.candidates.nbytes
            size["control"] += 1
        case Evaluate():
            size["candidates"] += 0 if task.candidates is None else task.candidates.nbytes
            size["statistics"] += 0 if task.stats is None else task.stats.nbytes
            size["control"] += 1
        case Train():
            size["control"] += 5 * 4
        case Score():
            size["control"] += (2 + 4) * len(task.k) + 4 + 4
        case PutData():
            size["data"] += task.x.nbytes + task.y.nbytes + 4
        case Infer():
            size["data"] += task.x.nbytes
        case Describe() | Report():
            pass
    return +size


def reply_bytes(reply: Reply, upload: Upload = "f32") -> Counter[Kind]:
    """What comes up with a reply; one byte for its status. `upload`: the form of an update's values."""
    size: Counter[Kind] = Counter({"control": 1})
    match reply:
        case Update():
            size["values"] += reply.values.nbytes // (2 if upload == "f16" else 1)
            size["moments"] += reply.moments.nbytes
            size["control"] += 4 + 4 + 8 + 4
        case Moments():
            size["moments"] += reply.moments.nbytes
            size["control"] += 4
        case Evaluation():
            size["candidates"] += (8 + 4) * len(reply.loss_sum)
            size["control"] += 4
        case TopK():
            size["topk"] += sum(i.nbytes + reply.gradients[layer].nbytes + 6 for layer, i in reply.indices.items())
            size["control"] += 4
        case Loaded():
            size["control"] += 4 + 4 * len(reply.memory)
        case Description():
            size["control"] += len(reply.board) + 8
        case NodeReport():
            size["control"] += len(reply.board) + 4 + 4 * len(reply.memory) + 8 + 4
        case Logits():
            size["data"] += reply.logits.nbytes
        case Done():
            pass
    return +size


class Traffic:
    """Bytes of a run so far.

    `dense_fedavg`: what dense federated averaging would have moved in the same rounds with the same nodes: the same
    exchanges with dense vectors, without masks, candidates and gradients.
    """

    def __init__(self, *, dense_blob_bytes: int, dense_values_bytes: int) -> None:
        self._dense_blob = dense_blob_bytes
        self._dense_values = dense_values_bytes
        self._down: Counter[Kind] = Counter()
        self._up: Counter[Kind] = Counter()
        self.dense_fedavg = 0
        self.mask_bytes, self.mask_entropy = 0, 0.0
        """Bytes of masks that changed and travelled alone, and the least that could have said the same on average."""
        self.link: dict[str, LinkBytes] = {}
        self._link_before: dict[str, LinkBytes] = {}

    @property
    def down(self) -> int:
        return self._down.total()

    @property
    def up(self) -> int:
        return self._up.total()

    @property
    def down_by_kind(self) -> dict[str, int]:
        return {kind: self._down[kind] for kind in KINDS if self._down[kind]}

    @property
    def up_by_kind(self) -> dict[str, int]:
        return {kind: self._up[kind] for kind in KINDS if self._up[kind]}

    @property
    def by_kind(self) -> dict[str, int]:
        """Both directions together."""
        both = self._down + self._up
        return {kind: both[kind] for kind in KINDS if both[kind]}

    def sent(self, task: Task, *, only_choice: bool = False) -> None:
        """`only_choice`: values that a node already has, sent again because a candidate was chosen."""
        size = task_bytes(task)
        self._down += size
        match task:
            case Load():
                self.dense_fedavg += self._dense_blob + size["control"]
            case Install():
                self.dense_fedavg += 0 if only_choice else self._dense_values + size["statistics"] + size["control"]
            case MeasureBn(candidates=None) | Train():
                self.dense_fedavg += size.total()

    def received(self, task: Task, reply: Reply, *, only_choice: bool = False) -> None:
        size = reply_bytes(reply, task.upload if isinstance(task, Train) else "f32")
        if isinstance(task, Score) and isinstance(reply, TopK) and task.indices_only:
            size["topk"] -= sum(gradients.nbytes for gradients in reply.gradients.values())
        self._up += size
        match task, reply:
            case Train(), Update():
                self.dense_fedavg += self._dense_values + size.total() - size["values"]
            case (Load() | MeasureBn(candidates=None), _):
                self.dense_fedavg += size.total()
            case Install(), _:
                self.dense_fedavg += 0 if only_choice else size.total()

    def changed_masks(self, sizes: Iterable[tuple[int, int, int]]) -> None:
        """Masks that went down with an Install: each one's elements, live elements and bytes."""
        for size, live, encoded in sizes:
            self.mask_bytes += encoded
            self.mask_entropy += entropy_bytes(size, live)

    def heard(self, link: Mapping[str, LinkBytes]) -> None:
        """What this fleet's links have carried so far."""
        self.link = {node: _added(self._link_before.get(node), now) for node, now in link.items()}
        self.link |= {node: before for node, before in self._link_before.items() if node not in link}

    def tally(self) -> dict[str, Any]:
        """Plain numbers, for a state that outlives the process."""
        return {
            "down": self.down_by_kind,
            "up": self.up_by_kind,
            "dense_fedavg": self.dense_fedavg,
            "masks": [self.mask_bytes, self.mask_entropy],
            "link": {node: {"down": dict(b.down), "up": dict(b.up)} for node, b in self.link.items()},
        }

    def resume(self, tally: dict[str, Any]) -> None:
        self._down = Counter(tally.get("down", {}))
        self._up = Counter(tally.get("up", {}))
        self.dense_fedavg = int(tally.get("dense_fedavg", 0))
        self.mask_bytes, self.mask_entropy = tally.get("masks", (0, 0.0))
        if not self.link:  # a new process: its links count from 0
            self._link_before = {node: LinkBytes(**both) for node, both in tally.get("link", {}).items()}
            self.link = dict(self._link_before)


def _added(before: LinkBytes | None, now: LinkBytes) -> LinkBytes:
    if before is None:
        return now
    return LinkBytes(down=Counter(before.down) + Counter(now.down), up=Counter(before.up) + Counter(now.up))


def since(before: Mapping[str, LinkBytes], now: Mapping[str, LinkBytes]) -> dict[str, LinkBytes]:
    """What each node's link carried between two moments."""
    none = LinkBytes(down={}, up={})
    return {
        node: LinkBytes(
            down=dict(Counter(both.down) - Counter(before.get(node, none).down)),
            up=dict(Counter(both.up) - Counter(before.get(node, none).up)),
        )
        for node, both in now.items()
    }
