"""Whole runs over links: the model of the run in this process, bit for bit, whatever happens to nodes and lines."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtiny.federation.tasks import Install, Load, NodeFailure, Report, Score, Train
from fedtiny.fleet.manage import record as first_record
from fedtiny.fleet.native import NativeFleet
from fedtiny.fleet.roster import read_roster
from fedtiny.fleet.wire import WireFleet
from fedtiny.fleet.wirenode import Held
from fedtiny.link import endpoint
from fedtiny.pruning import FedAvg
from fedtiny_export.blob import write_blob
from fedtiny_export.errors import ConfigError

from ..conftest import Outcome
from ..host import runs
from .fleets import SHARDS, Lab, put_data, run_of


@pytest.fixture(scope="module")
def in_process() -> list[Any]:
    fleet = NativeFleet([f"n{k}" for k in range(1, 5)])
    put_data(fleet)
    return run_of(runs.server(fleet))


@pytest.fixture
def fleet(lab: Lab) -> Iterator[WireFleet]:
    opened = WireFleet(lab.enrolled())
    yield opened
    opened.close()


def told(outcome: Outcome, what: str, tried: int = 1) -> None:
    same = "the same model, bit for bit"
    outcome("FedTiny over programs, terminals and sockets", end="both", tried=tried, what=what, result=same)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal counts after half a second instead of five in which the genuine node may answer."""
    monkeypatch.setattr(endpoint, "REFUSED_S", 0.5)


def test_nodes_whose_memory_comes_in_pieces_train_the_same_model(lab: Lab, in_process: list[Any]) -> None:
    """The samples and what goes over the wire fit the piece; most of the arena does not."""
    lab.options = "--memory 60000 --bank 16384 --bank 98304"
    fleet = WireFleet(lab.write().enrolled())
    try:
        put_data(fleet)
        assert run_of(runs.server(fleet)) == in_process
    finally:
        fleet.close()


def test_a_run_over_programs_ends_with_the_model_of_the_run_in_process(
    lab: Lab, fleet: WireFleet, in_process: list[Any]
) -> None:
    put_data(fleet)
    server = runs.server(fleet)
    assert run_of(server) == in_process
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


@pytest.mark.parametrize("at", range(1, 42, 2))
def test_a_node_that_is_killed_anywhere_and_comes_back_costs_no_bit(
    lab: Lab, fleet: WireFleet, in_process: list[Any], at: int, outcome: Outcome
) -> None:
    """Its program dies just as the host hears its n-th piece after the samples; all of a run is some fifty."""
    put_data(fleet)
    connection = fleet._nodes["n2"].connection
    pid, pieces, hear = lab.pid("n2"), itertools.count(1), connection.data_received

    def hear_and_kill(data: bytes) -> None:
        if next(pieces) == at:
            os.kill(pid, signal.SIGKILL)
        hear(data)

    connection.data_received = hear_and_kill  # type: ignore[method-assign]
    server = runs.server(fleet)
    assert run_of(server) == in_process
    assert next(pieces) > at
    assert fleet.traffic()["n2"].sessions == 2
    assert lab.pid("n2") != pid
    told(outcome, "points where a node is killed")


@pytest.fixture
def servers(lab: Lab) -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that a test starts by itself."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for program in started:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


def start(lab: Lab, servers: list[subprocess.Popen[str]], name: str, *options: str) -> str:
    """Where the node can be reached, as it says."""
    command = ["fedtiny-node", "serve", str(lab.record(name)), *options]
    servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert servers[-1].stdout is not None
    return servers[-1].stdout.readline().strip()


def test_terminals_and_sockets_carry_the_same_run(
    lab: Lab, servers: list[subprocess.Popen[str]], in_process: list[Any], outcome: Outcome
) -> None:
    lab.enrolled()
    tcp = {name: start(lab, servers, name, "--tcp", "0") for name in ("n1", "n2")}
    pty = {name: start(lab, servers, name, "--pty") for name in ("n3", "n4")}
    lab.links = {name: f"tcp:{at}" for name, at in tcp.items()} | {name: f"pty:{at}" for name, at in pty.items()}
    fleet = WireFleet(read_roster(lab.write().file))
    try:
        put_data(fleet)
        assert run_of(runs.server(fleet)) == in_process
    finally:
        fleet.close()
    told(outcome, "run of 4 rounds")


