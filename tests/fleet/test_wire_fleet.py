"""Whole runs over links: the model of the run in this process, bit for bit, whatever happens to nodes and lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fedtiny.federation.server import Server
from fedtiny.federation.tasks import Install, Load, NodeFailure, Report, Score, Task, Train
from fedtiny.fleet.keys import Device
from fedtiny.fleet.native import NativeFleet
from fedtiny.fleet.roster import Roster, read_roster
from fedtiny.fleet.wire import Held, WireFleet
from fedtiny.link import endpoint
from fedtiny_export.errors import ConfigError

from ..host import runs
from .fleets import Lab

KEY = bytes(range(32))
SHARDS = runs.shards(4)


def enrolled(lab: Lab) -> Roster:
    """As if each node had been enrolled before."""
    roster = read_roster(lab.file)
    for name in lab.names:
        roster.keys[name] = Device(key=KEY, state="enrolled")
        if not lab.record(name).exists():
            lab.record(name).write_text(json.dumps({"key": KEY.hex()}))
    roster.keys.save()
    return roster


def put_data(fleet: Any) -> None:
    shards = dict(zip(fleet.nodes, SHARDS.values(), strict=True))
    answers = dict(fleet.ask({node: [shards[node]] for node in fleet.nodes}))
    assert not any(isinstance(answer, NodeFailure) for answer in answers.values()), answers


def outcome(server: Server) -> list[Any]:
    """All rounds, and the numbers that come of them."""
    records = [(r.train_loss, r.densities, r.participants) for r in server.rounds()]
    return [records[-1][:2], {name: array.tobytes() for name, array in server.model.arrays.items()}]


@pytest.fixture(scope="module")
def in_process() -> list[Any]:
    fleet = NativeFleet([f"n{k}" for k in range(1, 5)])
    put_data(fleet)
    return outcome(runs.server(fleet))


@pytest.fixture
def fleet(lab: Lab) -> Iterator[WireFleet]:
    opened = WireFleet(enrolled(lab))
    yield opened
    opened.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal counts after half a second instead of five in which the genuine node may answer."""
    monkeypatch.setattr(endpoint, "REFUSED_S", 0.5)


def pids(lab: Lab, name: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"tests.link.core_node {name} {lab.folder}"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_a_run_over_programs_ends_with_the_model_of_the_run_in_process(
    lab: Lab, fleet: WireFleet, in_process: list[Any]
) -> None:
    put_data(fleet)
    server = runs.server(fleet)
    assert outcome(server) == in_process
    counted = fleet.link_bytes()
    for name, both in counted.items():
        traffic = fleet.traffic()[name]
        assert sum(both.down.values()) == traffic.down_bytes
        assert sum(both.up.values()) == traffic.up_bytes
        assert {"data", "model", "values", "mask", "candidates", "control"} <= both.down.keys()
        assert {"values", "moments", "topk", "candidates", "control"} <= both.up.keys()
    payload = server.traffic
    links = sum(sum(b.down.values()) - b.down["data"] + sum(b.up.values()) for b in counted.values())
    assert payload.down + payload.up < links < 1.5 * (payload.down + payload.up)
    assert server.traffic.link == counted
    assert 0 < payload.mask_entropy < payload.mask_bytes <= 1.25 * payload.mask_entropy + 2 * 4 * 4 * 3


class Killing:
    """A fleet that kills a node's program once, when it is asked for the n-th time; before or while it works."""

    def __init__(self, fleet: WireFleet, lab: Lab, victim: str, at: int, after_s: float) -> None:
        self._fleet, self._lab, self._victim, self._at, self._after = fleet, lab, victim, at, after_s
        self._calls = 0
        self.killed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fleet, name)

    def ask(self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0) -> Iterator[Any]:
        self._calls += 1
        answers = self._fleet.ask(orders, round_number=round_number)
        if self._calls != self._at:
            yield from answers
            return
        import threading

        threading.Timer(self._after, self._kill).start()
        yield from answers

    def _kill(self) -> None:
        for pid in pids(self._lab, self._victim):
            os.kill(pid, signal.SIGKILL)
            self.killed += 1


@pytest.mark.parametrize(("at", "after_s"), [(1, 0.0), (2, 0.0), (4, 0.0), (5, 0.02), (7, 0.01)])
def test_a_node_that_is_killed_and_comes_back_costs_no_bit(
    lab: Lab, fleet: WireFleet, in_process: list[Any], at: int, after_s: float
) -> None:
    put_data(fleet)
    killing = Killing(fleet, lab, "n2", at, after_s)
    assert outcome(runs.server(killing)) == in_process
    assert killing.killed == 1
    assert fleet.traffic()["n2"].sessions == 2


