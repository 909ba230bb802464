"""Seeds for the wire's fuzzer: valid input for each of its targets, and the model that its node runs.

python -m tests.link.fuzz.seeds FOLDER: makes FOLDER/<target>/<number>.bin and FOLDER/model.ftm
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedtiny.federation.tasks import (
    Describe,
    Evaluate,
    Infer,
    Install,
    Load,
    MeasureBn,
    PutData,
    Report,
    Score,
    Subset,
    Train,
)
from fedtiny.federation.tasks import Task as FleetTask
from fedtiny.fleet.encoding import Packer
from fedtiny.link.endpoint import Job
from fedtiny.link.frames import FrameType, seal_open, stuff
from fedtiny.link.messages import MESSAGES, Ack, Enrol, Invite, ObjectKind, Profile, Request, Task, TaskKind, encode
from fedtiny.link.objects import Payload, data_payload
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig
from fedtiny_export.masks import encode_mask, encode_rice, encode_smallest
from fedtiny_export.torch_in import from_torch
from fedtiny_export.values import pack_stats, pack_values

from ...firmware.nets import random_masks
from ..test_c_codec import Draw

SHAPE, BLOCK = (1, 6, 6), 256 - 8
DECODERS = (
    "message", "numbers", "cobs", "frame", "handshake", "transfer", "mask", "samples", "values", "record", "topic"
)  # fmt: skip
"""Targets that take foreign bytes apart, each by itself."""
WHOLE = ("line", "session", "task", "saver")
"""A whole node with a model: slower by far."""
SEALED, DAMAGED = 2, 4  # of a frame: see ends.c


def record_of(kind: int, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "little") + payload


def told(job: Job, number: int) -> bytes:
    """The frames that bring a task and its objects."""
    refs = tuple(payload.ref for payload in job.objects)
    out = record_of(FrameType.TASK, encode(Task(number, job.run, 1, 0, job.kind, job.parameters or None, refs or None)))
    for payload in job.objects:
        for block, at in enumerate(range(0, len(payload.data), BLOCK)):
            data = data_payload(payload.ref.hash, block, payload.data[at : at + BLOCK])
            out += record_of(FrameType.DATA, data)
    return out + record_of(FrameType.ACK, encode(Ack(number)))


def alone(job: Job) -> bytes:
    """A task as target.c takes it, without frames."""
    encoded = encode(Task(1, bytes(8), 0, 0, job.kind, job.parameters or (), None))
    numbers = encoded[encoded.index(bytes((4, job.kind, 5))) + 3 :]
    objects = b"".join(
        bytes((payload.ref.kind - 1,)) + len(payload.data).to_bytes(2, "little") + payload.data
        for payload in job.objects
    )
    return bytes((job.kind - 1, len(numbers))) + numbers + objects


def frames(jobs: list[Job]) -> list[bytes]:
    """Frames from the host, protected and not, inside of a session and outside, sealed by the target and whole."""
    task = told(jobs[0], 7)[3:]
    found = []
    for kind, payload in ((FrameType.TASK, task), (FrameType.BYE, b""), (FrameType.DATA, bytes(BLOCK))):
        for plain in (0, 1):
            head = bytes((0x13 - 2 * plain, kind)) + struct.pack("<HI", 1, 70)
            found += [
                bytes((plain | how, highest, 9, 1)) + head + payload for how, highest in ((2, 0), (2, 60), (6, 75))
            ]
    invite = seal_open(FrameType.INVITE, encode(Invite(1, 1, bytes(16), Profile.PSK, 0, 0, 1024, "n1")), from_host=True)
    return [
        *found,
        bytes(4) + invite,
        bytes((SEALED, 0, 0, 0)) + invite[:-4],
        bytes((SEALED | DAMAGED, 0, 5, 2)) + invite[:-4],
    ]


def stored(*records: bytes) -> bytes:
    """A slot (port/record.h) for each, with sequences that ascend."""
    slots = b""
    for sequence, record in enumerate(records, 1):
        slot = (b"FTRC" + struct.pack("<II", sequence, len(record)) + record).ljust(124, b"\0")
        slots += slot + struct.pack("<I", zlib.crc32(slot))
    return slots


def saved(load: Job, install: Job | None, sequence: int) -> bytes:
    """A model's slot of storage (fedtiny_storage.h)."""
    parts = {payload.ref.kind: payload.data for job in (load, install) if job for payload in job.objects}
    kinds = (ObjectKind.MODEL, ObjectKind.MASKS, ObjectKind.VALUES, ObjectKind.STATISTICS)
    numbers = alone(load)[2 : 2 + alone(load)[1]]
    head = b"FTMD" + struct.pack("<I8sI", sequence, bytes(8), 1)
    head += struct.pack("<4I", *(len(parts.get(kind, b"")) for kind in kinds)) + struct.pack("<I", len(numbers))
    slot = head + load.objects[0].ref.hash + numbers.ljust(56, b"\0")
    slot += b"".join(parts.get(kind, b"") + bytes(-len(parts.get(kind, b"")) % 8) for kind in kinds)
    crc = zlib.crc32(slot)
    return slot + struct.pack("<II", crc, ~crc & 0xFFFFFFFF)


