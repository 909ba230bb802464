"""Whole FedTiny runs over the real thing: firmware on emulated boards' UARTs, devices behind a broker with TLS.

Each ends with the bits of the run in this process with the same seed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtiny import Experiment, load_config
from fedtiny.boards import load_board
from fedtiny.fleet.keys import Device
from fedtiny.fleet.manage import record
from fedtiny.fleet.roster import read_roster
from fedtiny.fleet.wire import WireFleet
from fedtiny.images import build_node

from ..firmware.boards import need
from ..link.brokers import HAVE_MOSQUITTO, Mosquitto
from .conftest import Fedtiny

KEY = bytes(range(32))
STM32 = "qemu-netduinoplus2"
MQTT_NODE = Path(sysconfig.get_path("scripts")) / "fedtiny-node-mqtt"
TEN = tuple(f"n{number}" for number in range(1, 11))
BROKERED = ("quick", "--nodes", "10", "--rounds", "3", "-s", "pruning.delta_rounds=1", "--json")


def enrolled(file: Path) -> None:
    roster = read_roster(file)
    for name in roster.nodes:
        roster.keys[name] = Device(key=KEY, state="enrolled")
    roster.keys.save()


def result_of(fedtiny: Fedtiny, *arguments: str) -> dict[str, Any]:
    done = fedtiny("run", *arguments)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def nothing_lost(result: dict[str, Any]) -> bool:
    return not result["failures"] and not result["rejections"] and result["fleet"] == "wire"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_node(need(load_board(STM32)), tmp_path_factory.mktemp("image") / "node.elf")


@pytest.fixture
def boards(image: Path, tmp_path: Path) -> Path:
    """A fleet file of two emulated boards."""
    folder = tmp_path / "boards"
    folder.mkdir()
    for name in ("n1", "n2"):
        (folder / f"{name}.record").write_bytes(record(name, KEY))
    links = (f'[nodes.{name}]\nlink = "qemu:{STM32}:{image}"\n' for name in ("n1", "n2"))
    (folder / "boards.toml").write_text("\n".join(links))
    enrolled(folder / "boards.toml")
    return folder / "boards.toml"


def test_a_run_over_the_uarts_of_two_boards_ends_with_the_same_model(fedtiny: Fedtiny, boards: Path) -> None:
    over = result_of(fedtiny, "board-mini", "--fleet", str(boards), "--json")
    assert nothing_lost(over)
    assert {node["board"] for node in over["nodes_report"]} == {STM32}
    assert {len(bytes.fromhex(node["firmware"])) for node in over["nodes_report"]} == {8}
    assert over["model_sha256"] == result_of(fedtiny, "board-mini", "--json")["model_sha256"]


def test_a_board_that_loses_power_in_a_round_costs_no_bit(boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of an emulator while its update comes up; the next start finds only its record."""
    settings = {"train.rounds": 2, "fleet.kind": "wire", "fleet.file": str(boards)}
    with Experiment(load_config("board-mini", settings)) as experiment:
        rounds = iter(experiment)
        next(rounds)
        fleet = experiment.fleet
        assert isinstance(fleet, WireFleet)
        connection = fleet._nodes["n2"].connection
        hear, heard = connection.data_received, [0]

        def hear_and_kill(data: bytes) -> None:
            before, heard[0] = heard[0], heard[0] + len(data)
            if before < 3000 <= heard[0]:
                os.kill(connection._line._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
            hear(data)

        connection.data_received = hear_and_kill  # type: ignore[method-assign]
        last = list(rounds)[-1]
        assert (last.participants, last.failures) == (("n1", "n2"), ())
        assert fleet.traffic()["n2"].sessions == 2
        over = experiment.result()["model_sha256"]
    with Experiment(load_config("board-mini", {"train.rounds": 2})) as experiment:
        list(experiment)
        assert experiment.result()["model_sha256"] == over


class Devices:
    """Ten programs behind a broker with TLS, passwords and an ACL, and the fleet file of their host."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder, self.broker = folder, broker
        self.file = folder / "lab.toml"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "host.password").write_text("h0st\n")
        (folder / "node.password").write_text("n0de\n")
        text = (
            f'[broker]\nhost = "localhost"\nport = {broker.port}\nuser = "host"\npassword_file = "host.password"\n'
            f'ca_file = "{broker.folder / "authority.crt"}"\n'
        )
        self.file.write_text(text + "".join(f'[nodes.{name}]\nlink = "mqtt:{name}"\n' for name in TEN))
        enrolled(self.file)
        for name in TEN:
            (folder / f"{name}.record").write_bytes(record(name, KEY))
            self.start(name)

    def start(self, name: str) -> None:
        words = ["--record", f"{name}.record", "--host", "localhost", "--port", str(self.broker.port)]
        words += ["--fleet", "lab", "--ca", str(self.broker.folder / "authority.crt"), "--password", "node.password"]
        self.running[name] = subprocess.Popen([MQTT_NODE, *words], cwd=self.folder, stderr=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        program = self.running.pop(name)
        program.kill()
        program.wait()

    def close(self) -> None:
        for name in list(self.running):
            self.kill(name)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    if not (HAVE_MOSQUITTO and MQTT_NODE.exists()):
        end = pytest.fail if os.environ.get("FEDTINY_ALL_BOARDS") else pytest.skip
        end("no mosquitto or no fedtiny-node-mqtt: apt-get install mosquitto libmosquitto-dev, then make setup")
    broker = Mosquitto(tmp_path / "broker", {"host": "h0st"} | dict.fromkeys(TEN, "n0de"))
    broker.start()
    found = Devices(tmp_path, broker)
    yield found
    found.close()
    broker.kill()


def test_a_run_of_ten_devices_behind_a_broker_ends_with_the_same_model(fedtiny: Fedtiny, devices: Devices) -> None:
    over = result_of(fedtiny, *BROKERED, "--fleet", str(devices.file))
    assert nothing_lost(over)
    assert over["bytes"]["link"]["by_node"].keys() == set(TEN)
    assert over["model_sha256"] == result_of(fedtiny, *BROKERED)["model_sha256"]


@pytest.mark.parametrize("what", ["the broker dies", "a device dies"])
def test_what_dies_behind_the_broker_and_comes_back_costs_no_bit(fedtiny: Fedtiny, devices: Devices, what: str) -> None:
    """With -9, in the second round; it stays away for a second."""
    expected = result_of(fedtiny, *BROKERED)["model_sha256"]
    kill: Callable[[], None] = devices.broker.kill if what == "the broker dies" else lambda: devices.kill("n7")
    again: Callable[[], None] = devices.broker.start if what == "the broker dies" else lambda: devices.start("n7")
    settings = {"fleet.kind": "wire", "fleet.file": str(devices.file), "fleet.nodes": 10}
    settings |= {"train.rounds": 3, "pruning.delta_rounds": 1}
    with Experiment(load_config("quick", settings)) as experiment:
        rounds = iter(experiment)
        next(rounds)
        fleet = experiment.fleet
        assert isinstance(fleet, WireFleet)
        connection = fleet._nodes["n7"].connection
        hear, dying = connection.data_received, threading.Event()

        def hear_and_kill(data: bytes) -> None:
            if not dying.is_set():
                dying.set()
                threading.Thread(target=bounce).start()
            hear(data)

        def bounce() -> None:
            kill()
            time.sleep(1)
            again()

        connection.data_received = hear_and_kill  # type: ignore[method-assign]
        records = list(rounds)
        assert all(len(record.participants) == 10 and not record.failures for record in records)
        assert fleet.traffic()["n7"].sessions >= 2
        assert experiment.result()["model_sha256"] == expected
