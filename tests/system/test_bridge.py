"""`fedtiny bridge`: nodes on cables join a run through a broker with TLS, passwords and an ACL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedtiny.fleet.roster import read_roster
from fedtiny.fleet.wire import WireFleet

from ..fleet.fleets import Lab, environment
from ..link.brokers import HAVE_MOSQUITTO, Mosquitto
from .conftest import Fedtiny

pytestmark = pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")

RUN = ("board-mini", "--rounds", "2", "--json")


class Bridge:
    """The command in a process of its own; `said`: its lines so far."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-m", "fedtiny", "bridge", str(file)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=file.parent)
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.strip())

    def wait_for(self, text: str, limit_s: float = 20.0) -> None:
        until(lambda: any(text in line for line in self.said), limit_s, lambda: f"{text!r} in {self.said}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


def until(true: Callable[[], bool], limit_s: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lab, Mosquitto, Path]]:
    """Two nodes on cables with a broker in the fleet file; and the file of the host, which knows their topics."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    mosquitto = Mosquitto(tmp_path / "broker", {"host": "h0st", "n1": "n0de", "n2": "n0de"})
    mosquitto.start()
    (tmp_path / "host.password").write_text("h0st\n")
    (tmp_path / "node.password").write_text("n0de\n")
    broker = f'[broker]\nhost = "localhost"\nport = {mosquitto.port}\nca_file = "{mosquitto.folder}/authority.crt"\n'
    head = 'name = "lab"\npatience_s = 15\nkeys = "../lab.keys"\n' + broker
    cables = Lab(tmp_path / "lab", ("n1", "n2"), head.replace("../", ""))
    cables.head += 'password_file = "../node.password"\n'
    cables.write().enrolled().keys.save()
    host = tmp_path / "host.toml"
    head = head.replace("../lab.keys", "lab/lab.keys") + 'user = "host"\npassword_file = "host.password"\n'
    host.write_text(head + "".join(f'[nodes.{name}]\nlink = "mqtt:{name}"\n' for name in cables.names))
    yield cables, mosquitto, host
    mosquitto.kill()


def test_boards_on_cables_join_a_run_through_the_broker(fedtiny: Fedtiny, lab: tuple[Lab, Mosquitto, Path]) -> None:
    cables, _, host = lab
    bridge = Bridge(cables.file)
    try:
        bridge.wait_for("n2: here, on process:fedtiny-node")
        done = fedtiny("run", *RUN, "--fleet", str(host))
        assert done.code == 0, done.err
        result = json.loads(done.out)
        assert not result["failures"]
        assert [node["link"] for node in result["nodes_report"]] == ["mqtt:n1", "mqtt:n2"]
        assert result["model_sha256"] == json.loads(fedtiny("run", *RUN).out)["model_sha256"]
    finally:
        code = bridge.end()
    assert code == 0
    assert states(host) == {"n1": "offline", "n2": "offline"}


def states(host: Path) -> dict[str, str]:
    """What the broker keeps of each board."""
    fleet = WireFleet(read_roster(host), patience_s=0.5)
    try:
        fleet.hellos()
        assert fleet._broker is not None
        return {name: fleet._broker.states[name] for name in fleet.nodes}
    finally:
        fleet.close()


def test_a_board_that_is_lost_a_bridge_that_is_killed_and_what_comes_back_are_told_by_state(
    lab: tuple[Lab, Mosquitto, Path],
) -> None:
    cables, mosquitto, host = lab
    bridge = Bridge(cables.file)
    bridge.wait_for("n2: here, on")
    fleet = WireFleet(read_roster(host))
    try:
        assert fleet._broker is not None
        states = fleet._broker.states
        until(lambda: (states.get("n1"), states.get("n2")) == ("online", "online"), 10, lambda: str(states))
        assert all(not isinstance(hello, Exception) for hello in fleet.hellos().values())
        heard: list[tuple[str, str]] = []
        fleet._broker._on_state = lambda *state: heard.append(state)
        os.kill(cables.pid("n1"), signal.SIGKILL)
        until(lambda: ("n1", "lost") in heard and states["n1"] == "online", 10, lambda: str(heard))
        until(lambda: fleet.traffic()["n1"].sessions == 2, 10, lambda: str(fleet.traffic()["n1"].sessions))
        mosquitto.kill()
        mosquitto.start()
        until(lambda: heard.count(("n2", "online")) >= 1, 10, lambda: str(heard))
        assert all(not isinstance(hello, Exception) for hello in fleet.hellos().values())
        bridge.process.kill()
        until(lambda: (states["n1"], states["n2"]) == ("lost", "lost"), 10, lambda: str(states))
    finally:
        fleet.close()
        bridge.end()


def test_a_bridge_that_cannot_log_in_says_which_board_and_what_to_do(
    fedtiny: Fedtiny, lab: tuple[Lab, Mosquitto, Path]
) -> None:
    cables, _, host = lab
    (host.parent / "node.password").write_text("wrong\n")
    refused = fedtiny("bridge", str(cables.file), "n1")
    assert refused.code == 2
    assert "n1: broker localhost:" in refused.err
    assert "it refused the user n1 or its password" in refused.err
    refused = fedtiny("bridge", str(host))
    assert refused.code == 2
    assert "no node of it is on a cable" in refused.err