def pure_seeds(invites: list[bytes], answer: Payload, jobs: list[Job]) -> dict[str, list[bytes]]:
    """Of the decoders that need no model."""
    parameters = [seed[2 : 2 + seed[1]] for seed in map(alone, jobs)]
    rng = np.random.default_rng(1)
    masks = []
    for elements, density in ((40, 0.5), (300, 0.1), (2000, 0.01), (64, 1.0), (64, 0.0)):
        mask = rng.random(elements) < density
        for coded in (encode_mask(mask), encode_rice(mask)):
            kind = coded.code
            masks.append(struct.pack("<HHB", kind, elements, 0) + coded.data)
    shards = [payload.data for job in jobs for payload in job.objects if payload.kind is ObjectKind.SAMPLES]
    record = struct.pack("<BBBBI", 1, 1, 2, 0, 5) + bytes(32) + b"n1".ljust(32, b"\0")
    kept = bytes((1, 72, 30)) + bytes(range(112))
    asked = record_of(FrameType.REQUEST, encode(Request(answer.ref.hash, 0, 2**64 - 1)))
    welcome, key = bytes.fromhex("a10007"), record_of(7, encode(Enrol("n2", bytes(32))))
    forged = record_of(3, welcome + bytes(16))
    hands = [
        bytes((without,)) + first + forged + record_of(3 | mac, welcome) + key + first
        for first in (record_of(1, invite) for invite in invites) for without in (0, 1) for mac in (0, 128)
    ]  # fmt: skip
    return {
        "message": [
            bytes((kind,)) + encode(Draw(seed).message(kind)) for kind in range(len(MESSAGES)) for seed in range(4)
        ],
        "numbers": [bytes((form,)) + numbers for numbers in parameters for form in range(6)],
        "cobs": [
            stuff(data)[:-1]
            for data in (bytes(9), bytes(range(256)) * 3, b"\1" * 254, b"\1" * 600, b"a\0b", b"\1" * 255)
        ],
        "frame": frames(jobs),
        "handshake": hands,
        "transfer": [bytes((192,)) + told(job, 7) + asked + record_of(99, b"") + told(jobs[0], 8) for job in jobs],
        "mask": masks,
        "samples": [struct.pack("<BI", labels, 36) + data for data in shards for labels in (0, 1)],
        "record": [
            kept + slots for slots in (b"", stored(record), stored(*[record] * 6), stored(b"a", record, bytes(112)))
        ],
        "topic": [b"fleet\0n1\0" + invites[0], b"f" * 64 + b"\0" + b"n" * 31 + b"\0" + bytes((0x11, 17)) + bytes(40),
                  b"a\0b\0" + bytes((0x11, 6)) + bytes(30)],
    }  # fmt: skip


