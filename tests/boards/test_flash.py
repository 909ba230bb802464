"""Flashing, with tools that stand in and boards that are folders (bench.py): the right image on the right board, and
advice that says what to do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtiny.boards import board_names, load_board
from fedtiny.flash import flashing, usb
from fedtiny.flash.make import Made, make
from fedtiny.flash.tools import chips_seen
from fedtiny_export.errors import ConfigError
from tests.boards.bench import Bench
from tests.firmware.boards import need
from tests.system.conftest import Fedtiny

ST_LINK, ST_LINK_3, DFU, CP2102, ESP_USB = "0483:374b", "0483:374e", "0483:df11", "10c4:ea60", "303a:1001"
F446, F411, F405, H743, L4R5 = 0x421, 0x431, 0x413, 0x450, 0x470


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    found = Bench(tmp_path / "bench", monkeypatch)
    yield found
    found.close()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Images of the boards that are built here, once for all tests."""
    folder = tmp_path_factory.mktemp("images")
    boards = ("nucleo_f446re", "blackpill_f411ce", "netduinoplus2")
    return {name: make(need(load_board(name)), folder) for name in boards}


def flash(words: list[str], images: dict[str, Made], tmp_path: Path, **options: Any) -> dict[str, flashing.Outcome]:
    """What becomes of each, by serial number."""
    boards = {name: load_board(name) for name in board_names()}
    targets = flashing.find_targets(words, boards, usb.plugged(), everything=not words, chips=chips_seen())
    wanted = {target.board.name: target.board for target in targets}
    made = {name: images[name] if name in images else make(board, tmp_path) for name, board in wanted.items()}
    outcomes = flashing.flash_all(targets, made, **{"answer_s": 10.0, **options})
    return {outcome.target.device.serial: outcome for outcome in outcomes}


def names(words: list[str]) -> list[str]:
    boards = {name: load_board(name) for name in board_names()}
    found = flashing.find_targets(words, boards, usb.plugged(), everything=not words, chips=chips_seen())
    return [target.name for target in found]


def written(folder: Path) -> dict[int, bytes]:
    return {int(path.name, 16): path.read_bytes() for path in folder.glob("0x*") if path.suffix != ".part"}


def test_eight_boards_each_get_their_own_image_and_what_fails_says_what_to_do(
    bench: Bench, compiled: dict[str, Made], tmp_path: Path
) -> None:
    first = bench.plug(ST_LINK, "A1", chip=F446, port="ttyACM0")
    second = bench.plug(ST_LINK, "A2", chip=F446, port="ttyACM1", enrolled=True)
    pill = bench.plug(DFU, "B1")
    netduino = bench.plug(ST_LINK_3, "C1", chip=F405, port="ttyACM2")
    h743 = bench.plug(ST_LINK, "D1", chip=H743, port="ttyACM3", state="fails-once")
    l4r5 = bench.plug(ST_LINK, "E1", chip=L4R5, port="ttyACM4", state="unplugged-midway")
    busy = bench.plug(CP2102, "F1", chip="esp32", port="ttyUSB0")
    denied = bench.plug(ESP_USB, "G1", chip="esp32c3", port="ttyACM5", state="no-permission")
    words = [
        "nucleo_f446re@A1", "nucleo_f446re@A2", "blackpill_f411ce@B1", "netduinoplus2@C1", "nucleo_h743zi@D1",
        "nucleo_l4r5zi@E1", "esp32dev@F1", "esp32c3@G1",
    ]  # fmt: skip
    hold = f"import sys; f = open({str(bench.folder / 'dev/ttyUSB0')!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = flash(words, compiled, tmp_path)
        held_by = holder.pid
        holder.communicate()

    states = {serial: (outcome.state, outcome.tries) for serial, outcome in found.items()}
    assert states == {
        "A1": ("answers", 1), "A2": ("answers", 1), "B1": ("written", 1), "C1": ("written", 1), "D1": ("answers", 2),
        "E1": ("failed", 1), "F1": ("failed", 0), "G1": ("failed", 2),
    }  # fmt: skip
    f446 = compiled["nucleo_f446re"]
    assert written(first) == written(second) == {0x0800_0000: f446.parts[0][1].read_bytes()}
    assert written(pill) == {0x0800_0000: compiled["blackpill_f411ce"].parts[0][1].read_bytes()}
    assert written(netduino) == {0x0800_0000: compiled["netduinoplus2"].parts[0][1].read_bytes()}
    assert written(h743) == {0x0800_0000: b"firmware.bin: fedtiny node on nucleo_h743zi\r\n"}
    assert written(l4r5) == written(busy) == written(denied) == {}
    seen = found["A2"].seen
    assert seen is not None
    assert (seen.board, seen.device, seen.firmware) == ("nucleo_f446re", "n1", f446.firmware)
    assert found["E1"].problem == (
        "E1 was unplugged. What is on the board is not known. Plug it in and repeat: fedtiny flash nucleo_l4r5zi@E1"
    )
    assert "python" in found["F1"].problem
    assert f"(process {held_by}) has it open. Close that program, or: kill {held_by}" in found["F1"].problem
    assert "Run: sudo usermod -aG" in found["G1"].problem


