"""Every task over the wire's encoding, to a node that reads PROTOCOL.md on its own: the core's answers, bit for bit."""

from __future__ import annotations

import math
import struct
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fedtiny.federation.tasks import (
    Describe,
    Evaluate,
    Infer,
    Install,
    Load,
    MeasureBn,
    PutData,
    Reply,
    Report,
    Score,
    Subset,
    Task,
    Train,
)  # fmt: skip
from fedtiny.fleet.encoding import BadAnswer, Packer, reply_of
from fedtiny.fleet.native import NativeNode
from fedtiny.fleet.upload import uploaded
from fedtiny.link.endpoint import Answer
from fedtiny.link.messages import Hello, Profile
from fedtiny.link.messages import Task as WireTask
from fedtiny_export.blob import write_blob
from fedtiny_export.errors import FleetError
from fedtiny_export.graph import Graph
from fedtiny_export.masks import encode_smallest
from fedtiny_export.values import pack_stats, pack_values

from ..host import runs
from ..link.core_node import CoreWork

HELLO = Hello(1, bytes(16), "n1", Profile.PSK, 0, 0, 1024, 1 << 20, 1, 1, "native", bytes(8), 0, 0, 0)


class Pair:
    """A node asked directly, and one asked through the encoding."""

    def __init__(self) -> None:
        self.direct, self.wired = NativeNode(), CoreWork()

    def ask(self, task: Task, most: int = 1 << 20) -> tuple[Reply, Reply]:
        return self.direct.do(task), self.over_wire(task, most)

    def over_wire(self, task: Task, most: int = 1 << 20) -> Reply:
        answers = []
        for job in Packer(run=bytes(8), round_number=3, limit_s=1).jobs(task, most):
            wire = WireTask(1, job.run, job.round, job.attempt, job.kind, job.parameters or None, None)
            assert all(len(payload.data) <= most for payload in job.objects) or isinstance(task, Load)
            status, results, objects = self.wired(wire, job.objects)
            assert status == 0
            answers.append(Answer(0, results, objects, ""))
        return reply_of(task, answers, HELLO)


def masks(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.permutation(np.arange(graph.params[index].size) < 0.1 * graph.params[index].size).reshape(
            graph.params[index].shape
        )
        for name, index in list(zip(graph.layer_names, graph.layers, strict=True))[1:]
    }


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for item in fields(a):
        mine, theirs = getattr(a, item.name), getattr(b, item.name)
        if isinstance(mine, np.ndarray):
            assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), item.name
        elif isinstance(mine, dict):
            assert {k: np.asarray(v).tobytes() for k, v in mine.items()} == {
                k: np.asarray(v).tobytes() for k, v in theirs.items()
            }, item.name
        elif item.name not in ("busy_s", "tasks", "boots", "dropped", "asked_again"):  # a link's, or of this moment
            assert mine == theirs, item.name


@pytest.fixture
def pair() -> Pair:
    """Both hold samples and a sparse model with room for top-K."""
    model = runs.model()
    both = Pair()
    x, y = runs.samples(40, seed=1)
    both.ask(PutData(x=x, y=y, dev_count=8))
    both.ask(Load(blob=write_blob(model.graph, model.arrays, masks(model.graph, 0)), micro_batch=8, topk_max=64))
    return both


def install(seed: int) -> Install:
    graph, arrays = runs.model().graph, runs.model().arrays
    changed = masks(graph, seed)
    numbers = {name: k for k, name in enumerate(graph.layer_names)}
    return Install(
        values=pack_values(graph, arrays, changed),
        masks={numbers[name]: encode_smallest(mask) for name, mask in changed.items()},
        stats=pack_stats(graph, arrays) + np.float32(0.25),
    )


def thresholds(rows: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 0.2, (rows, len(runs.model().graph.layers))).astype(np.float32)


