"""Whole FedTiny runs over the real thing: firmware on emulated boards' UARTs, devices behind a broker with TLS.

Each ends with the bits of the run in this process with the same seed, whatever dies on the way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtiny import Experiment, load_config
from fedtiny.boards import load_board
from fedtiny.fleet.wire import WireFleet
from fedtiny.fleet.wirenode import WireNode
from fedtiny.images import build_node

from ..conftest import Outcome
from ..firmware.boards import need
from ..fleet.fleets import Lab
from ..link.brokers import HAVE_MOSQUITTO, Mosquitto, need_node
from ..link.lesson import boots
from .conftest import Fedtiny
from .conftest import Outcome as Done

BOARD = "qemu-netduinoplus2"
MINI = ("board-mini", "--json")
TEN = tuple(f"n{number}" for number in range(1, 11))
QUICK = ("quick", "--nodes", "10", "--rounds", "3", "-s", "pruning.delta_rounds=1", "--json")
SAME = "the same model, bit for bit"


def parsed(outcome: Done) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def assert_same_run(over_links: dict[str, Any], in_process: dict[str, Any]) -> None:
    assert (over_links["fleet"], in_process["fleet"]) == ("wire", "native")
    assert not over_links["failures"]
    assert not over_links["rejections"]
    assert over_links["model_sha256"] == in_process["model_sha256"]
    assert over_links["accuracy"] == in_process["accuracy"]
    assert over_links["bytes"]["up"] == in_process["bytes"]["up"]


def when_heard(node: WireNode, count: int, do: Callable[[], None]) -> None:
    """Does it once, just as so many bytes more have come from the node."""
    hear, heard = node.connection.data_received, [0]

    def hear_and_do(data: bytes) -> None:
        before, heard[0] = heard[0], heard[0] + len(data)
        if before < count <= heard[0]:
            do()
        hear(data)

    node.connection.data_received = hear_and_do  # type: ignore[method-assign]


def run_with(preset: str, settings: dict[str, Any], disturb: Callable[[WireFleet], None]) -> tuple[str, WireFleet]:
    """The model's hash of a run that is disturbed after its first round, in which all nodes take part all the same."""
    with Experiment(load_config(preset, settings)) as experiment:
        rounds = iter(experiment)
        next(rounds)
        fleet = experiment.fleet
        assert isinstance(fleet, WireFleet)
        disturb(fleet)
        for record in rounds:
            assert (record.participants, record.failures) == (fleet.nodes, ())
        return str(experiment.result()["model_sha256"]), fleet


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_node(need(load_board(BOARD)), tmp_path_factory.mktemp("image") / "node.elf")


@pytest.fixture
def boards(image: Path, tmp_path: Path) -> Lab:
    """Two emulated boards, from their first start without a key; their records in files."""
    names = ("n1", "n2")
    return Lab(tmp_path / "boards", names, links=dict.fromkeys(names, f"qemu:{BOARD}:{image}")).write()


def test_two_boards_train_the_model_of_the_run_in_process(fedtiny: Fedtiny, boards: Lab, outcome: Outcome) -> None:
    """STM32F405 firmware in 128 KiB of RAM, over USART 1: keys, data, selection, rounds."""
    assert parsed(fedtiny("fleet", "enrol", str(boards.file), "--json"))["enrolled"] == ["n1", "n2"]
    over_uart = parsed(fedtiny("run", *MINI, "--fleet", str(boards.file)))
    assert {node["board"] for node in over_uart["nodes_report"]} == {BOARD}
    assert {len(bytes.fromhex(node["firmware"])) for node in over_uart["nodes_report"]} == {8}
    assert [boots(boards.record(name)) for name in boards.names] == [2, 2]  # to be enrolled, and to run
    for node in over_uart["boards"]:
        assert node["plan_bytes"] <= node["peak_bytes"] < node["arena_bytes"] < 128 * 1024
        assert (node["board"], node["boots"], node["resets"], node["sessions"], node["refused"]) == (BOARD, 2, 0, 1, 0)
        assert node["tasks"]["train"]["count"] == over_uart["rounds"]
        assert node["tasks"]["train"]["seconds"] > 0
        assert sum(node["bytes"]["up"].values()) > 0
    assert_same_run(over_uart, parsed(fedtiny("run", *MINI)))
    outcome("FedTiny over two boards' UARTs in QEMU", end="both", tried=1, what="run of 3 rounds", result=SAME)


