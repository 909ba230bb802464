"""Board files and what is done with them: listed, written anew, built, run in an emulator, refused."""

from __future__ import annotations

import asyncio
import configparser
import json
import re
from functools import cache
from pathlib import Path

import pytest

from fedtiny import models
from fedtiny.boards import board_names, load_board, node_banks, root
from fedtiny.config import load_config, to_toml
from fedtiny.experiment import Experiment
from fedtiny.federation.tasks import Load
from fedtiny.fleet.planning import refuse_what_does_not_fit
from fedtiny.link.links import open_link
from fedtiny.link.look import look
from fedtiny_export import write_blob
from fedtiny_export.errors import ConfigError, PlanError
from fedtiny_export.torch_in import from_torch
from tests.boards.bench import Bench
from tests.firmware.boards import need
from tests.system.conftest import Fedtiny

BOARD = "qemu-netduinoplus2"
# From outside: PlatformIO's files of these boards (maximum_ram_size, maximum_size), and what of flash is storage.
PLATFORMIO = {
    "blackpill_f411ce": (131072, 524288, 0x70000),
    "disco_f746ng": (327680, 1048576, 0),
    "netduinoplus2": (131072, 1048576, 0xC0000),
    "nucleo_f446re": (131072, 524288, 0x70000),
    "nucleo_h743zi": (524288, 2097152, 0),
    "nucleo_l4r5zi": (655360, 2097152, 0),
}
ESP = ("esp32c3", "esp32dev", "esp32s3")  # maximum_ram_size 327680: what is there less what the system keeps


@cache
def model(name: str, width: int | None = None) -> bytes:
    """A dense blob of a reference model."""
    net = models.build(name, input_shape=(3, 32, 32), classes=10, width=width)
    made = from_torch(net, (3, 32, 32))
    return write_blob(made.graph, made.arrays, {})


@pytest.mark.parametrize("name", PLATFORMIO)
def test_the_memory_of_a_board_is_what_platformio_says_of_it(name: str) -> None:
    memory = load_board(name).memory
    assert memory is not None
    ram, flash, storage = PLATFORMIO[name]
    assert max(bank.bytes for bank in memory.banks) == memory.banks[0].bytes == ram
    assert memory.flash.bytes + storage == flash


@pytest.mark.parametrize("name", ESP)
def test_an_esp32_has_no_more_than_platformio_lets_an_image_have(name: str) -> None:
    memory = load_board(name).memory
    assert memory is not None
    assert sum(bank.bytes for bank in memory.banks if bank.name != "psram") <= 327680


def test_what_platformio_builds_is_what_the_board_files_say() -> None:
    """Environment, PlatformIO's board and platform, and its node's memory, which the first bank must hold."""
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(root() / "firmware" / "platformio.ini")

    def value(section: str, key: str) -> str:
        while not ini.has_option(section, key):
            section = ini.get(section, "extends")
        return ini.get(section, key)

    for name in (*PLATFORMIO, *ESP):
        board = load_board(name)
        plan = board.platformio
        assert plan is not None
        section = f"env:{plan.environment}"
        assert (value(section, "board"), value(section, "platform")) == (plan.board, plan.platform)
        flags = value(section, "build_flags")
        psram = re.findall(r"-DFEDTINY_PSRAM=(\d+)", flags)
        [memory] = psram or re.findall(r"-DFEDTINY_MEMORY=(\d+)", flags) or [None]
        assert plan.memory_bytes == (int(memory) if memory else None)
        banks = node_banks(board)
        assert (plan.memory_bytes or 0) <= banks["psram" if psram else next(iter(banks))]
        assert bool(psram) == ("-DBOARD_HAS_PSRAM" in flags) == ("psram" in banks)


def test_every_board_that_can_be_bought_names_its_data_sheet_and_how_it_is_flashed() -> None:
    for name in (*PLATFORMIO, *ESP):
        board = load_board(name)
        assert board.documents, name
        assert board.flash is not None, name
        assert board.clock_hz is not None, name