def test_boards_are_written_at_the_same_time(bench: Bench, compiled: dict[str, Made], tmp_path: Path) -> None:
    folders = [bench.plug(ST_LINK, f"A{n}", chip=F446, port=f"ttyACM{n}", state="slow") for n in range(4)]
    found = flash([], compiled, tmp_path)
    assert [outcome.state for outcome in found.values()] == ["answers"] * 4
    times = [[float(line.split()[0]) for line in (f / "writes").read_text().splitlines()] for f in folders]
    assert max(begun for begun, _ in times) < min(ended for _, ended in times)


def test_a_copy_that_becomes_the_tool_while_it_is_looked_at_holds_no_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    hold = (
        f"import sys; f = open({str(port)!r}); print(flush=True); sys.stdin.readline(); f.close(); print(flush=True); "
    )
    hold += "sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()

        def becomes_it(process: Path) -> bool:
            holder.stdin.write(b"\n")
            holder.stdin.flush()
            holder.stdout.readline()  # the file is closed, as by exec
            return False

        monkeypatch.setattr(usb, "_about_to_become_a_tool", becomes_it)
        assert usb.holders(str(port)) == []
        holder.communicate()


def test_a_copy_of_this_program_that_is_about_to_start_a_tool_holds_no_port(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    with port.open() as held:
        child = os.fork()  # as subprocess does, for another board, before the tool runs in it
        if child == 0:
            time.sleep(60)
            os._exit(0)
        held.close()
        assert usb.holders(str(port)) == []
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    hold = f"import sys; f = open({str(port)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert [number for number, _ in usb.holders(str(port))] == [holder.pid]
        holder.communicate()


def test_an_esp32_gets_its_three_parts_where_its_rom_looks_for_them(bench: Bench, tmp_path: Path) -> None:
    old = bench.plug(CP2102, "F1", chip="esp32", port="ttyUSB0")
    new = bench.plug(ESP_USB, "G1", chip="esp32c3", port="ttyACM0")
    assert {o.state for o in flash(["esp32dev@F1", "esp32c3@G1"], {}, tmp_path).values()} == {"answers"}
    assert {at: data.split(b":")[0] for at, data in written(old).items()} == {
        0x1000: b"bootloader.bin", 0x8000: b"partitions.bin", 0x10000: b"firmware.bin",
    }  # fmt: skip
    assert sorted(written(new)) == [0, 0x8000, 0x10000]


def test_a_chip_of_another_kind_is_not_written_to(bench: Bench) -> None:
    bench.plug(ST_LINK, "A1", chip=L4R5, port="ttyACM0")
    told = r"the chip behind A1 says 0x470, and that of nucleo_f446re says 0x421. It may be: nucleo_l4r5zi"
    for word in ("nucleo_f446re", "nucleo_f446re@A1"):
        with pytest.raises(ConfigError, match=told):
            names([word])


def test_an_esp32_of_another_kind_is_refused_by_its_own_tool(bench: Bench, tmp_path: Path) -> None:
    bench.plug(CP2102, "F1", chip="esp32s3", port="ttyUSB0")
    outcome = flash(["esp32dev@F1"], {}, tmp_path)["F1"]
    assert outcome.state == "failed"
    assert "This chip is esp32s3, not esp32" in outcome.problem


def test_two_identical_probes_are_never_guessed_between(bench: Bench) -> None:
    bench.plug(ST_LINK, "A1", chip=F446)
    bench.plug(ST_LINK, "A2", chip=F446)
    with pytest.raises(ConfigError, match="fedtiny flash nucleo_f446re@A1 nucleo_f446re@A2"):
        names(["nucleo_f446re"])
    assert names(["nucleo_f446re@A2"]) == ["nucleo_f446re@A2"]
    assert names([]) == ["nucleo_f446re@A1", "nucleo_f446re@A2"]


def test_probes_with_one_serial_number_are_refused(bench: Bench) -> None:
    bench.plug(ST_LINK, "A1", chip=F446)
    bench.plug(ST_LINK, "A1", chip=F446)
    with pytest.raises(ConfigError, match="2 devices have the serial number A1"):
        names(["nucleo_f446re@A1"])
    with pytest.raises(ConfigError, match="two devices with the serial number A1: unplug one"):
        names([])


def test_all_flashes_nothing_while_one_board_is_not_certain(bench: Bench) -> None:
    bench.plug(ST_LINK, "A1", chip=F446)
    bench.plug(CP2102, "F1", chip="esp32", port="ttyUSB0")
    with pytest.raises(ConfigError, match=r"F1 \(10c4:ea60 Stand-in\): esp32c3, esp32dev, esp32s3\?"):
        names([])


def test_without_a_tool_that_reads_chips_probes_of_one_kind_are_not_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "bench", monkeypatch, tools=("openocd",))
    bench.plug(ST_LINK, "A1", chip=F446)
    with pytest.raises(ConfigError, match="With stlink-tools installed"):
        names([])
    assert names(["nucleo_f446re"]) == ["nucleo_f446re@A1"]
    bench.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nucleo_f446re@Z9"], r"serial number Z9 that nucleo_f446re is flashed through is plugged in. There: A1"),
        (["nucleo_f446re@A1", "nucleo_f446re@A1"], "is named more than once"),
        (["esp32dev"], "no esp32dev is plugged in: no USB device 10c4:ea60 or 1a86:7523"),
        (["qemu-rv32"], "board qemu-rv32 is not flashed"),
        (["esp23dev"], "there is no board 'esp23dev'"),
    ],
)
def test_what_cannot_be_flashed_is_named(words: list[str], told: str, bench: Bench) -> None:
    bench.plug(ST_LINK, "A1", chip=F446)
    with pytest.raises(ConfigError, match=told):
        names(words)


