"""Tasks as jobs of the wire and answers as replies: the table "What a task carries" of firmware/PROTOCOL.md."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.federation.tasks import (
    Describe,
    Description,
    Done,
    Evaluate,
    Evaluation,
    Infer,
    Install,
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
)
from fedtiny.fleet.planning import node_config
from fedtiny.link.endpoint import Answer, Job
from fedtiny.link.messages import Hello, ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.core import KEEPS, LOSSES, MODES, NORMS, Memory
from fedtiny_export.errors import FleetError
from fedtiny_export.graph import F32

F32_CODE, F16_CODE, PALETTE_CODE = 0, 1, 1
COLOURS = 256
MEMORY_KINDS = tuple(name for name in Memory.__dataclass_fields__ if name != "peak")
"""ft_memory's kinds in its order."""

_ENTRY = np.dtype([("index", "<u4"), ("gradient", "<f4")])
_SCORE = np.dtype([("loss_sum", "<f8"), ("correct", "<u4")])


class BadAnswer(FleetError):
    """An answer that is not as PROTOCOL.md says; the message does not name the node."""


class Packer:
    """Jobs of tasks; one packer for all nodes of an exchange, so that what they share is packed and hashed once.

    `run`, `round_number`: the binding of PROTOCOL.md; `limit_s`: how long a node may work on a job.
    """

    def __init__(self, *, run: bytes, round_number: int, limit_s: float) -> None:
        self._blank = Job(TaskKind.DESCRIBE, run=run, round=round_number, limit_s=limit_s)
        self._packed: dict[tuple[int, int], tuple[Task, list[Job]]] = {}

    def jobs(self, task: Task, most: int) -> list[Job]:
        """`most`: bytes of the largest object that the node takes."""
        most = most if isinstance(task, PutData | Infer) else 0
        found = self._packed.get((id(task), most))
        if found is None:  # the task is kept too, so that its id stays its own
            found = self._packed[id(task), most] = task, [self._job(*parts) for parts in _parts(task, most)]
        return found[1]

    def _job(self, kind: TaskKind, parameters: tuple[int | float, ...], objects: tuple[Payload, ...]) -> Job:
        return replace(self._blank, kind=kind, parameters=parameters, objects=objects)


_Parts = list[tuple[TaskKind, tuple[int | float, ...], tuple[Payload, ...]]]


def _parts(task: Task, most: int) -> _Parts:
    match task:
        case Describe():
            return [(TaskKind.DESCRIBE, (), ())]
        case PutData():
            return _put_data(task, most)
        case Load():
            return [(TaskKind.LOAD, _load_parameters(task), (Payload(ObjectKind.MODEL, task.blob),))]
        case Install():
            return [(TaskKind.INSTALL, (), _install_objects(task))]
        case MeasureBn():
            rows = 0 if task.candidates is None else len(task.candidates)
            return [(TaskKind.MEASURE_BN, (int(task.subset), rows), _candidates(task.candidates))]
        case Evaluate():
            rows = 0 if task.candidates is None else len(task.candidates)
            stats = () if task.stats is None else (_vector(ObjectKind.STATISTICS, task.stats),)
            return [(TaskKind.EVALUATE, (int(task.subset), rows), (*_candidates(task.candidates), *stats))]
        case Train():
            task.refuse_more()
            rates = (float(task.lr), float(task.momentum), float(task.weight_decay))
            encoding = F16_CODE if task.upload == "f16" else F32_CODE
            return [(TaskKind.TRAIN, (task.epochs, task.seed & 0xFFFFFFFF, *rates, encoding), ())]
        case Score():
            pairs = [number for layer, k in task.k.items() for number in (int(layer), int(k))]
            return [(TaskKind.SCORE, (task.batches, task.seed & 0xFFFFFFFF, *pairs), ())]
        case Infer():
            x = task.x.reshape(len(task.x), -1)
            return [
                (TaskKind.INFER, (len(part),), (Payload(ObjectKind.SAMPLES, _samples(part, None)),))
                for part in _cut(x, most, header=4, each=4 * x.shape[1])
            ]
        case Report():
            return [(TaskKind.REPORT, (), ())]