def test_boards_are_listed_with_memory_and_who_builds_them(fedtiny: Fedtiny) -> None:
    rows = {row["board"]: row for row in json.loads(fedtiny("boards", "--json").out)["boards"]}
    assert set(rows) == set(board_names())
    assert {name for name, row in rows.items() if row["emulated"]} == {n for n in rows if n.startswith("qemu-")}
    assert rows["esp32s3"]["banks"] == {"sram": 327680, "psram": 8388608}
    assert {row["built_by"] for name, row in rows.items() if name in PLATFORMIO} == {"fedtiny", "PlatformIO"}
    shown = fedtiny("boards").out
    assert all(name in shown for name in rows)
    assert "esp32c3 infers; it is not to train" in shown


def test_a_new_board_on_a_known_port_is_one_file_that_is_built_and_runs(fedtiny: Fedtiny, tmp_path: Path) -> None:
    need(load_board(BOARD))
    done = fedtiny("board", "new", "mine", "--like", BOARD, "-s", "title=My own", "-s", "memory.banks.0.bytes=0x1_8000")
    assert done.code == 0, done.err
    assert Path("boards/mine.toml").is_file()
    assert "mine" in {row["board"] for row in json.loads(fedtiny("boards", "--json").out)["boards"]}

    image = json.loads(fedtiny("build", "mine", "--json").out)
    board = load_board("mine")
    assert (board.title, board.emulator) == ("My own", load_board(BOARD).emulator)
    assert Path(image["parts"][0]["file"]).stat().st_size == image["flash_bytes"]

    Path("lab.toml").write_text(f'[nodes.n1]\nlink = "qemu:mine:{image["elf"]}"\n')
    from fedtiny.fleet.roster import read_roster

    seen = asyncio.run(look(read_roster("lab.toml").link("n1"), patience_s=20))
    assert (seen.device, seen.board, seen.boot_counter) == ("new", "mine", 1)
    assert seen.firmware is not None
    assert seen.firmware.hex() == image["firmware"]


def test_a_board_is_asked_for_what_it_was_not_told(fedtiny: Fedtiny, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(
        [
            "mine",
            "nucleo_f446re",
            "My own",
            "STM32F407",
            "168000000",
            "0xC_0000",
            "0x2_0000",
            "8000000",
            "0",
            "1",
            "RM0090",
        ]
    )
    monkeypatch.setattr("typer.prompt", lambda words, default=None: next(answers))
    done = fedtiny("board", "new")
    assert done.code == 0, done.err
    board = load_board("mine")
    assert board.memory is not None
    assert board.node is not None
    assert (board.mcu, board.memory.flash.bytes, board.documents) == ("STM32F407", 0xC0000, ("RM0090",))
    assert (board.node.defines["STM32_HSE_HZ"], board.node.defines["STM32_UART"]) == ("8000000", "1")
    assert board.platformio is None
    assert list(answers) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mine", "--like", "qemu-rv23"], "Did you mean qemu-rv32"),
        (["mine", "--like", "esp32dev"], "esp32dev is not built here"),
        ([BOARD, "--like", BOARD], f"there is a board {BOARD} already"),
        (["a/b", "--like", BOARD], "is no board's name"),
        (
            ["mine", "--like", BOARD, "-s", "memory.banks.0.bytes=100"],
            "memory.banks.0.bytes: value error, must be a multiple",
        ),
        (["mine", "--like", BOARD, "-s", "clock_khz=1"], "unknown key clock_khz. Did you mean clock_hz?"),
        (["mine", "--like", BOARD, "-s", "title"], "write KEY=VALUE"),
    ],
)
def test_a_new_board_that_cannot_be_used_is_not_written(words: list[str], told: str, fedtiny: Fedtiny) -> None:
    done = fedtiny("board", "new", *words)
    assert done.code == 2
    assert told in " ".join(done.err.split())
    assert not list(Path().glob("boards/*.toml"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[flash]\nusb = ['0483:374b']\ntools = { stflash = '' }", r"flash\.tools\.stflash.*'st-flash', 'openocd'"),
        ("[flash]\nusb = ['0483']\ntools = { openocd = 'x' }", r"flash\.usb\.0: string should match pattern"),
        ("[flash]\nusb = []\ntool = 'openocd'", r"unknown key flash\.tool\. Did you mean tools\?"),
        (
            "[platformio]\nenv = 'x'\nboard = 'x'\nplatform = 'x'",
            r"unknown key platformio\.env\..*Allowed: environment, board",
        ),
        ("[link]\nbaud = 9600", r"unknown key link\.baud\. Allowed: usb"),
        ("", r"nothing says how programs for it are made\. Add \[toolchain\] or \[platformio\]"),
    ],
)
def test_a_wrong_section_is_refused_by_key(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'title = "t"\nmcu = "m"\ncore = "c"\nfpu = "none"\n{line}\n')
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        load_board(path)


