"""What a node at the end of a line is worth: goodput of a large object, and the bytes that an update takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from fedtiny.bench.paced import paced_terminal
from fedtiny.federation.tasks import Install, Load, PutData, Task, Train, Upload
from fedtiny.fleet.encoding import Packer
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Answer
from fedtiny.link.links import BITS_A_BYTE, Link, open_link
from fedtiny.link.messages import ObjectKind
from fedtiny.link.session import Identity
from fedtiny_export.blob import write_blob
from fedtiny_export.core import status_text
from fedtiny_export.errors import FleetError
from fedtiny_export.graph import F32, Bits
from fedtiny_export.masks import encode_smallest
from fedtiny_export.model import Model
from fedtiny_export.values import pack_values

DEVICE = "n1"
OBJECT_KIB = 256
INPUTS = 127  # of a linear layer; with its bias, 512 bytes for each output


@dataclass(frozen=True)
class Goodput:
    """Seconds of a model of so many bytes down, and of its values up."""

    down_bytes: int
    down_s: float
    up_bytes: int
    up_s: float
    sent_again: int

    @property
    def bytes_per_s(self) -> float:
        return (self.down_bytes + self.up_bytes) / (self.down_s + self.up_s)


@dataclass(frozen=True)
class UpdateBytes:
    """What came up for one update, frames included: its values, the reply itself, moments; what went down to get it."""

    values: int
    value_bytes: int
    reply_bytes: int
    moment_bytes: int
    asking_bytes: int


@dataclass(frozen=True)
class WireBytes:
    """`mask_bytes`: the masks alone; `mask_frames`: what the object with all of them took, frames included."""

    update: UpdateBytes
    mask_bytes: int
    mask_frames: int


@cache
def _large(kib: int) -> Load:
    """A model whose values take so many KiB."""
    from torch import nn

    from fedtiny_export.torch_in import from_torch

    model = from_torch(nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, 2 * kib)), (INPUTS, 1, 1))
    blob = write_blob(model.graph, model.arrays, {}, names=False)
    return Load(blob=blob, micro_batch=1, plain_sgd=True)


def one_sample(shape: tuple[int, ...]) -> PutData:
    x: F32 = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return PutData(x=x, y=np.zeros(1, np.uint16), dev_count=0)


def train(upload: Upload = "f32") -> Train:
    return Train(epochs=1, lr=0.01, momentum=0.0, weight_decay=0.0, seed=0, upload=upload)


async def goodput(command: Sequence[str], baud: int, loss: float, kib: int = OBJECT_KIB) -> Goodput:
    """In real time: a model of so many KiB down, as many bytes of trained values up."""
    rate = baud / BITS_A_BYTE
    async with (
        paced_terminal(command, rate, loss=loss) as path,
        connected(open_link(f"serial:{path}@{baud}")) as host,
    ):
        await asked(host, one_sample((INPUTS, 1, 1)))
        down_s, _ = await _timed(host, _large(kib))
        up_s, answer = await _timed(host, train())
        again = host.traffic.resent_blocks + host.traffic.asked_again
        return Goodput(len(_large(kib).blob), down_s, len(_values(answer)), up_s, again)


async def wire_bytes(command: Sequence[str], model: Model, masks: Mapping[str, Bits]) -> WireBytes:
    """A sparse model's update as halves, then all of its masks anew, over a byte stream without loss."""
    blob = write_blob(model.graph, {n: a * masks.get(n, True) for n, a in model.arrays.items()}, masks, names=False)
    values = pack_values(model.graph, model.arrays, masks)
    async with connected(open_link(f"process:{shlex.join(command)}")) as host:
        await asked(host, one_sample(model.graph.tensors[model.graph.input].shape))
        await asked(host, Load(blob=blob, micro_batch=1))
        up, down = host.traffic.up.copy(), host.traffic.down.copy()
        update = _values(await asked(host, train("f16")))
        await asyncio.sleep(0.05)  # the last ACK goes out
        up, down = host.traffic.up - up, host.traffic.down - down
        layers = {layer: encode_smallest(masks[n]) for layer, n in enumerate(model.graph.layer_names) if n in masks}
        await asked(host, Install(values=values, masks=layers))
        return WireBytes(
            update=UpdateBytes(
                values=(len(update) - 4) // 2,
                value_bytes=up["data.values"],
                reply_bytes=up["reply"],
                moment_bytes=up["data.moments"],
                asking_bytes=down.total(),
            ),
            mask_bytes=sum(len(mask.data) for mask in layers.values()),
            mask_frames=host.traffic.down["data.masks"],
        )


def _values(answer: Answer) -> bytes:
    return next(payload.data for payload in answer.objects if payload.kind is ObjectKind.VALUES)


async def _timed(host: Connection, task: Task) -> tuple[float, Answer]:
    start = time.perf_counter()
    answer = await asked(host, task)
    return time.perf_counter() - start, answer


async def asked(host: Connection, task: Task) -> Answer:
    """Raises FleetError where the node cannot do it."""
    hello = host.hello or await host.reach()
    packer = Packer(run=bytes(8), round_number=0, limit_s=600.0)
    for job in packer.jobs(task, hello.max_object):
        answer = await host.ask(job)
        if answer.status:
            raise FleetError(f"the node cannot do {type(task).__name__}: {status_text(answer.status)}")
    return answer


@contextlib.asynccontextmanager
async def connected(link: Link) -> AsyncIterator[Connection]:
    """With a node that has no key yet, and gets one."""
    key = os.urandom(32)
    async with Connection(link, Identity(DEVICE, key=key)) as host:
        await host.enrol(key)
        await host.reach()
        yield host