def _load_parameters(task: Load) -> tuple[int, ...]:
    config = node_config(task)
    return (
        config.micro_batch,
        NORMS[config.norm],
        config.topk_max,
        config.score_tile_bytes,
        sum(MODES[mode] for mode in config.modes),
        KEEPS[config.keep],
        int(config.lean),
        int(config.layerwise),
        int(config.plain_sgd),
        config.last_layers,
        LOSSES[config.loss],
    )


def _install_objects(task: Install) -> tuple[Payload, ...]:
    masks = b"".join(
        struct.pack("<HBBI", layer, mask.encoding, mask.rice, len(mask.data)) + mask.data
        for layer, mask in task.masks.items()
    )
    found = [Payload(ObjectKind.MASKS, masks)] if masks else []  # first: they say how many values follow
    found += [_vector(ObjectKind.VALUES, task.values)]
    found += [_vector(ObjectKind.STATISTICS, task.stats)] if task.stats is not None else []
    return tuple(found)


def _vector(kind: ObjectKind, numbers: F32) -> Payload:
    return Payload(kind, bytes((F32_CODE, 0, 0, 0)) + np.ascontiguousarray(numbers, "<f4").tobytes())


def _candidates(thresholds: F32 | None) -> tuple[Payload, ...]:
    if thresholds is None:
        return ()
    return (Payload(ObjectKind.CANDIDATES, np.ascontiguousarray(thresholds, "<f4").tobytes()),)


def _put_data(task: PutData, most: int) -> _Parts:
    """A shard's parts share one palette where the whole shard has at most 256 different numbers, bit for bit."""
    x = np.ascontiguousarray(task.x, np.float32).reshape(len(task.x), -1)
    colours = np.unique(x.view(np.uint32))
    palette = colours if 0 < colours.size <= COLOURS else None
    header, each = (4, 4 * x.shape[1]) if palette is None else (8 + 4 * palette.size, x.shape[1])
    jobs: _Parts = []
    first = 0
    for part in _cut(x, most, header=header, each=each + 2):
        labels = np.ascontiguousarray(task.y[first : first + len(part)], "<u2").tobytes()
        payload = Payload(ObjectKind.SAMPLES, _samples(part, palette) + labels)
        jobs.append((TaskKind.PUT_DATA, (first, len(part), len(x), task.dev_count, x.shape[1]), (payload,)))
        first += len(part)
    return jobs


def _samples(x: F32, palette: NDArray[np.uint32] | None) -> bytes:
    if palette is None:
        return bytes((F32_CODE, 0, 0, 0)) + np.ascontiguousarray(x, "<f4").tobytes()
    places = np.searchsorted(palette, np.ascontiguousarray(x, np.float32).view(np.uint32)).astype(np.uint8)
    header = struct.pack("<B3xHH", PALETTE_CODE, palette.size - 1, 0)
    return header + palette.astype("<u4").tobytes() + places.tobytes()


def _cut(x: F32, most: int, *, header: int, each: int) -> list[F32]:
    """Rows in parts of at most `most` bytes; an empty shard is one empty part."""
    rows = (most - header) // each
    if rows < 1:
        raise FleetError(
            f"one sample takes {header + each} bytes, and the node takes objects of at most {most}. "
            "Give it more memory for samples, or take smaller ones."
        )
    return [x[at : at + rows] for at in range(0, max(len(x), 1), rows)]


