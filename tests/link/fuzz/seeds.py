"""Seeds for the wire's fuzzer: valid messages, sessions and tasks, and the model that its node runs.

python -m tests.link.fuzz.seeds FOLDER
"""

from __future__ import annotations

import sys
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
from fedtiny.link.messages import MESSAGES, Ack, Invite, ObjectKind, Profile, Request, Task, encode
from fedtiny.link.objects import Payload, data_payload
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig
from fedtiny_export.masks import encode_smallest
from fedtiny_export.torch_in import from_torch
from fedtiny_export.values import pack_stats, pack_values

from ...firmware.nets import random_masks
from ..test_c_codec import Draw

SHAPE, BLOCK = (1, 6, 6), 256 - 8
MESSAGE, LINE, SESSION, TASK = range(4)


def record(kind: FrameType, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "little") + payload


def told(job: Job, number: int) -> bytes:
    """The frames that bring a task and its objects."""
    refs = tuple(payload.ref for payload in job.objects)
    out = record(FrameType.TASK, encode(Task(number, job.run, 1, 0, job.kind, job.parameters or None, refs or None)))
    for payload in job.objects:
        for block, at in enumerate(range(0, len(payload.data), BLOCK)):
            data = data_payload(payload.ref.hash, block, payload.data[at : at + BLOCK])
            out += record(FrameType.DATA, data)
    return out + record(FrameType.ACK, encode(Ack(number)))


def alone(job: Job) -> bytes:
    """A task as target.c takes it, without frames."""
    encoded = encode(Task(1, bytes(8), 0, 0, job.kind, job.parameters or (), None))
    numbers = encoded[encoded.index(bytes((4, job.kind, 5))) + 3 :]
    objects = b"".join(
        bytes((payload.ref.kind - 1,)) + len(payload.data).to_bytes(2, "little") + payload.data
        for payload in job.objects
    )
    return bytes((TASK, job.kind - 1, len(numbers))) + numbers + objects


def write_seeds(folder: Path) -> tuple[Path, list[Path]]:
    """The model's file, and the seeds."""
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
    seeds = [bytes((MESSAGE, kind)) + encode(Draw(kind).message(kind)) for kind in range(len(MESSAGES))]
    invite = encode(Invite(1, 1, bytes(16), Profile.PSK, 0, 0, 1024, "n1"))
    plain = encode(Invite(1, 1, bytes(16), Profile.PLAIN, 0, 0, 1024, None))
    welcome = bytes.fromhex("a10007")
    for payload in (invite, plain, encode(Invite(1, 1, bytes(16), Profile.PSK_FS, 0, 0, 64, "n1", bytes(32)))):
        line = stuff(seal_open(FrameType.INVITE, payload, from_host=True))
        seeds.append(bytes((LINE, 40)) + line + stuff(seal_open(FrameType.WELCOME, welcome, from_host=True)))
    seeds += [alone(job) for job in jobs]
    seeds += [bytes((SESSION,)) + told(job, 7) for job in jobs]
    asked = record(FrameType.REQUEST, encode(Request(answer.ref.hash, 0, 2**64 - 1)))
    infer = next(job for job in jobs if job.objects and job.objects[0].data == bytes(4 + 4 * 36))
    seeds.append(bytes((SESSION,)) + told(infer, 7) + asked + told(jobs[0], 8) + record(FrameType.BYE, b""))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.ftm").write_bytes(blob)
    paths = []
    for number, seed in enumerate(seeds):
        paths.append(folder / f"{number:03}.bin")
        paths[-1].write_bytes(seed)
    return folder / "model.ftm", paths


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