def write_seeds(folder: Path) -> Path:
    """The file of the model."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 3)
    )
    model = from_torch(net, SHAPE)
    masks = random_masks(model, 0.5)
    blob = write_blob(model.graph, model.arrays, masks)
    config = NodeConfig(micro_batch=4, topk_max=8, layerwise=True, modes=("infer", "measure", "train", "score"))
    logits = CoreNode(blob, config).infer(np.zeros((1, *SHAPE), np.float32))
    answer = Payload(ObjectKind.LOGITS, bytes(4) + logits.tobytes())
    numbers = {name: k for k, name in enumerate(model.graph.layer_names)}
    thresholds = np.full((2, len(numbers)), 0.1, np.float32)
    palette = np.arange(36 * 5, dtype=np.float32).reshape(5, *SHAPE) % 7
    install = Install(
        values=pack_values(model.graph, model.arrays, masks),
        masks={numbers[name]: encode_smallest(mask) for name, mask in masks.items()},
        stats=pack_stats(model.graph, model.arrays),
    )
    stats = np.stack([pack_stats(model.graph, model.arrays)] * 2)
    tasks: list[FleetTask] = [
        Describe(), Report(), install,
        PutData(x=palette, y=np.arange(5, dtype=np.uint16) % 3, dev_count=2),
        PutData(x=palette + np.float32(0.1), y=np.arange(5, dtype=np.uint16) % 3, dev_count=2),
        Load(blob=blob, micro_batch=4, topk_max=8),
        MeasureBn(subset=Subset.ALL), MeasureBn(subset=Subset.DEV, candidates=thresholds),
        Evaluate(subset=Subset.ALL), Evaluate(subset=Subset.DEV, candidates=thresholds, stats=stats),
        Train(epochs=1, lr=0.1, momentum=0.9, weight_decay=0.0, seed=1),
        Train(epochs=2, lr=0.1, momentum=0.0, weight_decay=1e-3, seed=1, upload="f16"),
        Score(k={1: 3, 0: 2}, batches=1, seed=2), Score(k={1: 8}, batches=2, seed=2),
        Infer(x=np.zeros((1, *SHAPE), np.float32)), Infer(x=palette),
    ]  # fmt: skip
    packer = Packer(run=bytes(8), round_number=1, limit_s=1)
    jobs = [job for task in tasks for job in packer.jobs(task, 600)]
    invites = [
        encode(Invite(1, 1, bytes(16), profile, 0, 0, most, device, public))
        for profile, most, device, public in (
            (Profile.PSK, 1024, "n1", None), (Profile.PLAIN, 1024, None, None), (Profile.PSK_FS, 64, "n1", bytes(32)),
        )
    ]  # fmt: skip
    welcome = stuff(seal_open(FrameType.WELCOME, bytes.fromhex("a10007"), from_host=True))
    asked = record_of(FrameType.REQUEST, encode(Request(answer.ref.hash, 0, 2**64 - 1)))
    infer = next(job for job in jobs if job.objects and job.objects[0].data == bytes(4 + 4 * 36))
    seeds = pure_seeds(invites, answer, jobs)
    seeds["values"] = [seed[2 + seed[1] :] for seed in map(alone, jobs) if seed[0] == TaskKind.INSTALL - 1]
    load, put = (next(job for job in jobs if job.kind is kind) for kind in (TaskKind.LOAD, TaskKind.INSTALL))
    slots = saved(load, put, 7), saved(load, None, 8), b""
    seeds["saver"] = [
        bytes((how,)) + len(one).to_bytes(2, "little") + one + other
        for how in (0, 3) for one in slots for other in slots
    ]  # fmt: skip
    seeds["line"] = [
        bytes((40,)) + stuff(seal_open(FrameType.INVITE, invite, from_host=True)) + welcome for invite in invites
    ]
    seeds["task"] = [alone(job) for job in jobs]
    seeds["session"] = [told(job, 7) for job in jobs]
    seeds["session"].append(told(infer, 7) + asked + told(jobs[0], 8) + record_of(FrameType.BYE, b""))
    for target, inputs in seeds.items():
        (folder / target).mkdir(parents=True)
        for number, seed in enumerate(inputs):
            (folder / target / f"{number:03}.bin").write_bytes(seed)
    (folder / "model.ftm").write_bytes(blob)
    return folder / "model.ftm"


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