def test_ones_own_boards_lie_in_a_folder_of_ones_own(fedtiny: Fedtiny, tmp_path: Path) -> None:
    text = 'title = "t"\nmcu = "m"\ncore = "c"\nfpu = "none"\n[toolchain]\nprefix = ""\n'
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.toml").write_text(text)
    assert "mine" not in board_names()
    assert "mine" in board_names(tmp_path / "own")
    assert "mine" in fedtiny("boards", "--boards", "own").out
    (tmp_path / "own" / "native.toml").write_bytes((root() / "boards" / "native.toml").read_bytes())
    assert "native" in board_names(tmp_path / "own")  # a copy is the same board
    (tmp_path / "own" / "native.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"native\.toml: fedtiny has a board native already"):
        board_names(tmp_path / "own")
    with pytest.raises(ConfigError, match="is no folder"):
        board_names(tmp_path / "none")


@pytest.mark.parametrize("name", [name for name in board_names() if load_board(name).emulator])
def test_an_image_of_each_emulated_board_prints_its_size(name: str, fedtiny: Fedtiny) -> None:
    board = need(load_board(name))
    assert board.memory is not None
    done = fedtiny("build", name)
    assert done.code == 0, done.err
    raw = Path(f"build/boards/{name}/{name}.bin").stat().st_size
    assert f"flash {raw:,} of {board.memory.flash.bytes:,} bytes" in done.out
    assert f"qemu:{name}:build/boards/{name}/{name}.elf" in done.out


def test_a_model_that_does_not_fit_is_refused_before_anything_is_built(fedtiny: Fedtiny) -> None:
    Path("big.ftm").write_bytes(model("resnet-mini", 4))
    done = fedtiny("build", "blackpill_f411ce", "--model", "big.ftm")
    said = " ".join(done.err.split())
    assert done.code == 2
    assert "blackpill_f411ce" in said
    for words in ("What takes what", "activations", "train.lean=true", "takes"):
        assert words in said
    assert not Path("build").exists()


def test_samples_count_and_a_model_that_fits_is_built(fedtiny: Fedtiny) -> None:
    need(load_board("blackpill_f411ce"))
    Path("small.ftm").write_bytes(model("resnet-mini", 2))
    words = ("build", "blackpill_f411ce", "--model", "small.ftm", "--for", "infer")
    refused = fedtiny(*words, "--samples-bytes", "110000")
    assert refused.code == 2
    assert "110,000 of samples leave no room" in " ".join(refused.err.split())
    assert fedtiny(*words).code == 0


def test_a_run_is_planned_with_its_own_settings(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "bench", monkeypatch)
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(load_config("board-mini")))
    (run / "model.ftm").write_bytes(model("resnet-mini", 2))
    assert fedtiny("build", "esp32dev", "--model", str(run / "model.ftm"), "-s", "train.last_layers=2").code == 2
    assert fedtiny("build", "esp32dev", "--model", str(run), "-s", "train.last_layers=2").code == 0
    assert "is no run folder" in fedtiny("build", "esp32dev", "--model", str(tmp_path)).err
    bench.close()