def test_a_missing_tool_is_named_with_the_command_that_brings_it(
    bench: Bench, compiled: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.plug(DFU, "B1")
    (bench.folder / "bin" / "dfu-util").unlink()
    with pytest.raises(ConfigError, match="apt-get install -y --no-install-recommends dfu-util"):
        flash(["blackpill_f411ce"], compiled, tmp_path)
    assert written(folder) == {}


@pytest.mark.parametrize("tool", ["st-flash", "openocd", "pyocd"])
def test_each_tool_of_the_boards_file_can_be_asked_for(
    tool: str, bench: Bench, compiled: dict[str, Made], tmp_path: Path
) -> None:
    other = bench.plug(ST_LINK, "A0", chip=F446, port="ttyACM0")
    folder = bench.plug(ST_LINK, "A1", chip=F446, port="ttyACM1")
    assert flash(["nucleo_f446re@A1"], compiled, tmp_path, tool=tool)["A1"].state == "answers"
    assert written(folder) == {0x0800_0000: compiled["nucleo_f446re"].parts[0][1].read_bytes()}
    assert written(other) == {}


def test_a_tool_that_the_boards_file_lacks_is_refused(bench: Bench, compiled: dict[str, Made], tmp_path: Path) -> None:
    bench.plug(ST_LINK, "A1", chip=F446, port="ttyACM0")
    with pytest.raises(
        ConfigError, match=r"is not flashed by dfu-util through 0483:374b\. Take one of: st-flash, openocd"
    ):
        flash(["nucleo_f446re"], compiled, tmp_path, tool="dfu-util")


def test_a_chip_that_left_its_loader_unheard_is_written(
    bench: Bench, compiled: dict[str, Made], tmp_path: Path
) -> None:
    bench.plug(DFU, "B1", state="leaves-unheard")
    outcome = flash(["blackpill_f411ce"], compiled, tmp_path)["B1"]
    assert (outcome.state, outcome.tries) == ("written", 1)


def test_a_port_that_comes_back_by_another_name_is_found_again(bench: Bench, tmp_path: Path) -> None:
    bench.plug(ESP_USB, "G1", chip="esp32c3", port="ttyACM0", state="reconnects")
    outcome = flash(["esp32c3"], {}, tmp_path)["G1"]
    assert (outcome.state, outcome.tries) == ("answers", 1), outcome.problem


def test_a_board_that_still_runs_another_image_is_noticed(
    bench: Bench, compiled: dict[str, Made], tmp_path: Path
) -> None:
    folder = bench.plug(ST_LINK, "A1", chip=F446, port="ttyACM0")
    (folder / "0x0").write_bytes(b"fedtiny node on nucleo_l4r5zi\r\n")  # what its port goes on saying
    outcome = flash(["nucleo_f446re"], compiled, tmp_path)["A1"]
    assert (outcome.state, outcome.tries) == ("failed", 2)
    assert "says that it is a nucleo_l4r5zi, not a nucleo_f446re" in outcome.problem


def test_the_command_builds_once_and_reads_a_fleet_file(bench: Bench, fedtiny: Fedtiny) -> None:
    for number in (1, 2):
        bench.plug(CP2102, f"F{number}", chip="esp32", port=f"ttyUSB{number}")
    bench.plug(CP2102, "S1", chip="esp32s3", port="ttyUSB3")
    nodes = {"n1": ("esp32dev", "F1"), "n2": ("esp32dev", "F2"), "n3": ("esp32s3", "S1")}
    Path("lab.toml").write_text(
        "".join(f'[nodes.{n}]\nlink = "serial:{serial}"\nboard = "{board}"\n' for n, (board, serial) in nodes.items())
    )
    done = fedtiny("flash", "--all", "--fleet", "lab.toml", "--answer-s", "10", "--json")
    told = json.loads(done.out)
    assert done.code == 0
    assert [image["board"] for image in told["images"]] == ["esp32dev", "esp32s3"]
    assert {row["node"]: (row["board"], row["serial"], row["state"]) for row in told["boards"]} == {
        node: (*row, "answers") for node, row in nodes.items()
    }
    wrong = fedtiny("flash", "esp32s3@F1", "--fleet", "lab.toml")
    assert wrong.code == 2
    assert "F1 is a esp32dev by the fleet file (node n1), no esp32s3" in wrong.err


def test_a_failure_of_one_board_is_the_exit_code(bench: Bench, fedtiny: Fedtiny) -> None:
    bench.plug(ESP_USB, "G1", chip="esp32c3", port="ttyACM0", state="no-permission")
    done = fedtiny("flash", "esp32c3")
    assert done.code == 1
    assert "esp32c3@G1: failed" in done.err
    assert "failed" in done.out


def test_a_port_that_one_may_not_open_is_answered_with_its_group(tmp_path: Path) -> None:
    port = Path("/tmp") / f"fedtiny-port-{os.getpid()}"
    port.touch(mode=0o600)
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)
        else:
            port.chmod(0)
        advice = usb.port_advice(str(port))
    finally:
        os.seteuid(before)
        port.unlink()
    assert advice is not None
    assert "you may not open it" in advice
    assert "sudo usermod -aG" in advice


