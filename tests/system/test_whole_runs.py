"""Whole runs over real carriers end with the model of the run in process, whatever dies on the way: boards in QEMU over
their UARTs, nodes behind a broker with TLS.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtiny.boards import load_board
from fedtiny.images import build_node
from tests.firmware.boards import need
from tests.fleet.fleets import Lab
from tests.link.brokers import HAVE_MOSQUITTO, Mosquitto, need_node
from tests.link.lesson import boots

from .conftest import Fedtiny, Outcome

BOARD = "qemu-netduinoplus2"
MINI = ("board-mini", "--json")
TEN = ("quick", "--rounds", "3", "-s", "pruning.delta_rounds=1", "-s", "fleet.nodes=10", "--json")
NAMES = tuple(f"n{number}" for number in range(1, 11))


def parsed(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def assert_same_run(over_links: dict[str, Any], in_process: dict[str, Any]) -> None:
    assert (over_links["fleet"], in_process["fleet"]) == ("wire", "native")
    assert over_links["model_sha256"] == in_process["model_sha256"]
    assert over_links["accuracy"] == in_process["accuracy"]
    assert over_links["bytes"]["up"] == in_process["bytes"]["up"]


class Disturbance(threading.Thread):
    """Does something in the middle of the run that goes on in the folder: 0.2 s after its first round."""

    def __init__(self, folder: Path, what: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._folder, self._what = folder, what
        self.done = False

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any(path.stat().st_size for path in self._folder.glob("runs/*/metrics.jsonl")):
                time.sleep(0.2)
                self._what()
                self.done = True
                return
            time.sleep(0.01)


def child_of_this_process(record: Path) -> int:
    """The emulator that a process: link started, by the record in its command."""
    done = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", str(record)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_node(need(load_board(BOARD)), tmp_path_factory.mktemp("image") / "node.elf")


@pytest.mark.parametrize("killed", [False, True], ids=["", "one killed"])
def test_two_boards_in_qemu_train_the_model_of_the_run_in_process(
    killed: bool, image: Path, fedtiny: Fedtiny, tmp_path: Path
) -> None:
    """STM32F405 firmware, 128 KiB of RAM, over USART 1, from its first start without a key; records in files."""
    lab = Lab(tmp_path / "lab", ("n1", "n2"), "patience_s = 60\n", dict.fromkeys(("n1", "n2"), f"qemu:{BOARD}:{image}"))
    lab.write()
    assert parsed(fedtiny("fleet", "enrol", str(lab.file), "--json"))["enrolled"] == ["n1", "n2"]
    kill = Disturbance(tmp_path, lambda: os.kill(child_of_this_process(lab.record("n1")), 9))
    if killed:
        kill.start()
    over_uart = parsed(fedtiny("run", *MINI, "--fleet", str(lab.file)))
    assert kill.done == killed
    assert [boots(lab.record(name)) for name in lab.names] == [2 + killed, 2]
    assert_same_run(over_uart, parsed(fedtiny("run", *MINI)))


class Behind:
    """A broker, and the program of each node of a lab behind it."""

    def __init__(self, folder: Path) -> None:
        self.mosquitto = Mosquitto(folder / "broker", {"host": "h0st", **dict.fromkeys(NAMES, "n0de")})
        head = (
            f'name = "lab"\n[broker]\nhost = "localhost"\nport = {self.mosquitto.port}\nuser = "host"\n'
            f'password_env = "BROKER_PASSWORD"\nca_file = "{self.mosquitto.folder}/authority.crt"\n'
        )
        self.lab = Lab(folder / "lab", NAMES, head, {name: f"mqtt:{name}" for name in NAMES})
        self.lab.write().enrolled()
        self._password = folder / "password"
        self._password.write_text("n0de\n")
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.mosquitto.start()
        for name in NAMES:
            self.start_node(name)

    def start_node(self, name: str) -> None:
        command = self.mosquitto.node_command(self.lab.record(name), self._password)
        self._running[name] = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def end_node(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        for name in list(self._running):
            self.end_node(name)
        self.mosquitto.kill()

    def lose_a_node(self) -> None:
        self.end_node("n3")
        self.start_node("n3")

    def lose_the_broker(self) -> None:
        self.mosquitto.kill()
        time.sleep(0.5)
        self.mosquitto.start()


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    need_node()
    monkeypatch.setenv("BROKER_PASSWORD", "h0st")
    made = Behind(tmp_path)
    made.start()
    yield made
    made.end()


@pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")
@pytest.mark.parametrize("lost", [None, Behind.lose_a_node, Behind.lose_the_broker], ids=["", "a node", "the broker"])
def test_ten_nodes_behind_a_broker_train_the_model_of_the_run_in_process(
    lost: Callable[[Behind], None] | None, fedtiny: Fedtiny, tmp_path: Path, behind: Behind
) -> None:
    disturbance = Disturbance(tmp_path, lambda: lost(behind) if lost else None)
    disturbance.start()
    over_broker = parsed(fedtiny("run", *TEN, "--fleet", str(behind.lab.file)))
    assert disturbance.done
    assert_same_run(over_broker, parsed(fedtiny("run", *TEN)))
