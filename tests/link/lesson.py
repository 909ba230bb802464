"""A lesson for a node of the wire: samples, a model, training; and what the core in this process makes of the same."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedtiny.fleet.manage import record
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Answer, Job
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.blob import write_blob
from fedtiny_export.core import MODES, CoreNode, NodeConfig
from fedtiny_export.graph import F32
from tests.firmware.nets import INPUT, make, random_masks

KEY = bytes(range(32))
T = TypeVar("T")


def run(work: Awaitable[T], limit_s: float = 60.0) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, limit_s)

    return asyncio.run(limited())


def write_record(path: Path, device: str, key: bytes = KEY) -> Path:
    """As `fedtiny fleet enrol --offline` writes it."""
    path.write_bytes(record(device, key))
    return path


def boots(path: Path) -> int:
    """The boot counter that a node's record file holds."""
    data = path.read_bytes()
    slots = [data[at : at + 128] for at in range(0, len(data), 128)]
    good = [s for s in slots if s[:4] == b"FTRC" and zlib.crc32(s[:124]).to_bytes(4, "little") == s[124:]]
    newest = max(good, key=lambda s: int.from_bytes(s[4:8], "little"))
    return int.from_bytes(newest[16:20], "little")


@dataclass(frozen=True)
class Lesson:
    net: str = "residual"
    count: int = 24
    micro_batch: int = 4
    epochs: int = 2
    seed: int = 7
    lr: float = 0.05
    momentum: float = 0.9

    @cached_property
    def blob(self) -> bytes:
        model = make(self.net)[1]
        return write_blob(model.graph, model.arrays, random_masks(model, 0.4))

    @cached_property
    def samples(self) -> tuple[F32, np.ndarray[tuple[int], np.dtype[np.uint16]]]:
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal((self.count, *INPUT)).astype(np.float32)
        return x, rng.integers(0, 3, self.count).astype(np.uint16)

    @property
    def config(self) -> NodeConfig:
        return NodeConfig(micro_batch=self.micro_batch, modes=("train",))

    @cached_property
    def learned(self) -> tuple[F32, F32]:
        """Values and moments after it, from the core in this process."""
        node = CoreNode(self.blob, self.config)
        node.set_samples(*self.samples, 4)
        _, moments = node.train(
            epochs=self.epochs, lr=self.lr, momentum=self.momentum, weight_decay=0.0, seed=self.seed
        )
        return node.values(), moments

    def jobs(self) -> tuple[Job, ...]:
        x, y = self.samples
        stored = Payload(ObjectKind.SAMPLES, bytes(4) + x.astype("<f4").tobytes() + y.astype("<u2").tobytes())
        return (
            Job(TaskKind.PUT_DATA, parameters=(0, self.count, self.count, 4, x[0].size), objects=(stored,)),
            Job(
                TaskKind.LOAD,
                parameters=(self.micro_batch, 0, 0, 0, MODES["train"], 0, 0, 0, 0, 0, 0),
                objects=(Payload(ObjectKind.MODEL, self.blob),),
            ),
            Job(TaskKind.TRAIN, parameters=(self.epochs, self.seed, self.lr, self.momentum, 0.0, 0)),
        )


async def taught(node: Connection, lesson: Lesson) -> tuple[F32, F32]:
    """Values and moments that the node sends back."""
    answers: list[Answer] = []
    for job in lesson.jobs():
        answers.append(await node.ask(job))
        assert answers[-1].status == 0, answers[-1].problem
    values, moments = (np.frombuffer(payload.data[4:], "<f4") for payload in answers[-1].objects)
    return values, moments


def assert_same_bits(found: tuple[F32, F32], lesson: Lesson) -> None:
    for got, expected in zip(found, lesson.learned, strict=True):
        np.testing.assert_array_equal(np.asarray(got, "<f4").view(np.uint32), expected.view(np.uint32))