def test_a_bank_of_psram_takes_what_the_first_bank_does_not() -> None:
    load = Load(blob=model("resnet8"), micro_batch=8)
    banks = node_banks(load_board("esp32s3"))
    refuse_what_does_not_fit({"n": [load]}, 0, banks)
    with pytest.raises(PlanError, match="and esp32s3 allows 278,528"):
        refuse_what_does_not_fit({"n": [load]}, 0, {"sram": banks["sram"]}, setting="esp32s3")


def test_a_board_without_floating_point_infers_and_does_not_train_unless_forced(fedtiny: Fedtiny) -> None:
    Path("small.ftm").write_bytes(model("resnet-mini", 2))
    refused = fedtiny("build", "esp32c3", "--model", "small.ftm")
    said = " ".join(refused.err.split())
    assert refused.code == 2
    assert "esp32c3 does not train: its core has no floating point" in said
    assert "fedtiny build esp32c3 --model small.ftm --force" in said
    settings = ["fleet.board=esp32c3", "train.rounds=1"]
    with pytest.raises(ConfigError, match=r"To train all the same: -s fleet.force_training=true"):
        Experiment(load_config("quick", settings))
    Experiment(load_config("quick", [*settings, "fleet.force_training=true"])).close()


def test_the_bench_builds_what_platformio_builds_by_platformio(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "bench", monkeypatch)
    Path("small.ftm").write_bytes(model("resnet-mini", 2))
    words = ("build", "esp32c3", "--model", "small.ftm", "--force")
    assert "Try -s train.keep=int8." in fedtiny(*words).err
    forced = fedtiny(*words, "-s", "train.keep=int8", "--json")
    told = json.loads(forced.out)
    assert (told["flash_bytes"], told["ram_bytes"]) == (275101, 36964)
    assert [part["address"] for part in told["parts"]] == [0, 0x8000, 0x10000]
    bench.close()


def test_what_is_missing_is_named_with_one_command_for_all_of_it(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "bench", monkeypatch, tools=())
    bench.plug("0483:df11", "B1")
    monkeypatch.setenv("PATH", "/nonexistent")
    done = fedtiny("doctor", "--json")
    told = json.loads(done.out)
    assert (done.code, told["good"]) == (1, False)
    checks = {check["what"]: check for check in told["checks"]}
    assert checks["the C core"]["good"]
    assert checks["arm-none-eabi-gcc"]["mend"].endswith("gcc-arm-none-eabi libnewlib-arm-none-eabi")
    assert checks["qemu-system-riscv32"]["mend"].endswith("qemu-system-misc")
    assert checks["Stand-in B1"]["mend"].endswith("dfu-util")
    mends = fedtiny("doctor").out.partition("What mends it:")[2]
    [apt] = [line for line in mends.splitlines() if "apt-get" in line]
    for package in ("gcc-arm-none-eabi", "gcc-riscv64-unknown-elf", "qemu-system-arm", "qemu-system-misc", "dfu-util"):
        assert package in apt.split()
    bench.close()


def test_a_monitor_shows_text_as_it_is_and_frames_by_name(fedtiny: Fedtiny, tmp_path: Path) -> None:
    need(load_board(BOARD))
    image = json.loads(fedtiny("build", BOARD, "--json").out)
    Path("lab.toml").write_text(f'[nodes.n1]\nlink = "qemu:{BOARD}:{image["elf"]}"\n')
    shown = fedtiny("monitor", "n1", "--fleet", "lab.toml", "--seconds", "4")
    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"fedtiny node on {BOARD}\n")
    assert f"[new on {BOARD}: boot 1]" in shown.out
    assert "has no node n9" in fedtiny("monitor", "n9", "--fleet", "lab.toml").err
    assert "is no link" in fedtiny("monitor", "lorry:x").err


def test_a_port_that_says_nothing_is_named() -> None:
    from fedtiny_export.errors import NoAnswer

    with pytest.raises(NoAnswer, match="Is a node's image on that board"):
        asyncio.run(look(open_link("process:cat"), patience_s=0.5))