def test_a_host_that_hangs_up_while_a_node_writes_does_not_end_the_node(
    lab: Lab, servers: list[subprocess.Popen[str]]
) -> None:
    start(lab, servers, "n1", "--tcp", "0")
    status = Path(f"/proc/{servers[0].pid}/status").read_text()
    ignored = int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16)
    assert ignored >> (signal.SIGPIPE - 1) & 1


class Cutting(threading.Thread):
    """A relay to a node that closes each connection after so many bytes."""

    def __init__(self, port: int, most: int) -> None:
        super().__init__(daemon=True)
        self._node, self._most = port, most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                host, _ = self._listener.accept()
                with contextlib.suppress(OSError):  # one of both ends was quicker
                    self._carry(host)
                self.cuts += 1

    def _carry(self, host: socket.socket) -> None:
        left = self._most
        with host, socket.create_connection(("127.0.0.1", self._node)) as node:
            while left > 0:
                for end in select.select([host, node], [], [])[0]:
                    data = end.recv(min(left, 4096))
                    if not data:
                        return
                    (node if end is host else host).sendall(data)
                    left -= len(data)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("most", [6_000, 17_001])
def test_a_line_that_is_cut_again_and_again_costs_no_bit(
    lab: Lab, servers: list[subprocess.Popen[str]], in_process: list[Any], most: int, outcome: Outcome
) -> None:
    lab.enrolled()
    relays = {n: Cutting(int(start(lab, servers, n, "--tcp", "0").rpartition(":")[2]), most) for n in lab.names}
    lab.links = {name: f"tcp:127.0.0.1:{relay.port}" for name, relay in relays.items()}
    fleet = WireFleet(read_roster(lab.write().file))
    try:
        put_data(fleet)
        assert run_of(runs.server(fleet)) == in_process
        sessions = {name: traffic.sessions for name, traffic in fleet.traffic().items()}
    finally:
        fleet.close()
        for relay in relays.values():
            relay.stop()
    assert all(sessions[name] > 3 for name in lab.names), sessions
    told(outcome, "times a line is cut", sum(sessions.values()) - len(sessions))


def test_a_node_that_is_gone_is_named_and_waited_for_once_and_joins_again(lab: Lab) -> None:
    fleet = WireFleet(lab.enrolled(), patience_s=6)
    try:
        put_data(fleet)
        os.kill(lab.pid("n3"), signal.SIGSTOP)
        rounds = runs.server(fleet, how=FedAvg(), rounds=3).rounds()
        first = next(rounds)
        assert first.participants == ("n1", "n2", "n4")
        assert {failure.node for failure in first.failures} == {"n3"}
        assert "no answer on process:" in first.failures[0].reason
        assert "Is it powered" in first.failures[0].reason
        begun = time.monotonic()
        assert next(rounds).participants == ("n1", "n2", "n4")
        assert time.monotonic() - begun < 6  # two questions, a second each
        os.kill(lab.pid("n3"), signal.SIGCONT)
        time.sleep(2.5)  # the host knocks every two seconds
        assert next(rounds).participants == ("n1", "n2", "n3", "n4")
    finally:
        os.kill(lab.pid("n3"), signal.SIGKILL)
        fleet.close()


def test_a_program_that_cannot_start_fails_alone(lab: Lab) -> None:
    lab.links = {"n2": "process:/no/such/node"}
    lab.write()
    fleet = WireFleet(lab.enrolled())
    try:
        answers = dict(fleet.ask({name: [Report()] for name in lab.names}))
        assert isinstance(answers["n2"], NodeFailure)
        assert answers["n2"].reason.startswith("/no/such/node: cannot be started")
        assert not any(isinstance(answers[name], NodeFailure) for name in ("n1", "n3", "n4"))
    finally:
        fleet.close()