def test_a_node_that_is_gone_is_named_and_the_quorum_goes_on(lab: Lab) -> None:
    lab.head = "patience_s = 1.5\n"
    lab.write()
    fleet = WireFleet(enrolled(lab))
    try:
        put_data(fleet)
        for pid in pids(lab, "n3"):
            os.kill(pid, signal.SIGSTOP)
        server = runs.server(fleet, rounds=1)
        (record,) = list(server.rounds())
        assert record.participants == ("n1", "n2", "n4")
        assert {f.node for f in record.failures} == {"n3"}
        assert "no answer on process:" in record.failures[0].reason
        assert "Is it powered" in record.failures[0].reason
    finally:
        for pid in pids(lab, "n3"):
            os.kill(pid, signal.SIGKILL)
        fleet.close()


def test_a_program_that_cannot_start_fails_alone(lab: Lab) -> None:
    lab.links = {"n2": "process:/no/such/node"}
    lab.write()
    fleet = WireFleet(enrolled(lab))
    try:
        answers = dict(fleet.ask({name: [Report()] for name in lab.names}))
        assert isinstance(answers["n2"], NodeFailure)
        assert answers["n2"].reason.startswith("/no/such/node: cannot be started")
        assert not any(isinstance(answers[name], NodeFailure) for name in ("n1", "n3", "n4"))
    finally:
        fleet.close()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"key": "11" * 32}, "it does not have the key that is on file for it. Another device may use its name"),
        ({"version": 2}, "it speaks versions 2 to 2 of the protocol, this fedtiny version 1. Flash firmware of this"),
        (
            {"incompat": 4},
            "its firmware asks for features 0x4 that this fedtiny does not have. Update fedtiny",
        ),
        ({"key": None}, "it has no key yet. Give it one: fedtiny fleet enrol"),
    ],
)
def test_a_node_that_may_not_join_is_refused_with_what_to_do(
    lab: Lab, record: dict[str, Any], message: str, soon: None
) -> None:
    lab.names = ("n1", "n2")
    lab.write().record("n2").write_text(json.dumps({"key": KEY.hex()} | record))
    fleet = WireFleet(enrolled(lab))
    try:
        answers = dict(fleet.ask({name: [Report()] for name in lab.names}))
        assert not isinstance(answers["n1"], NodeFailure)
        assert isinstance(answers["n2"], NodeFailure)
        assert message in answers["n2"].reason
    finally:
        fleet.close()


def test_a_boot_counter_that_went_back_is_refused_after_the_host_was_started_anew(lab: Lab, soon: None) -> None:
    lab.names = ("n1",)
    lab.write()
    for boot, good in ((5, True), (5, True), (2, False)):  # each start adds one
        lab.record("n1").write_text(json.dumps({"key": KEY.hex(), "boot": boot}))
        roster = read_roster(lab.file)
        if roster.keys["n1"].key is None:
            enrolled(lab)
            roster = read_roster(lab.file)
        fleet = WireFleet(roster)
        try:
            ((_, answer),) = fleet.ask({"n1": [Report()]})
        finally:
            fleet.close()
        assert isinstance(answer, NodeFailure) != good
    assert isinstance(answer, NodeFailure)
    assert "its boot counter went back from 6 to 3. A copy of the device" in answer.reason


def test_a_node_without_a_key_is_refused_before_any_link_opens(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="n1: it has no key on file"):
        WireFleet(read_roster(lab.file))
    assert not lab.record("n1").exists()


def test_a_stopped_asker_leaves_a_fleet_that_can_be_asked_again(fleet: WireFleet) -> None:
    put_data(fleet)
    answers = fleet.ask({name: [Report()] for name in fleet.nodes})
    next(iter(answers))
    answers.close()  # type: ignore[attr-defined]
    assert len(dict(fleet.ask({name: [Report()] for name in fleet.nodes}))) == 4


def load(blob: bytes = b"") -> Load:
    return Load(blob=blob, micro_batch=4)


def install(value: float, **masks: Any) -> Install:
    return Install(values=np.full(3, value, np.float32), masks=masks)


def test_what_a_node_must_be_sent_again_is_the_least_that_brings_it_back() -> None:
    data = SHARDS["n0"]
    train = Train(epochs=1, lr=1, momentum=0, weight_decay=0, seed=1)
    score = Score(k={1: 2}, batches=1, seed=1)
    held = Held()
    for task in (data, load(), install(1, a="A", b="B"), train, install(2, b="C"), train, score):
        held = held.after(task)
    samples, model, installed, trained = held.before(score)
    assert (samples, model, trained) == (data, held.load, train)
    assert isinstance(installed, Install)
    assert installed.masks == {"a": "A", "b": "C"}
    assert installed.values[0] == 2
    assert held.before(load()) == [data]
    assert held.before(data) == []
    assert held.before(install(3)) == [data, model, installed]
    assert held.after(load(b"x")).before(score) == [data, load(b"x")]
