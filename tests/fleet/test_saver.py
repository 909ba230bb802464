"""The last good model in a node's storage (fedtiny_storage.h): cut off at every operation of its flash, counted over a
run, and brought up again. The C is that of the boards; the flash does what a chip's does.
"""

from __future__ import annotations

import ctypes as ct
import random
import re
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from fedtiny.boards import root
from fedtiny.federation.tasks import LinkBytes, Load, NodeLink, PutData, Reply, Report, Task, Train
from fedtiny.fleet.encoding import Packer, reply_of
from fedtiny.fleet.native import NativeFleet
from fedtiny.link.endpoint import Endpoint, Job
from fedtiny.link.memory import MemoryWire
from fedtiny.link.messages import Profile, TaskKind
from fedtiny_export.blob import write_blob

from ..conftest import Outcome
from ..host import runs
from ..link.c_node import SAVER_BYTES, WORK, CNode, _Counts, _Ref, _Reply, _Service, _Task, _Tasks, library, make_record
from ..link.storage import Flash as SampleFlash
from ..link.wires import ask, endpoint
from .fleets import run_of
from .test_encoding import install as make_install
from .test_encoding import masks

U8, U32, PTR = ct.c_uint8, ct.c_uint32, ct.c_void_p
MODEL_0, MODEL_1, SAMPLES, AREAS = 0, 1, 2, 3
WORD, SLOT = 4, 128
MOVE = ct.CFUNCTYPE(ct.c_int, PTR, U32, U32, PTR, U32)
ERASE = ct.CFUNCTYPE(ct.c_int, PTR, U32)
RECORD_MOVE = ct.CFUNCTYPE(ct.c_int, PTR, U32, U32, PTR)
CUT = random.Random(6)
JOBS: dict[tuple[int, int], tuple[Task, list[Job]]] = {}


class _Storage(ct.Structure):
    _fields_ = [("ctx", PTR), ("bytes", U32 * AREAS), ("read", MOVE), ("write", MOVE), ("erase", ERASE)]


class _RecordStorage(ct.Structure):
    _fields_ = [("ctx", PTR), ("slots", U32), ("read", RECORD_MOVE), ("write", RECORD_MOVE), ("erase", ERASE)]


class Flash:
    """Two sectors for the record and two for models. Erasing sets all bits, writing only clears some, word by word.

    Power lasts `operations` words and erasures: what it fails in leaves garbage in its word or its sector, and nothing
    is done after it.
    """

    def __init__(self, slot_bytes: int = 1 << 14) -> None:
        self.sectors = [bytearray(b"\x5a" * n) for n in (2 * SLOT, 2 * SLOT, slot_bytes, slot_bytes)]
        self.operations: int | None = None
        self.done = self.erased = 0
        self.written: list[tuple[int, int, int]] = []
        self.areas = _Storage(
            None, (U32 * AREAS)(slot_bytes, slot_bytes, 0),
            MOVE(lambda _, area, at, to, n: self._read(2 + area, at, to, n)),
            MOVE(lambda _, area, at, data, n: self._write(2 + area, at, data, n)),
            ERASE(lambda _, area: self._erase(2 + area)),
        )  # fmt: skip
        self.record = _RecordStorage(
            None, 2,
            RECORD_MOVE(lambda _, half, slot, to: self._read(half, slot * SLOT, to, SLOT)),
            RECORD_MOVE(lambda _, half, slot, data: self._write(half, slot * SLOT, data, SLOT)),
            ERASE(lambda _, half: self._erase(half)),
        )  # fmt: skip

    def copy(self) -> list[bytearray]:
        return [bytearray(sector) for sector in self.sectors]

    def _power(self) -> bool:
        if self.operations is not None and self.done > self.operations:
            return False
        self.done += 1
        return True

    def _fails_now(self) -> bool:
        return self.operations is not None and self.done > self.operations

    def _read(self, sector: int, at: int, to: int, count: int) -> int:
        assert at + count <= len(self.sectors[sector])
        ct.memmove(to, bytes(self.sectors[sector][at : at + count]), count)
        return 0

    def _write(self, sector: int, at: int, data: int, count: int) -> int:
        flash = self.sectors[sector]
        assert at % 8 == count % 8 == 0
        assert at + count <= len(flash)
        new = ct.string_at(data, count)
        self.written.append((sector, at, count))
        words = count // WORD if self.operations is None else min(count // WORD, max(self.operations - self.done, 0))
        self._clear(flash, at, new[: WORD * words])
        self.done += words
        if words == count // WORD:
            return 0
        if self._power():  # the word that it fails in: some bits are written
            last = int.from_bytes(new[WORD * words : WORD * (words + 1)], "little") | CUT.getrandbits(8 * WORD)
            self._clear(flash, at + WORD * words, last.to_bytes(WORD, "little"))
        return 1

    @staticmethod
    def _clear(flash: bytearray, at: int, bits: bytes) -> None:
        here = slice(at, at + len(bits))
        left = int.from_bytes(flash[here], "little") & int.from_bytes(bits, "little")
        flash[here] = left.to_bytes(len(bits), "little")

    def _erase(self, sector: int) -> int:
        if not self._power():
            return 1
        count = len(self.sectors[sector])
        self.erased += 1
        if self._fails_now():
            garbage = int.from_bytes(self.sectors[sector], "little") ^ CUT.getrandbits(8 * count)
            self.sectors[sector][:] = garbage.to_bytes(count, "little")
            return 1
        self.sectors[sector][:] = b"\xff" * count
        return 0


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> ct.CDLL:
    """firmware/port/record.c, as boards have it."""
    made = tmp_path_factory.mktemp("saver") / "record.so"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(root() / "firmware/port/record.c"), "-o", str(made)], check=True)
    return ct.CDLL(str(made))