def test_what_is_plugged_in_is_listed_with_who_answers(bench: Bench, fedtiny: Fedtiny) -> None:
    folder = bench.plug(ST_LINK, "A1", chip=F446, port="ttyACM0")
    (folder / "0x0").write_bytes(b"fedtiny node on nucleo_f446re\r\n")
    bench.plug(DFU, "B1")
    bench.plug("1234:5678", "a-mouse")
    bench.plug("1234:9999", "X1", port="ttyUSB0")
    rows = {
        row["serial"]: row for row in json.loads(fedtiny("fleet", "scan", "--seconds", "1", "--json").out)["devices"]
    }
    assert set(rows) == {"A1", "B1", "X1"}
    assert (rows["A1"]["board"], rows["A1"]["node"]) == ("nucleo_f446re", "new")
    assert "nucleo_f446re" in rows["A1"]["may_be"]
    assert rows["B1"]["may_be"] == ["blackpill_f411ce", "netduinoplus2"]
    assert (rows["X1"]["may_be"], rows["X1"]["board"]) == ([], None)
    assert "nothing that speaks fedtiny's protocol answered" in rows["X1"]["problem"]
    shown = fedtiny("fleet", "scan", "--seconds", "0.5").out
    assert "new on nucleo_f446re" in " ".join(shown.split())
