"""Every task, by the C node of the wire over a line in memory: the answers of the core asked directly, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedtiny.federation.tasks import (
    Evaluate,
    Load,
    MeasureBn,
    PutData,
    Reply,
    Report,
    Subset,
    Task,
    Train,
)
from fedtiny.fleet.encoding import Packer, reply_of
from fedtiny.fleet.native import NativeNode
from fedtiny.fleet.planning import node_config
from fedtiny.link.endpoint import Answer, Endpoint, Job
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.blob import write_blob
from fedtiny_export.core import plan_banks
from fedtiny_export.errors import CoreError
from fedtiny_export.values import pack_stats

from ..host import runs
from ..link.c_node import CNode
from ..link.wires import ask, wire
from .test_encoding import TASKS, install, masks, same, thresholds

SETTLED = [task for name, task in TASKS.items() if "candidates" not in name]
ARG, STATE, NOMEM, DATA, BLOB = 6, 5, 4, 8, 1


class Pair:
    """A node asked directly, and one in C behind a line."""

    def __init__(self, memory: int = 1 << 20, faults: Faults | None = None, banks: Sequence[int] = ()) -> None:
        self.direct = NativeNode()
        self.node = CNode(work=None, memory=memory, banks=banks)
        self.line: MemoryWire = wire(self.node, faults)

    def ask(self, task: Task, most: int = 1 << 20) -> tuple[Reply, Reply]:
        return self.direct.do(task), self.over_wire(task, most)

    def over_wire(self, task: Task, most: int = 1 << 20) -> Reply:
        jobs = Packer(run=b"the run.", round_number=3, limit_s=100).jobs(task, most)
        answers = [ask(self.line, job) for job in jobs]
        assert [(answer.status, answer.problem) for answer in answers] == [(0, "")] * len(answers)
        host = self.line.host
        assert isinstance(host, Endpoint)
        assert host.hello is not None
        return reply_of(task, answers, replace(host.hello, board="native"))

    def refusal(self, task: Task | Job) -> Answer:
        jobs = [task] if isinstance(task, Job) else Packer(run=bytes(8), round_number=0, limit_s=9).jobs(task, 1 << 20)
        answer = ask(self.line, jobs[-1])
        assert answer.status != 0
        assert (answer.results, answer.objects) == ((), ())
        return answer


def filled(pair: Pair) -> Pair:
    model = runs.model()
    x, y = runs.samples(40, seed=1)
    same(*pair.ask(PutData(x=x, y=y, dev_count=8)))
    same(*pair.ask(Load(blob=write_blob(model.graph, model.arrays, masks(model.graph, 0)), micro_batch=8, topk_max=64)))
    return pair


@pytest.fixture
def pair() -> Pair:
    """Both hold samples and a sparse model with room for top-K."""
    return filled(Pair())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_the_cores_answer(pair: Pair, name: str) -> None:
    same(*pair.ask(TASKS[name]))


@pytest.mark.parametrize(
    "banks", [(), (1 << 20,), (8192, 16384), (4096, 24576, 4096), (64,)], ids=lambda banks: f"{len(banks)}:{sum(banks)}"
)
def test_a_whole_life_gives_the_cores_answers(banks: tuple[int, ...]) -> None:
    """Each task changes what the next one finds; the parts of the arena lie in one piece, or where there is room."""
    pair = filled(Pair(banks=banks))
    graph, arrays = runs.model().graph, runs.model().arrays
    stats = np.stack([np.abs(pack_stats(graph, arrays) + np.float32(0.1 * k)) for k in range(3)])
    x, y = runs.samples(25, seed=2)
    life = [
        MeasureBn(subset=Subset.DEV, candidates=thresholds(3)),
        Evaluate(subset=Subset.ALL, candidates=thresholds(3), stats=stats),
        *TASKS.values(),
        install(1),  # now the blob's candidates no longer fit
        *SETTLED,
        MeasureBn(subset=Subset.ALL),
        install(2),
        Evaluate(subset=Subset.DEV, stats=stats[:1]),
        Train(epochs=3, lr=0.1, momentum=0.5, weight_decay=0, seed=3),
        PutData(x=x, y=y, dev_count=5),
        *SETTLED,
        Load(blob=write_blob(graph, arrays, masks(graph, 2)), micro_batch=4, topk_max=64, keep="f16", lean=True),
        *TASKS.values(),
        Report(),
    ]
    for task in life:
        same(*pair.ask(task))


def test_a_life_on_a_bad_line_gives_the_cores_answers() -> None:
    pair = filled(Pair(faults=Faults(loss=0.2, duplicate=0.1, reorder=0.1, flip=1e-5)))
    for task in (*TASKS.values(), install(1), *SETTLED):
        same(*pair.ask(task))


@pytest.mark.parametrize("colours", [2, 256, 257])
@pytest.mark.parametrize("most", [1 << 20, 3000])
def test_samples_arrive_bit_for_bit_in_parts(colours: int, most: int) -> None:
    """Training reads every number of every sample in an order of its own."""
    rng = np.random.default_rng(colours)
    palette = np.concatenate([[np.float32(-0.0), np.float32(0.0)], rng.normal(size=colours - 2)]).astype(np.float32)
    picks = np.concatenate([np.arange(colours), rng.integers(0, colours, 144 * 20 - colours)])
    put = PutData(x=palette[picks].reshape(20, 1, 12, 12), y=rng.integers(0, 4, 20).astype(np.uint16), dev_count=3)
    pair = filled(Pair())
    same(*pair.ask(put, most))
    same(*pair.ask(TASKS["describe"]))
    same(*pair.ask(TASKS["train"]))


def test_no_samples_at_all_are_samples_too(pair: Pair) -> None:
    none = Payload(ObjectKind.SAMPLES, bytes(4))
    answer = ask(pair.line, Job(TaskKind.INFER, parameters=(0,), objects=(none,)))
    assert (answer.status, answer.objects) == (0, (Payload(ObjectKind.LOGITS, bytes(4)),))
    assert ask(pair.line, Job(TaskKind.PUT_DATA, parameters=(0, 0, 0, 0, 144), objects=(none,))).status == 0
    assert ask(pair.line, Job(TaskKind.DESCRIBE)).results == (0, 0)
    assert pair.refusal(TASKS["train"]).status == STATE


def test_a_model_that_the_node_runs_is_not_sent_again(pair: Pair) -> None:
    host = pair.line.host
    assert isinstance(host, Endpoint)
    before = host.traffic.down_frames["data.model"]
    model = runs.model()
    blob = write_blob(model.graph, model.arrays, masks(model.graph, 0))
    same(*pair.ask(Load(blob=blob, micro_batch=4, topk_max=64)))
    assert host.traffic.down_frames["data.model"] == before > 0
    same(*pair.ask(TASKS["train"]))


def test_what_is_in_the_way_of_a_task_is_said_with_numbers() -> None:
    pair = Pair()
    x, y = runs.samples(40, seed=1)
    model = runs.model()
    blob = write_blob(model.graph, model.arrays, masks(model.graph, 0))
    load = Load(blob=blob, micro_batch=8)
    assert pair.refusal(TASKS["train"]).problem == "no model yet: load one first"
    assert pair.refusal(install(1)).status == STATE
    pair.over_wire(PutData(x=x[:, :, :6], y=y, dev_count=8))
    assert pair.refusal(load).problem == "samples of 72 numbers, the model takes 144"
    pair.over_wire(PutData(x=x, y=y, dev_count=8))
    pair.over_wire(load)
    assert pair.refusal(Job(TaskKind.TRAIN, parameters=(1, 2))).status == ARG
    assert pair.refusal(TASKS["score"]).status == NOMEM  # top-K was not planned for
    assert pair.refusal(Job(TaskKind.LOAD, parameters=(1,) * 11)).status == ARG
    damaged = replace(load, blob=blob[:-1] + bytes((blob[-1] ^ 1,)))
    assert pair.refusal(damaged).status == BLOB
    assert pair.refusal(Job(TaskKind.INFER, parameters=(2,))).problem.startswith("no model yet")


def test_samples_of_another_size_end_the_model_of_an_earlier_run(pair: Pair) -> None:
    """A board that stays powered meets the next run's data before the next run's model."""
    x, y = runs.samples(40, seed=1)
    same(*pair.ask(PutData(x=x[:, :, :6], y=y, dev_count=8)))
    assert pair.refusal(TASKS["train"]).problem == "no model yet: load one first"
    with pytest.raises(CoreError, match="no model yet"):
        pair.direct.do(TASKS["train"])
    filled(pair)
    same(*pair.ask(TASKS["train"]))


def test_memory_that_does_not_suffice_is_said_with_numbers_and_nothing_breaks() -> None:
    """From none to more than enough, in steps: the same answers as the core's or a refusal."""
    model = runs.model()
    blob = write_blob(model.graph, model.arrays, masks(model.graph, 0))
    x, y = runs.samples(40, seed=1)
    put, load = PutData(x=x, y=y, dev_count=8), Load(blob=blob, micro_batch=8, topk_max=64)
    seen: set[tuple[str, int]] = set()
    direct = NativeNode()
    direct.do(put)
    direct.do(load)
    expected = {name: direct.do(task) for name, task in TASKS.items() if name != "report"}
    planned = 4 + 40 * (4 * 144 + 2) + len(blob) + direct.core.memory.peak
    for memory in [*range(0, planned, planned // 8), *range(planned, planned + 6_000, 600)]:
        pair = Pair(memory=memory)
        for name, task in {"put": put, "load": load, **TASKS}.items():
            jobs = Packer(run=bytes(8), round_number=0, limit_s=9).jobs(task, 1 << 20)
            answer = ask(pair.line, jobs[0])
            seen.add((name, answer.status))
            if answer.status == NOMEM:
                assert "free" in answer.problem
            if answer.status:
                break
            if answer.objects:
                host = pair.line.host
                assert isinstance(host, Endpoint)
                assert host.hello is not None
                same(expected[name], reply_of(task, [answer], replace(host.hello, board="native")))
    assert seen >= {(name, 0) for name in TASKS} | {("put", NOMEM), ("load", NOMEM)}
    assert any(status == NOMEM for name, status in seen if name in TASKS)


def test_a_bank_takes_what_the_piece_of_memory_has_no_room_for() -> None:
    """Samples, model and a task's objects stay in the piece; a part that no bank holds is named by its bytes."""
    model = runs.model()
    blob = write_blob(model.graph, model.arrays, masks(model.graph, 0))
    x, y = runs.samples(40, seed=1)
    load = Load(blob=blob, micro_batch=8, topk_max=64)
    arena = NativeNode()
    arena.do(load)
    most = max(plan_banks(blob, node_config(load), [1 << 20])[1].parts.values())
    memory = 40_000  # 24 KB of samples, the model, and what goes over the wire
    assert arena.core.memory.peak > memory
    for bank, status in ((most - 8, NOMEM), (arena.core.memory.peak, 0)):
        pair = Pair(memory=memory, banks=(bank,))
        pair.direct.do(load)
        same(*pair.ask(PutData(x=x, y=y, dev_count=8)))
        if status:
            assert pair.refusal(load).problem.startswith(f"{most} bytes wanted, ")
        else:
            same(*pair.ask(load))
            same(*pair.ask(TASKS["train"]))


def test_banks_come_before_the_first_model_and_are_not_too_many() -> None:
    node = filled(Pair(banks=(8192,))).node
    assert node.add_banks(8192) == ARG
    for count, status in ((0, ARG), (1, 0), (3, 0), (4, ARG)):
        assert CNode(work=None).add_banks(*[64] * count) == status


def bad_jobs() -> dict[str, Job]:
    """Objects and parameters that a hostile or broken host may send; the node has a model and samples."""

    def job(kind: TaskKind, parameters: tuple[Any, ...] = (), **objects: bytes) -> Job:
        payloads = tuple(Payload(ObjectKind[name.upper()], data) for name, data in objects.items())
        return Job(kind, parameters=parameters, objects=payloads)

    some = bytes(4) + np.zeros(8, "<f4").tobytes()
    return {
        "values too few": job(TaskKind.INSTALL, values=some),
        "values of an unknown encoding": job(TaskKind.INSTALL, values=b"\2\0\0\0" + bytes(32)),
        "halves, which only go up": job(TaskKind.INSTALL, values=b"\1\0\0\0" + bytes(32)),
        "values of an odd length": job(TaskKind.INSTALL, values=bytes(7)),
        "no values": job(TaskKind.INSTALL, statistics=some),
        "masks cut": job(TaskKind.INSTALL, masks=bytes(7), values=some),
        "a mask longer than its object": job(TaskKind.INSTALL, masks=b"\1\0\1\0\xff\xff\xff\xff", values=some),
        "a mask of no layer": job(TaskKind.INSTALL, masks=b"\x63\0\1\0\0\0\0\0", values=some),
        "candidates without rows": job(TaskKind.MEASURE_BN, (0, 2)),
        "rows without candidates": job(TaskKind.MEASURE_BN, (0, 0), candidates=bytes(16)),
        "four billion candidates": job(TaskKind.EVALUATE, (0, 2**32 - 1), candidates=bytes(16)),
        "a subset that is none": job(TaskKind.MEASURE_BN, (7, 0)),
        "statistics of another model": job(TaskKind.EVALUATE, (0, 0), statistics=some),
        "integers for rates": job(TaskKind.TRAIN, (1, 2, 3, 4, 5, 0)),
        "a rate that is no number": job(TaskKind.TRAIN, (1, 2, float("nan"), 0.0, 0.0, 0)),
        "no epochs": job(TaskKind.TRAIN, (0, 2, 0.1, 0.0, 0.0, 0)),
        "negative epochs": job(TaskKind.TRAIN, (-1, 2, 0.1, 0.0, 0.0, 0)),
        "an encoding that is none": job(TaskKind.TRAIN, (1, 2, 0.1, 0.0, 0.0, 2)),
        "parameters left over": job(TaskKind.TRAIN, (1, 2, 0.1, 0.0, 0.0, 0, 0)),
        "a layer without its number": job(TaskKind.SCORE, (1, 2, 3)),
        "a dense layer": job(TaskKind.SCORE, (1, 2, 0, 3)),
        "more parameters than a node keeps": job(TaskKind.SCORE, (1, 2, *(2**32 - 1,) * 60)),
        "samples too few": job(TaskKind.INFER, (2,), samples=bytes(4 + 4 * 144)),
        "a colour that the palette lacks": job(TaskKind.INFER, (1,), samples=b"\1" + bytes(11) + b"\1" * 144),
        "a palette that ends in its head": job(TaskKind.INFER, (0,), samples=b"\1\0\0\0\0\0\0"),
        "samples that are none": job(TaskKind.INFER, (0,), samples=b"\3\0\0\0"),
        "a part that is no beginning": job(TaskKind.PUT_DATA, (10, 1, 20, 2, 144), samples=bytes(4 + 4 * 144 + 2)),
        "more samples than fit 32 bits": job(TaskKind.PUT_DATA, (0, 2**31, 2**31, 2, 144), samples=bytes(8)),
    }  # fmt: skip


@pytest.mark.parametrize("name", bad_jobs())
def test_a_bad_task_is_refused_in_words_and_changes_nothing(pair: Pair, name: str) -> None:
    answer = pair.refusal(bad_jobs()[name])
    assert answer.problem
    if "values" in name or "masks" in name or "mask " in name:
        pair.over_wire(install(1))
        pair.direct.do(install(1))
    if "more samples" not in name:
        same(*pair.ask(TASKS["train"]))


def test_a_label_that_the_model_lacks_is_the_datas_fault(pair: Pair) -> None:
    x, y = runs.samples(12, seed=2)
    y[7] = 4
    pair.over_wire(PutData(x=x, y=y, dev_count=2))
    assert pair.refusal(TASKS["train"]).status == DATA