def saver_tasks(service: _Service, flash: Flash | None, wire: Any = None) -> tuple[Any, _Tasks, bool]:
    """A saver over this service: itself, its tasks, and whether it brought a model up."""
    lib, saver = library(), ct.create_string_buffer(SAVER_BYTES)
    areas = None if flash is None else ct.byref(flash.areas)
    found = lib.ft_saver_start(saver, ct.byref(service), wire, areas)
    return saver, lib.ft_saver_tasks(saver), bool(found)


class Service:
    """A node's tasks without the wire: a start, and what it does until power fails."""

    def __init__(self, flash: Flash, memory: int = 1 << 18) -> None:
        self._memory, self._flash = (ct.c_uint64 * (memory // 8))(), flash  # as long as the node lives
        self.service = _Service()
        library().ft_service_start(self.service, self._memory, memory, None)
        self._saver, self._tasks, self.found = saver_tasks(self.service, flash)

    def do(self, task: Task, round_number: int) -> None:
        key = id(task), round_number
        if key not in JOBS:  # the task is kept too, so that its id stays its own
            JOBS[key] = task, Packer(run=b"a run...", round_number=round_number, limit_s=1).jobs(task, 1 << 20)
        for job in JOBS[key][1]:
            assert self._do(job) == 0

    def _do(self, job: Job) -> int:
        told, reply, counts = _Task(round=job.round, kind=job.kind), _Reply(), _Counts()
        told.run[:] = job.run
        cbor = _cbor(job.parameters)
        told.parameter_bytes, told.object_count = len(cbor), len(job.objects)
        told.parameters[: len(cbor)] = cbor
        for i, payload in enumerate(job.objects):
            ref = payload.ref
            told.objects[i].ref = _Ref(ref.kind, (U8 * 16)(*ref.hash), ref.length)
            have = ct.c_bool(False)
            at = self._tasks.place(self._tasks.ctx, told, i, have, reply)
            assert at, reply.status
            told.objects[i].at = at
            if not have:
                ct.memmove(at, payload.data, len(payload.data))
        self._tasks.work(self._tasks.ctx, told, counts, 1, reply)
        return int(reply.status)

    @property
    def state(self) -> tuple[Any, ...]:
        """All that inference depends on; nothing where there is no model."""
        lib, node = library(), self.service.node
        if not node:
            return ()
        values, stats = np.empty(count(node, "value"), np.float32), np.empty(count(node, "stat"), np.float32)
        assert lib.ft_get_values(PTR(node), values.ctypes.data_as(PTR), values.size) == 0
        assert lib.ft_get_stats(PTR(node), stats.ctypes.data_as(PTR), stats.size) == 0
        bitmaps = tuple(mask_of(node, layer) for layer in range(count(node, "layer")))
        return bytes(self.service.model), bitmaps, values.tobytes(), stats.tobytes()


def _cbor(parameters: Sequence[int | float]) -> bytes:
    from fedtiny.link.messages import Task as Message
    from fedtiny.link.messages import encode

    if not parameters:
        return b""
    whole = encode(Message(0, bytes(8), 0, 0, TaskKind.LOAD, tuple(parameters), None))
    return whole[whole.index(bytes((4, TaskKind.LOAD, 5))) + 3 :]


def count(node: int, what: str) -> int:
    return int(getattr(library(), f"ft_{what}_count")(PTR(node)))


def mask_of(node: int, layer: int) -> bytes:
    """Empty: the layer is dense."""
    needed = U32(0)
    if library().ft_get_mask(PTR(node), layer, None, 0, ct.byref(needed)) != 4:
        return b""
    bitmap = ct.create_string_buffer(needed.value)
    assert library().ft_get_mask(PTR(node), layer, bitmap, needed.value, ct.byref(needed)) == 0
    return bitmap.raw


@cache
def load(seed: int = 0, micro_batch: int = 4) -> Load:
    model = runs.model()
    return Load(blob=write_blob(model.graph, model.arrays, masks(model.graph, seed)), micro_batch=micro_batch)


TRAIN = Train(epochs=1, lr=0.1, momentum=0.5, weight_decay=0, seed=3)


install = cache(make_install)


@cache
def put_data() -> PutData:
    x, y = runs.samples(12, seed=1)
    return PutData(x=x, y=y, dev_count=2)


# -- power that fails


def cuts(flash: Flash, do: Callable[[], None], check: Callable[[bool], None]) -> int:
    """Does this with power for 0, 1, 2, ... operations, each time from the same flash; returns how often power failed.

    check: told whether all could be done, after the power is back.
    """
    before, tried = flash.copy(), 0
    while True:
        flash.sectors, flash.done, flash.operations = [bytearray(sector) for sector in before], 0, tried
        do()
        whole = flash.done <= tried
        flash.operations = None
        check(whole)
        if whole:
            return tried
        tried += 1


def told(outcome: Outcome, what: str, tried: int) -> None:
    print(f"{what}: power lost at {tried} operations")
    outcome(
        "power lost at every flash operation",
        end="node",
        tried=tried,
        what=f"cuts, at each word and erasure of {what}",
        result="the old state or the new one",
    )


class FlashNode(CNode):
    """The wire's node with its record in flash."""

    def __init__(self, flash: Flash, records: ct.CDLL) -> None:
        self._flash, self._records = flash, records
        super().__init__("new", key=None)

    def _load(self, _: None, to: Any) -> int:
        return int(self._records.record_load(ct.byref(self._flash.record), to, 72) != 72)

    def _store(self, _: None, data: Any) -> int:
        return int(self._records.record_save(ct.byref(self._flash.record), data, 72))

    @property
    def kept(self) -> bytes:
        data = ct.create_string_buffer(72)
        assert self._load(None, data) == 0
        return data.raw


def test_power_lost_at_every_operation_of_enrolment_leaves_no_key_or_the_whole_key(
    records: ct.CDLL, outcome: Outcome
) -> None:
    key, flash, seen = bytes(range(100, 132)), Flash(), set()
    assert FlashNode(flash, records).status == 0

    def enrol() -> None:
        node = FlashNode(flash, records)
        if node.status:
            return
        host = endpoint(key=key)
        line = MemoryWire(host, node)
        host.link_up(0.0)
        ticket = host.enrol(key, line.now)
        line.run(lambda: ticket.done, 20)

    def check(whole: bool) -> None:
        before = make_record("new", None, 2), make_record("new", None, 3), make_record("n1", key, 3)
        again = FlashNode(flash, records)
        assert again.status == 0
        boots = int.from_bytes(again.kept[4:8], "little") - 1  # this start counted too
        assert again.kept[:4] + (boots).to_bytes(4, "little") + again.kept[8:] in before
        found = again.kept[8:40] if again.kept[1] else None
        seen.add(found)
        assert not whole or found == key

    tried = cuts(flash, enrol, check)
    assert seen == {None, key}
    assert tried == 2 * SLOT // WORD + 1  # a start and a key, an erasure between them
    told(outcome, "enrolment", tried)


@cache
def life(until: str) -> list[tuple[Task, int]]:
    """The tasks of a run with their rounds, up to and with what `until` names."""
    if not until:
        return []
    loaded = [(put_data(), 0), (load(0), 0)]
    first: list[tuple[Task, int]] = [*loaded, (install(1), 1), (TRAIN, 1)]
    second: list[tuple[Task, int]] = [*first, (install(2), 2), (TRAIN, 2)]
    return {"load": loaded, "round 1": first, "round 2": second, "another load": [*second, (load(1), 3)]}[until]


def after(flash: Flash, until: str) -> Service:
    node = Service(flash)
    for task, number in life(until):
        node.do(task, number)
    return node


@pytest.mark.parametrize(
    ("before", "step", "what"),
    [
        ("", "load", "storing a model"),
        ("round 2", "another load", "storing a model"),
        ("round 1", "round 2", "finishing a round"),
    ],
)
def test_power_lost_at_every_operation_of_a_save_leaves_the_old_model_or_the_new_one(
    before: str, step: str, what: str, outcome: Outcome
) -> None:
    """And whatever garbage it left, the next save succeeds."""
    flash = Flash()
    after(flash, before)
    complete = Flash()
    after(complete, step)
    old, new, seen = Service(flash).state, Service(complete).state, Counter[Any]()
    assert bool(old) == bool(before)
    task, number = [(task, number) for task, number in life(step) if not isinstance(task, Train)][-1]

    def check(whole: bool) -> None:
        again = Service(flash)
        assert again.state in (old, new)
        assert again.state == new or not whole
        seen[again.state] += 1
        if seen.total() % 16 == 0:
            again.do(load(2), 9)
            state = again.state
            assert Service(flash).state == state not in (old, new)

    tried = cuts(flash, lambda: Service(flash).do(task, number), check)
    assert seen.keys() == {old, new}
    told(outcome, what, tried)


# -- what is saved, and how often


class MemoryFleet:
    """Nodes in C with storage, each behind a line in memory; notes the round of every erasure."""

    name = "memory"

    def __init__(self, names: Sequence[str]) -> None:
        self.flash = {name: Flash() for name in names}
        self.saves: dict[str, list[int]] = {name: [] for name in names}
        self._lines = {name: self._start(name) for name in names}

    def _start(self, name: str) -> MemoryWire:
        host = endpoint(boot=0)
        line = MemoryWire(host, CNode("n1", work=None, areas=self.flash[name].areas))
        host.link_up(0.0)
        return line

    def restart(self, name: str) -> None:
        self._lines[name] = self._start(name)

    def host(self, name: str) -> Endpoint:
        host = self._lines[name].host
        assert isinstance(host, Endpoint)
        return host

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self.flash)

    def ask(
        self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0
    ) -> Iterator[tuple[str, tuple[Reply, ...]]]:
        for name, tasks in orders.items():
            replies = []
            for task in tasks:
                erased = self.flash[name].erased
                jobs = Packer(run=b"the run.", round_number=round_number, limit_s=9).jobs(task, 1 << 20)
                answers = [ask(self._lines[name], job) for job in jobs]
                assert [(a.status, a.problem) for a in answers] == [(0, "")] * len(answers)
                hello = self.host(name).hello
                assert hello is not None
                replies.append(reply_of(task, answers, replace(hello, board="native")))
                self.saves[name] += [round_number] * (self.flash[name].erased - erased)
            yield name, tuple(replies)

    def link_bytes(self) -> dict[str, LinkBytes]:
        return {}

    def links(self) -> dict[str, NodeLink]:
        return {}

    def close(self) -> None: ...


def test_a_run_saves_at_most_once_a_round_and_ends_with_its_last_model() -> None:
    """FedTiny with a mask change in every round and statistics measured: two models come down in some rounds."""
    fleet, shards = MemoryFleet(("n1", "n2")), list(runs.shards(2).values())
    native = NativeFleet(("n1", "n2"))
    for each in (fleet, native):
        list(each.ask({name: [shard] for name, shard in zip(each.nodes, shards, strict=True)}))
    server = runs.server(fleet)  # type: ignore[arg-type]
    assert run_of(server) == run_of(runs.server(native))
    last = server.round
    list(fleet.ask({name: [Report()] for name in fleet.nodes}))  # as every run does at its end
    for name, saves in fleet.saves.items():
        print(f"{name}: {len(saves)} saves in {last} rounds, of rounds {saves}")
        flash = fleet.flash[name]
        assert saves[0] == 0, "the model as it came"
        assert saves[1:-1] == list(range(1, last + 1)) or saves[1:] == [*range(1, last + 1), 0]
        assert flash.erased == len(saves)
        programmed = [at for _, at, _ in flash.written if at == 0]
        assert len(programmed) == len(saves), "each slot is written once for an erasure"
        found = Service(flash)
        assert found.found
        expected = Service(Flash())
        expected.do(load_of(server), 0)
        assert found.state[1:3] == expected.state[1:3]  # masks and values: those of the run


def load_of(server: Any) -> Load:
    model = server.model
    return Load(blob=write_blob(model.graph, model.arrays, server.masks), micro_batch=4)


def test_a_node_that_was_reset_asks_for_its_samples_and_not_for_its_model() -> None:
    fleet, shard = MemoryFleet(("n1",)), next(iter(runs.shards(1).values()))
    tasks: list[Task] = [shard, load(0), install(1), TRAIN]
    (_, first), = fleet.ask({"n1": tasks}, round_number=1)  # fmt: skip
    assert fleet.host("n1").traffic.down_frames["data.model"] > 0
    fleet.restart("n1")
    (_, again), = fleet.ask({"n1": tasks}, round_number=1)  # fmt: skip
    assert fleet.host("n1").traffic.down_frames["data.model"] == 0
    assert fleet.host("n1").traffic.down_frames["data.samples"] > 0
    assert again[-1].values.tobytes() == first[-1].values.tobytes()  # type: ignore[union-attr]
    assert fleet.saves["n1"] == [1], "what comes second in a round waits for the next one"
    list(fleet.ask({"n1": [Report()]}, round_number=2))
    assert fleet.saves["n1"] == [1], "the values that it has now are its own"
    list(fleet.ask({"n1": [install(1)]}, round_number=2))
    assert fleet.saves["n1"] == [1, 2]


def test_settings_of_a_load_are_saved_with_the_model() -> None:
    flash = Flash()
    node = Service(flash)
    node.do(load(0, micro_batch=2), 0)
    planned = library().ft_memory_of
    planned.restype = ct.POINTER(U32)
    before = planned(PTR(node.service.node))[0:14]
    again = Service(flash)
    assert again.found
    assert planned(PTR(again.service.node))[0:14] == before
    again.do(load(0, micro_batch=4), 1)
    assert planned(PTR(again.service.node))[0:14] != before
    assert planned(PTR(Service(flash).service.node))[0:14] == planned(PTR(again.service.node))[0:14]


def test_a_model_that_fits_no_slot_is_used_and_not_kept_and_the_log_says_why() -> None:
    flash = Flash(slot_bytes=1024)
    host, lines = endpoint(boot=0), list[str]()
    host._on_log = lines.append
    line = MemoryWire(host, CNode("n1", work=None, areas=flash.areas))
    host.link_up(0.0)
    for task in (put_data(), load(0), install(1), TRAIN):
        for job in Packer(run=b"the run.", round_number=1, limit_s=9).jobs(task, 1 << 20):
            assert ask(line, job).status == 0
    assert (flash.erased, flash.written) == (0, [])
    (text,) = lines
    assert re.fullmatch(r"this model is not kept over a reset: it takes \d{4} bytes, a slot of storage has 1024", text)


def test_storage_that_fails_costs_the_saved_model_and_nothing_else() -> None:
    flash = Flash()
    flash.operations = 0
    node = Service(flash)
    node.do(put_data(), 0)
    node.do(load(0), 0)
    node.do(TRAIN, 1)
    flash.operations = None
    assert not Service(flash).found


def test_a_saved_model_does_not_keep_the_next_runs_samples_out() -> None:
    """Memory for the old model or the new samples, not both: the samples come, and then the new model."""
    flash = Flash()
    Service(flash).do(load(0), 0)
    x, y = runs.samples(64, seed=1)
    samples = PutData(x=x, y=y, dev_count=2)
    tight = 4 * x.size + 2 * len(y) + 12_000
    node = Service(flash, memory=tight + 60_000 & ~7)
    assert node.found
    small = Service(flash, memory=tight & ~7)
    small.do(samples, 0)
    assert not small.service.node
    node.do(samples, 0)
    node.do(load(0, micro_batch=1), 0)
    node.do(TRAIN, 1)


def test_samples_that_fit_in_no_case_do_not_end_the_model_that_runs() -> None:
    flash = Flash()
    node = CNode(work=None, memory=1 << 16, areas=flash.areas)
    line = MemoryWire(endpoint(), node)
    line.host.link_up(0.0)
    packer = Packer(run=b"the run.", round_number=1, limit_s=9)
    for job in packer.jobs(load(0), 1 << 20):
        assert ask(line, job).status == 0
    x, y = runs.samples(128, seed=1)
    (too_many,) = packer.jobs(PutData(x=x, y=y, dev_count=2), 1 << 20)
    assert too_many.objects[0].ref.length > 1 << 16
    answer = ask(line, too_many)
    assert "bytes wanted" in answer.problem
    for job in packer.jobs(install(1), 1 << 20):
        assert ask(line, job).status == 0


def test_parameters_that_no_slot_has_room_for_are_not_kept_and_written_nowhere() -> None:
    """Of an application's own tasks: the service takes no LOAD with so many."""
    flash, tasks, work = Flash(), 3 * ct.sizeof(PTR), WORK(lambda *_: None)
    node = Service(flash)
    node.do(load(0), 0)
    erased = flash.erased
    _Tasks.from_buffer(node._saver, tasks).work = work
    task, reply = _Task(kind=TaskKind.LOAD, round=3, parameter_bytes=128, object_count=1), _Reply()
    task.parameters[:] = b"\xee" * 128
    node._tasks.work(node._tasks.ctx, task, _Counts(), 1, reply)
    assert b"\xee" * 8 not in node._saver.raw[tasks + ct.sizeof(_Tasks) :]
    task.kind = TaskKind.INSTALL
    node._tasks.work(node._tasks.ctx, task, _Counts(), 1, reply)
    assert flash.erased == erased


@pytest.mark.parametrize("damage", ["nothing", "the newer", "both"])
def test_a_slot_that_no_longer_is_what_was_written_does_not_count(damage: str) -> None:
    flash, rng = Flash(), np.random.default_rng(1)
    node = Service(flash)
    states = []
    for number in (1, 2):
        node.do(load(number), number)
        states.append(node.state)
    slots = {"nothing": [], "the newer": [3], "both": [2, 3]}[damage]
    used = max(at + size for _, at, size in flash.written)
    for at in rng.integers(0, used, 30 if slots else 1):
        before = flash.copy()
        for slot in slots:
            flash.sectors[slot][at] ^= 1 << int(rng.integers(8))
        assert Service(flash).state == {"nothing": states[1], "the newer": states[0], "both": ()}[damage]
        flash.sectors = before


def test_the_slot_is_laid_out_as_the_header_says() -> None:
    flash = Flash()
    node, task = Service(flash), install(2)
    node.do(load(0), 3)
    node.do(task, 4)
    slot, words = flash.sectors[3], lambda at, n: np.frombuffer(flash.sectors[3], "<u4", n, at).tolist()
    assert slot[:4] == b"FTMD"
    assert (words(4, 1), slot[8:16], words(16, 1)) == ([2], b"a run...", [4])
    model, bitmaps, values, statistics = words(20, 4)
    assert model == len(load(0).blob)
    assert slot[40:56] == Packer(run=bytes(8), round_number=0, limit_s=1).jobs(load(0), 0)[0].objects[0].ref.hash
    assert slot[36] == len(_cbor(Packer(run=bytes(8), round_number=0, limit_s=1).jobs(load(0), 0)[0].parameters))
    at = 112
    assert slot[at : at + model] == load(0).blob
    at += model + 7 & ~7
    for layer in task.masks:
        assert slot[at : at + 4] == bytes((layer, 0, 1, 0))
        assert slot[at + 4 : at + 8] == len(mask_of(node.service.node, layer)).to_bytes(4, "little")
        at += 8 + len(mask_of(node.service.node, layer))
    at = 112 + (model + 7 & ~7) + (bitmaps + 7 & ~7)
    assert slot[at : at + values] == bytes(4) + np.asarray(task.values, "<f4").tobytes()
    at += values + 7 & ~7
    assert slot[at : at + statistics] == bytes(4) + np.asarray(task.stats, "<f4").tobytes()
    at += statistics + 7 & ~7
    crc = zlib.crc32(slot[:at])
    assert words(at, 2) == [crc, ~crc & 0xFFFFFFFF]


# -- whose it is


def started(flash: Flash, samples: SampleFlash, record: bytes) -> CNode:
    return CNode(work=None, record=record, plain=True, areas=flash.areas, storage=samples)


def lent(node: CNode, *jobs: Job, key: bytes | None) -> None:
    host = endpoint(key=key, profile=Profile.PSK if key else Profile.PLAIN)
    line = MemoryWire(host, node)
    host.link_up(0.0)
    for job in jobs:
        assert ask(line, job).status == 0


def learned(node: CNode, key: bytes | None) -> None:
    packer = Packer(run=b"the run.", round_number=1, limit_s=9)
    lent(node, *(job for task in (put_data(), load(0)) for job in packer.jobs(task, 1 << 20)), key=key)


@pytest.mark.parametrize("enrolled_anew", [False, True], ids=["without a key", "with another key"])
def test_a_node_that_forgot_its_key_keeps_nothing_of_its_former_owner_over_a_start(enrolled_anew: bool) -> None:
    key, flash, samples = bytes(range(32)), Flash(), SampleFlash(8192)
    node = started(flash, samples, make_record("n1", key, 1))
    learned(node, key)
    again = started(flash, samples, node.record)
    assert again._service.node, "the owner's own start has the model"
    learned(again, key)
    lent(again, Job(TaskKind.FORGET), key=key)
    assert again.key is None
    assert any(byte != 0xFF for byte in samples.bytes)
    record = make_record("n2", bytes(range(50, 82)), 9) if enrolled_anew else again.record
    after = started(flash, samples, record)
    assert not after._service.node
    assert b"FTMD" not in bytes(flash.sectors[2] + flash.sectors[3])
    assert set(samples.bytes) == {0xFF}
    done = flash.erased, samples.erased
    assert not started(flash, samples, after.record)._service.node
    assert (flash.erased, samples.erased) == done, "no start erases what is erased"


def test_a_node_that_never_had_a_key_keeps_its_model_until_it_is_enrolled() -> None:
    flash, samples = Flash(), SampleFlash(8192)
    node = started(flash, samples, make_record("n1", None, 1))
    learned(node, None)
    again = started(flash, samples, node.record)
    assert again._service.node
    assert not started(flash, samples, make_record("n1", bytes(range(32)), 9))._service.node
