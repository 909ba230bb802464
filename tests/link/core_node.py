"""Work for the node of node.py: the tasks of the wire, done by the C core of this process.

Read from PROTOCOL.md's table on its own, so that a mistake of fleet/encoding.py does not cancel out.
`python -m tests.link.core_node NAME FILE` serves one on standard input and output; FILE keeps its record: a JSON
table with `boot`, `key` (in hexadecimal; missing: none) and what else Node takes.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedtiny.federation import tasks
from fedtiny.fleet.native import NativeNode
from fedtiny.link.frames import Frame
from fedtiny.link.messages import ObjectKind, Task, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.errors import CoreError
from fedtiny_export.masks import EncodedMask, Encoding

from .node import Node
from .serve import serve_stdio

Done = tuple[int, tuple[int | float, ...], tuple[Payload, ...]]
MEMORY = ("node", "weights", "indices", "statistics", "gradients", "momentum", "activations", "scratch", "topk")
STATE = 5


class CoreWork:
    def __init__(self) -> None:
        self.node = NativeNode()
        self._shape: tuple[int, ...] = ()
        self._x: list[np.ndarray] = []
        self._y: list[np.ndarray] = []

    def __call__(self, task: Task, objects: tuple[Payload, ...]) -> Done:
        try:
            return self._do(task, {payload.kind: payload.data for payload in objects})
        except CoreError as problem:
            return problem.status or STATE, (), ()

    def _do(self, task: Task, objects: dict[ObjectKind, bytes]) -> Done:
        p = task.parameters or ()
        match task.kind:
            case TaskKind.DESCRIBE:
                reply = self.node.do(tasks.Describe())
                return 0, (reply.samples, reply.dev_samples), ()  # type: ignore[union-attr]
            case TaskKind.PUT_DATA:
                return self._put_data(p, objects)  # type: ignore[arg-type]
            case TaskKind.LOAD:
                return self._load(p, objects)  # type: ignore[arg-type]
            case TaskKind.INSTALL:
                stats = objects.get(ObjectKind.STATISTICS)
                self.node.do(
                    tasks.Install(
                        values=floats(objects[ObjectKind.VALUES]),
                        masks=masks(objects.get(ObjectKind.MASKS, b"")),
                        stats=None if stats is None else floats(stats),
                    )
                )
                return 0, (), ()
            case TaskKind.MEASURE_BN | TaskKind.EVALUATE:
                return self._candidates(task.kind, p, objects)  # type: ignore[arg-type]
            case TaskKind.TRAIN:
                epochs, seed, lr, momentum, weight_decay, encoding = p
                assert [type(n) for n in p] == [int, int, float, float, float, int]
                update = self.node.do(
                    tasks.Train(epochs=epochs, lr=lr, momentum=momentum, weight_decay=weight_decay, seed=seed)  # type: ignore[arg-type]
                )
                assert isinstance(update, tasks.Update)
                return (
                    0,
                    (update.samples, update.seen, update.correct, update.loss_sum),
                    (
                        vector(ObjectKind.VALUES, update.values, half=bool(encoding)),
                        vector(ObjectKind.MOMENTS, update.moments),
                    ),
                )
            case TaskKind.SCORE:
                return self._score(p)  # type: ignore[arg-type]
            case TaskKind.INFER:
                data = objects[ObjectKind.SAMPLES]
                assert data[0] == 0
                x = np.frombuffer(data, "<f4", offset=4).reshape(p[0], -1)  # type: ignore[call-overload]
                reply = self.node.do(tasks.Infer(x=x))
                return 0, (), (vector(ObjectKind.LOGITS, reply.logits),)  # type: ignore[union-attr]
            case TaskKind.REPORT:
                report = self.node.do(tasks.Report())
                assert isinstance(report, tasks.NodeReport)
                kinds = [report.memory.get(kind, 0) for kind in MEMORY]
                return 0, (report.peak_bytes, int(1000 * report.busy_s), report.tasks, *kinds, 0, 0, 0), ()
            case TaskKind.FORGET:
                return 0, (), ()

    def _put_data(self, p: tuple[int, ...], objects: dict[ObjectKind, bytes]) -> Done:
        first, count, total, dev_count, size = p
        if first == 0:
            self._x, self._y = [], []
        data = objects[ObjectKind.SAMPLES]
        if data[0]:
            colours, spare = struct.unpack_from("<HH", data, 4)
            palette = np.frombuffer(data, "<f4", colours + 1, 8)
            at = 8 + palette.nbytes
            x = palette[np.frombuffer(data, np.uint8, count * size, at)]
            at += count * size
            assert spare == 0
        else:
            x = np.frombuffer(data, "<f4", count * size, 4)
            at = 4 + x.nbytes
        self._x.append(x.reshape(count, size))
        self._y.append(np.frombuffer(data, "<u2", count, at))
        assert at + 2 * count == len(data)
        if sum(map(len, self._y)) == total:
            self.node.do(
                tasks.PutData(
                    x=np.concatenate(self._x), y=np.concatenate(self._y).astype(np.uint16), dev_count=dev_count
                )
            )
        return 0, (), ()

    def _load(self, p: tuple[int, ...], objects: dict[ObjectKind, bytes]) -> Done:
        micro_batch, norm, topk_max, tile, modes, keep, lean, layerwise, plain_sgd, last_layers, loss = p
        assert modes == (15 if topk_max else 7)
        assert layerwise == 1
        loaded = self.node.do(
            tasks.Load(
                blob=objects[ObjectKind.MODEL],
                micro_batch=micro_batch,
                norm=tasks.Norm.FROZEN if norm else tasks.Norm.BATCH,
                topk_max=topk_max,
                score_tile_bytes=tile,
                keep=("f32", "f16", "int8")[keep],  # type: ignore[arg-type]
                lean=bool(lean),
                plain_sgd=bool(plain_sgd),
                last_layers=last_layers,
                loss=("cross_entropy", "mse", "reconstruction")[loss],  # type: ignore[arg-type]
            )
        )
        assert isinstance(loaded, tasks.Loaded)
        return 0, (loaded.plan_bytes, *(loaded.memory[kind] for kind in MEMORY)), ()

    def _candidates(self, kind: TaskKind, p: tuple[int, ...], objects: dict[ObjectKind, bytes]) -> Done:
        subset, rows = p
        found = objects.get(ObjectKind.CANDIDATES)
        candidates = None if found is None else np.frombuffer(found, "<f4").reshape(rows, -1)
        assert (rows == 0) == (candidates is None)
        if kind is TaskKind.MEASURE_BN:
            moments = self.node.do(tasks.MeasureBn(subset=tasks.Subset(subset), candidates=candidates))
            assert isinstance(moments, tasks.Moments)
            return 0, (moments.samples,), (vector(ObjectKind.MOMENTS, moments.moments),)
        stats = objects.get(ObjectKind.STATISTICS)
        tables = None if stats is None else floats(stats).reshape(max(rows, 1), -1)
        scores = self.node.do(tasks.Evaluate(subset=tasks.Subset(subset), candidates=candidates, stats=tables))
        assert isinstance(scores, tasks.Evaluation)
        data = b"".join(struct.pack("<dI", *row) for row in zip(scores.loss_sum, scores.correct, strict=True))
        return 0, (scores.samples,), (Payload(ObjectKind.SCORES, data),)

    def _score(self, p: tuple[int, ...]) -> Done:
        batches, seed, *pairs = p
        asked = dict(zip(pairs[::2], pairs[1::2], strict=True))
        topk = self.node.do(tasks.Score(k=asked, batches=batches, seed=seed))
        assert isinstance(topk, tasks.TopK)
        data = b""
        for layer in asked:
            data += struct.pack("<HHI", layer, 0, len(topk.indices[layer]))
            for entry in zip(topk.indices[layer], topk.gradients[layer], strict=True):
                data += struct.pack("<If", *entry)
        return 0, (topk.samples,), (Payload(ObjectKind.TOPK, data),)


def vector(kind: ObjectKind, numbers: np.ndarray, *, half: bool = False) -> Payload:
    if half:
        return Payload(kind, b"\x01\0\0\0" + np.clip(numbers, -65504, 65504).astype("<f2").tobytes())
    return Payload(kind, bytes(4) + numbers.astype("<f4").tobytes())


def floats(data: bytes) -> np.ndarray:
    assert data[:4] == bytes(4)
    return np.frombuffer(data, "<f4", offset=4)


def masks(data: bytes) -> dict[int, EncodedMask]:
    found, at = {}, 0
    while at < len(data):
        layer, encoding, rice, count = struct.unpack_from("<HBBI", data, at)
        found[layer] = EncodedMask(Encoding(encoding), data[at + 8 : at + 8 + count], rice)
        at += 8 + count
    return found


class RecordedNode(Node):
    """Keeps its key in its record."""

    def __init__(self, name: str, path: Path) -> None:
        self._path = path
        self._record = json.loads(path.read_text()) if path.exists() else {}
        self._save(boot=self._record.get("boot", 0) + 1)
        terms = {key: value for key, value in self._record.items() if key not in ("boot", "key")}
        super().__init__(name, self._key(), self._do_task, boot=self._record["boot"], **terms)
        self._core = CoreWork()

    def _key(self) -> bytes | None:
        return bytes.fromhex(self._record["key"]) if self._record.get("key") else None

    def _save(self, **changes: Any) -> None:
        self._record |= changes
        self._path.write_text(json.dumps(self._record))

    def _on_frame(self, frame: Frame, now: float) -> None:
        before = self.key
        super()._on_frame(frame, now)
        if self.key != before and self.key is not None:
            self._save(key=self.key.hex())

    def _do_task(self, task: Task, objects: tuple[Payload, ...]) -> Done:
        if task.kind is TaskKind.FORGET:
            self._save(key=None)
        return self._core(task, objects)


def main(name: str, file: str) -> None:
    serve_stdio(RecordedNode(name, Path(file)))


if __name__ == "__main__":
    main(*sys.argv[1:])