def test_a_board_that_loses_power_in_a_round_costs_no_bit(fedtiny: Fedtiny, boards: Lab, outcome: Outcome) -> None:
    """kill -9 of an emulator while its update comes up; the next start finds its record and its last model, so that no
    byte of the blob is sent again."""
    boards.enrolled()
    model_bytes: list[int] = []

    def disturb(fleet: WireFleet) -> None:
        node = fleet._nodes["n2"]
        model_bytes.append(node.connection.traffic.down["data.model"])
        line = node.connection._line
        assert line is not None
        when_heard(node, 3000, lambda: os.kill(line._process.pid, signal.SIGKILL))  # type: ignore[attr-defined]

    settings = {"fleet.kind": "wire", "fleet.file": str(boards.file), "train.rounds": 2}
    over_uart, fleet = run_with("board-mini", settings, disturb)
    assert [fleet.histories()[name].resets for name in boards.names] == [0, 1]
    assert [boots(boards.record(name)) for name in boards.names] == [1, 2]
    assert over_uart == parsed(fedtiny("run", *MINI, "--rounds", "2"))["model_sha256"]
    traffic = fleet.traffic()["n2"]
    assert model_bytes == [traffic.down["data.model"]] != [0]
    assert traffic.sessions == 2
    outcome("FedTiny over two boards' UARTs in QEMU", end="both", tried=1, what="loss of power in a round", result=SAME)


class Behind:
    """A broker with TLS, passwords and an ACL, and the program of each of ten nodes behind it."""

    def __init__(self, folder: Path) -> None:
        self.mosquitto = Mosquitto(folder / "broker", {"host": "h0st", **dict.fromkeys(TEN, "n0de")})
        head = (
            f'name = "lab"\n[broker]\nhost = "localhost"\nport = {self.mosquitto.port}\nuser = "host"\n'
            f'password_env = "BROKER_PASSWORD"\nca_file = "{self.mosquitto.folder}/authority.crt"\n'
        )
        self.lab = Lab(folder / "lab", TEN, head, {name: f"mqtt:{name}" for name in TEN}).write()
        self.lab.enrolled()
        self._password = folder / "password"
        self._password.write_text("n0de\n")
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.mosquitto.start()
        for name in TEN:
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
        self.end_node("n7")
        time.sleep(1)
        self.start_node("n7")

    def lose_the_broker(self) -> None:
        self.mosquitto.kill()
        time.sleep(1)
        self.mosquitto.start()


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    if not HAVE_MOSQUITTO:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    need_node()
    monkeypatch.setenv("BROKER_PASSWORD", "h0st")
    made = Behind(tmp_path)
    made.start()
    yield made
    made.end()


def test_ten_nodes_behind_a_broker_train_the_model_of_the_run_in_process(
    fedtiny: Fedtiny, behind: Behind, outcome: Outcome
) -> None:
    over_broker = parsed(fedtiny("run", *QUICK, "--fleet", str(behind.lab.file)))
    assert over_broker["bytes"]["link"]["by_node"].keys() == set(TEN)
    assert_same_run(over_broker, parsed(fedtiny("run", *QUICK)))
    outcome("FedTiny over ten nodes behind mosquitto, TLS", end="both", tried=1, what="run of 3 rounds", result=SAME)


@pytest.mark.parametrize("lost", [Behind.lose_a_node, Behind.lose_the_broker], ids=["a node", "the broker"])
def test_what_dies_behind_the_broker_and_comes_back_costs_no_bit(
    lost: Callable[[Behind], None], fedtiny: Fedtiny, behind: Behind, outcome: Outcome
) -> None:
    """With -9, in the second round, while an update comes up; it stays away for a second."""
    settings = {"fleet.kind": "wire", "fleet.file": str(behind.lab.file), "fleet.nodes": 10}
    settings |= {"train.rounds": 3, "pruning.delta_rounds": 1}
    losing = threading.Thread(target=lambda: lost(behind))
    over_broker, fleet = run_with("quick", settings, lambda fleet: when_heard(fleet._nodes["n7"], 3000, losing.start))
    losing.join()
    assert fleet.traffic()["n7"].sessions >= 2
    assert over_broker == parsed(fedtiny("run", *QUICK))["model_sha256"]
    outcome("FedTiny over ten nodes behind mosquitto, TLS", end="both", tried=1, what="kill -9 in a round", result=SAME)