def reply_of(task: Task, answers: Sequence[Answer], hello: Hello) -> Reply:
    """What a node's answers to the jobs of a task say. Raises BadAnswer where they are not as PROTOCOL.md has them."""
    try:
        return _reply(task, answers, hello)
    except (IndexError, ValueError, TypeError, KeyError, StopIteration) as problem:
        what = type(task).__name__
        raise BadAnswer(
            f"its answer to {what} is not as the protocol has it ({problem}). Flash firmware of this version."
        ) from None


def _reply(task: Task, answers: Sequence[Answer], hello: Hello) -> Reply:
    answer = answers[-1]
    numbers = answer.results
    match task:
        case Describe():
            return Description(board=hello.board, samples=_count(numbers[0]), dev_samples=_count(numbers[1]))
        case PutData() | Install():
            return Done()
        case Load():
            memory = dict(zip(MEMORY_KINDS, map(_count, numbers[1:]), strict=True))
            return Loaded(plan_bytes=_count(numbers[0]), memory=memory)
        case MeasureBn():
            rows = 1 if task.candidates is None else len(task.candidates)
            moments = _floats(_object(answer, ObjectKind.MOMENTS)).reshape(rows, -1)
            return Moments(moments=moments, samples=_count(numbers[0]))
        case Evaluate():
            table = np.frombuffer(_object(answer, ObjectKind.SCORES), _SCORE)
            return Evaluation(
                loss_sum=table["loss_sum"].astype(np.float64),
                correct=table["correct"].astype(np.int64),
                samples=_count(numbers[0]),
            )
        case Train():
            samples, seen, correct = map(_count, numbers[:3])
            return Update(
                values=_floats(_object(answer, ObjectKind.VALUES)),
                moments=_floats(_object(answer, ObjectKind.MOMENTS)),
                samples=samples,
                seen=seen,
                loss_sum=float(numbers[3]),
                correct=correct,
            )
        case Score():
            return _topk(task, answer)
        case Infer():
            parts = [_floats(_object(part, ObjectKind.LOGITS)) for part in answers]
            return Logits(logits=np.concatenate(parts).reshape(len(task.x), -1))
        case Report():
            peak, busy_ms, tasks = map(_count, numbers[:3])
            memory = dict(zip(MEMORY_KINDS, map(_count, numbers[3 : 3 + len(MEMORY_KINDS)]), strict=True))
            boots, dropped, asked_again = map(_count, numbers[3 + len(MEMORY_KINDS) :])
            return NodeReport(
                board=hello.board,
                peak_bytes=peak,
                memory=memory,
                busy_s=busy_ms / 1000,
                tasks=tasks,
                boots=boots,
                dropped=dropped,
                asked_again=asked_again,
            )


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} is no count")
    return number


def _object(answer: Answer, kind: ObjectKind) -> bytes:
    return next(payload.data for payload in answer.objects if payload.kind is kind)


def _floats(data: bytes) -> F32:
    """A vector as it was before f16 rounded it, or the rounded one, as float32."""
    wide: dict[int, Callable[[], Any]] = {
        F32_CODE: lambda: np.frombuffer(data, "<f4", offset=4),
        F16_CODE: lambda: np.frombuffer(data, "<f2", offset=4),
    }
    if data[1:4] != bytes(3):
        raise ValueError("a vector without its header")
    return np.asarray(wide[data[0]](), np.float32).copy()


def _topk(task: Score, answer: Answer) -> TopK:
    data, at = _object(answer, ObjectKind.TOPK), 0
    indices, gradients = {}, {}
    for asked in task.k:
        layer, spare, count = struct.unpack_from("<HHI", data, at)
        if (layer, spare) != (asked, 0):
            raise ValueError(f"gradients of layer {layer} where {asked} was next")
        entries = np.frombuffer(data, _ENTRY, count, at + 8)
        indices[layer] = entries["index"].astype(np.uint32)
        gradients[layer] = entries["gradient"].astype(np.float32)
        at += 8 + entries.nbytes
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes after the last gradient")
    return TopK(indices=indices, gradients=gradients, samples=_count(answer.results[0]))