def test_what_is_no_frame_goes_to_the_log_and_is_told_of_a_node_that_stays_silent(lab: Lab) -> None:
    lab.head = 'patience_s = 1.5\nlog = "lab.log"\n'
    lab.links = {
        "n1": f"process:sh -c 'echo ets Jun 8 2016; exec {lab.command('n1')}'",
        "n2": "process:sh -c 'echo Guru Meditation Error; exec sleep 30'",
    }
    lab.names = ("n1", "n2")
    lab.write()
    fleet = WireFleet(lab.enrolled())
    try:
        answers = dict(fleet.ask({name: [Report()] for name in lab.names}))
    finally:
        fleet.close()
    assert not isinstance(answers["n1"], NodeFailure)
    assert isinstance(answers["n2"], NodeFailure)
    assert answers["n2"].reason.endswith("It said last: Guru Meditation Error")
    assert "bytes that are no frames" in answers["n2"].reason
    logged = (lab.folder / "lab.log").read_text()
    assert " n1 ets Jun 8 2016\n" in logged
    assert " n2 Guru Meditation Error\n" in logged


def test_a_model_that_a_board_has_no_room_for_is_refused_in_the_cores_words(lab: Lab) -> None:
    lab.names, lab.options = ("n1",), "--memory 60000"
    lab.write()
    fleet = WireFleet(lab.enrolled())
    try:
        blob = write_blob(runs.model().graph, runs.model().arrays, {})
        ((_, answer),) = fleet.ask({"n1": [SHARDS["n0"], Load(blob=blob, micro_batch=8)]})
    finally:
        fleet.close()
    assert isinstance(answer, NodeFailure)
    assert answer.reason.startswith("it cannot do Load: the memory is too small (")
    assert re.search(r"\(\d+ bytes .*\d+ .*free", answer.reason)
    assert "Set fleet.ram_bytes to what is free: then it is said which settings make the model fit." in answer.reason


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"version": 2}, "it speaks versions 2 to 2 of the protocol, this fedtiny version 1. Flash firmware of this"),
        ({"incompat": 4}, "its firmware asks for features 0x4 that this fedtiny does not have. Update fedtiny"),
    ],
)
def test_firmware_of_another_protocol_is_refused_with_what_to_do(
    lab: Lab, record: dict[str, Any], message: str, soon: None
) -> None:
    lab.names = ("n1", "n2")
    lab.python_node("n2", **record)
    refused_alone(lab, "n2", message)


def test_a_wrong_key_or_a_stolen_name_is_refused_with_what_to_do(lab: Lab, soon: None) -> None:
    lab.names = ("n1", "n2")
    lab.write().record("n2").write_bytes(first_record("n2", bytes(32)))
    refused_alone(lab, "n2", "it does not have the key that is on file for it. Another device may use its name")


def test_a_device_without_a_key_is_refused_with_the_command_that_gives_it_one(lab: Lab, soon: None) -> None:
    lab.names, lab.options = ("n1", "n2"), "--device n2"
    lab.write().record("n2").write_bytes(b"")
    refused_alone(lab, "n2", "it has no key yet. Give it one: fedtiny fleet enrol")


def refused_alone(lab: Lab, name: str, message: str) -> None:
    fleet = WireFleet(lab.enrolled())
    try:
        answers = dict(fleet.ask({name: [Report()] for name in lab.names}))
        good, bad = answers["n1"], answers[name]
        assert not isinstance(good, NodeFailure)
        assert isinstance(bad, NodeFailure)
        assert message in bad.reason
    finally:
        fleet.close()


def test_a_copy_of_a_device_is_refused_by_its_boot_counter(lab: Lab, soon: None) -> None:
    """Its storage as it was one boot ago; the host was started anew in between."""
    lab.names = ("n1",)
    lab.write()
    lab.enrolled()
    copy = lab.record("n1").read_bytes()

    def answer() -> Any:
        fleet = WireFleet(read_roster(lab.file))
        try:
            return dict(fleet.ask({"n1": [Report()]}))["n1"]
        finally:
            fleet.close()

    assert not isinstance(answer(), NodeFailure)
    assert not isinstance(answer(), NodeFailure)
    lab.record("n1").write_bytes(copy)
    refused = answer()
    assert isinstance(refused, NodeFailure)
    assert (
        "its boot counter went back from 2 to 1. A copy of the device, or storage that was restored" in refused.reason
    )
    assert "If it is yours: fedtiny fleet enrol it anew" in refused.reason


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