TASKS: dict[str, Any] = {
    "describe": Describe(),
    "measure the installed values": MeasureBn(subset=Subset.ALL),
    "measure candidates": MeasureBn(subset=Subset.DEV, candidates=thresholds(3)),
    "evaluate the installed values": Evaluate(subset=Subset.ALL),
    "evaluate candidates": Evaluate(subset=Subset.DEV, candidates=thresholds(3)),
    "train": Train(epochs=2, lr=0.05, momentum=0.9, weight_decay=1e-3, seed=2**32 - 5),
    "train, halves up": Train(epochs=1, lr=1, momentum=0, weight_decay=0, seed=7, upload="f16"),
    "score": Score(k={2: 20, 1: 5, 3: 64}, batches=2, seed=9),
    "infer": Infer(x=runs.samples(5, seed=3)[0]),
    "report": Report(),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_a_task_over_the_wire_gives_the_cores_answer(pair: Pair, name: str) -> None:
    same(*pair.ask(TASKS[name]))


def test_masks_values_and_statistics_arrive_as_they_are(pair: Pair) -> None:
    for seed in (1, 2):
        same(*pair.ask(install(seed)))
        assert pair.direct.core.values().tobytes() == pair.wired.node.core.values().tobytes()
        assert pair.direct.core.stats().tobytes() == pair.wired.node.core.stats().tobytes()
        same(*pair.ask(Train(epochs=1, lr=0.1, momentum=0.5, weight_decay=0, seed=seed)))


def test_statistics_of_each_candidate_travel_with_it(pair: Pair) -> None:
    graph, arrays = runs.model().graph, runs.model().arrays
    stats = np.stack([np.abs(pack_stats(graph, arrays) + np.float32(0.1 * k)) for k in range(3)])
    same(*pair.ask(Evaluate(subset=Subset.ALL, candidates=thresholds(3), stats=stats)))


@pytest.mark.parametrize("colours", [2, 256, 257])
@pytest.mark.parametrize("most", [1 << 20, 3000])
def test_samples_arrive_bit_for_bit_in_parts_that_the_node_can_take(colours: int, most: int) -> None:
    rng = np.random.default_rng(colours)
    palette = np.concatenate([[np.float32(-0.0), np.float32(0.0)], rng.normal(size=colours - 2)]).astype(np.float32)
    picks = np.concatenate([np.arange(colours), rng.integers(0, colours, 144 * 20 - colours)])
    put = PutData(x=palette[picks].reshape(20, 1, 12, 12), y=rng.integers(0, 4, 20).astype(np.uint16), dev_count=3)
    pair = Pair()
    pair.ask(put, most)
    taken = pair.wired.node._samples
    assert taken is not None
    assert taken.x.tobytes() == put.x.tobytes()
    assert (taken.y.tolist(), taken.dev_count) == (put.y.tolist(), 3)
    jobs = Packer(run=bytes(8), round_number=0, limit_s=1).jobs(put, most)
    sent = sum(len(payload.data) for job in jobs for payload in job.objects)
    assert (sent < put.x.nbytes / 2) == (colours <= 256)


def test_a_sample_that_no_object_holds_is_refused_with_its_bytes() -> None:
    put = PutData(x=np.arange(600, dtype=np.float32).reshape(1, 600), y=np.zeros(1, np.uint16), dev_count=0)
    with pytest.raises(FleetError, match=r"one sample takes 2406 bytes, and the node takes objects of at most 2000"):
        Packer(run=bytes(8), round_number=0, limit_s=1).jobs(put, 2000)


def test_what_many_nodes_get_is_packed_once() -> None:
    packer = Packer(run=bytes(8), round_number=0, limit_s=1)
    task = install(1)
    first, second = packer.jobs(task, 1000)[0], packer.jobs(task, 4000)[0]
    assert all(a is b for a, b in zip(first.objects, second.objects, strict=True))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("describe", {"results": ()}),
        ("describe", {"results": (1.5, 2)}),
        ("train", {"objects": ()}),
        ("train", {"results": (1, 2, 3)}),
        ("evaluate candidates", {"results": (-1,)}),
        ("score", {"results": ()}),
    ],
)
def test_an_answer_that_is_not_as_the_protocol_has_it_is_named(pair: Pair, name: str, change: dict[str, Any]) -> None:
    task = TASKS[name]
    (job,) = Packer(run=bytes(8), round_number=0, limit_s=1).jobs(task, 1 << 20)
    _, results, objects = pair.wired(WireTask(1, bytes(8), 0, 0, job.kind, job.parameters or None), job.objects)
    answer = Answer(**{"status": 0, "results": results, "objects": objects, "problem": ""} | change)
    with pytest.raises(BadAnswer, match="not as the protocol has it"):
        reply_of(task, [answer], HELLO)


def test_objects_cut_anywhere_are_named_too(pair: Pair) -> None:
    for name in ("train", "score", "measure candidates", "evaluate candidates"):
        task = TASKS[name]
        (job,) = Packer(run=bytes(8), round_number=0, limit_s=1).jobs(task, 1 << 20)
        _, results, objects = pair.wired(WireTask(1, bytes(8), 0, 0, job.kind, job.parameters or None), job.objects)
        for cut in (1, 3, 5, 7):
            damaged = tuple(type(o)(o.kind, o.data[:-cut]) for o in objects)
            with pytest.raises(BadAnswer):
                reply_of(task, [Answer(0, results, damaged, "")], HELLO)


def test_a_half_is_the_nearest_even_and_never_infinite() -> None:
    """struct's binary16 as the oracle, which refuses what does not fit."""
    rng = np.random.default_rng(4)
    values = rng.integers(0, 2**32, 20_000, np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate(
        [values[np.isfinite(values)], np.float32([0, -0.0, 65504, 65519.99, 65520, -1e30, 6e-8, 2e-8])]
    )
    halves = uploaded(values, "f16")
    for value, half in zip(values.tolist(), halves.tolist(), strict=True):
        try:
            expected = struct.unpack("<e", struct.pack("<e", value))[0]
        except OverflowError:
            expected = math.copysign(65504.0, value)
        assert (half, math.copysign(1, half)) == (expected, math.copysign(1, expected))
    assert uploaded(values, "f32") is values
