"""Boards, and programs on them: start, memory, files, faults, exact counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtiny import emulation
from fedtiny.boards import Board, board_names, load_board
from fedtiny.emulation import FAULT, build, core_sources, run
from fedtiny_export.errors import ConfigError, FleetError

from .boards import need
from .test_bits import BOARDS

PROGRAM = Path(__file__).parent / "target" / "machine.c"
EMULATED = [name for name in board_names() if load_board(name).emulator]
BOARD = "qemu-netduinoplus2"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def program(built: dict[str, Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    board: Board = need(request.getfixturevalue("board"))
    if board.name not in built:
        out = tmp_path_factory.mktemp("machine") / f"{board.name}.elf"
        built[board.name] = build(board, [PROGRAM], out=out, flags=["-Werror", "-Wno-infinite-recursion"])
    return built[board.name]


@pytest.fixture(params=EMULATED)
def board(request: pytest.FixtureRequest) -> Board:
    return load_board(request.param)


def lines(output: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in output.splitlines():
        name, _, number = line.rpartition(" ")
        found.setdefault(name, []).append(int(number))
    return found


def test_a_program_starts_with_its_data_and_all_memory_it_is_told(board: Board, program: Path) -> None:
    done = run(board, program, arguments=["start"])
    assert board.memory is not None
    found = lines(done.output)
    assert done.exit_code == 2
    assert (found["data"], found["aligned"]) == ([1], [1])
    own = board.memory.banks[0].bytes - board.memory.stack_bytes - found["bytes"][0]
    assert 0 <= own < 4096


def test_counts_are_exact_and_the_same_in_every_run(board: Board, program: Path) -> None:
    first, second = (run(board, program, arguments=["count"], count=True) for _ in range(2))
    few, more, many = lines(first.output)["loop"]
    assert more - few == 2
    assert many - few == 2 * (3000000 - 1000)
    assert first == second
    assert first.instructions is not None
    assert 0 < first.instructions - (few + more + many) < 5000
    assert run(board, program, arguments=["count"]).instructions is None


@pytest.mark.parametrize("board", [load_board("qemu-mps2-an386")], ids=["an386"])
def test_counts_stay_exact_when_the_timer_goes_round(board: Board, program: Path) -> None:
    counts = lines(run(board, program, arguments=["round"], count=True).output)["loop"]
    assert sum(counts) * 128 > 2**32 * 40
    assert set(counts) == {2 * 200_000_000 + 1}


def test_files_come_and_go(board: Board, program: Path, tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    (tmp_path / "from").write_bytes(content)
    found = lines(run(board, program, arguments=["copy", "from", "to"], folder=tmp_path).output)
    assert (found["read"], found["written"], found["too long"]) == ([len(content)], [0], [0xFFFFFFFF])
    assert (tmp_path / "to").read_bytes() == content
    found = lines(run(board, program, arguments=["copy", "none", "to"], folder=tmp_path).output)
    assert found["read"] == [0xFFFFFFFF]


@pytest.mark.parametrize("task", ["fault", "undefined"])
def test_a_fault_ends_the_program_with_its_code(board: Board, program: Path, task: str) -> None:
    done = run(board, program, arguments=[task])
    assert done.exit_code == FAULT
    assert done.output == ("before\n" if task == "fault" else "")


# Of the AN386 the emulator answers reads below the RAM too, with 0: there nothing faults until much later.
@pytest.mark.parametrize("board", [name for name in EMULATED if name != "qemu-mps2-an386"], indirect=True)
def test_a_stack_that_overflows_faults(board: Board, program: Path) -> None:
    done = run(board, program, arguments=["overflow"])
    assert (done.exit_code, done.output) == (FAULT, "")


@pytest.mark.parametrize("board", [BOARD, "native"], indirect=True)
def test_a_program_that_does_not_end_is_ended(board: Board, program: Path) -> None:
    with pytest.raises(FleetError, match="did not end in"):
        run(board, program, arguments=["forever"], timeout_s=0.5)


@pytest.mark.parametrize("board", ["native"], indirect=True)
def test_this_computer_is_a_board_that_does_not_count(board: Board, program: Path, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"text")
    done = run(board, program, arguments=["copy", "from", "to"], folder=tmp_path, count=True)
    assert (done.exit_code, done.instructions) == (4, None)
    assert (tmp_path / "to").read_bytes() == b"text"


@pytest.mark.parametrize("board", [BOARD], indirect=True)
def test_an_argument_that_would_be_taken_apart_is_refused(board: Board, program: Path) -> None:
    for argument in ("two words", "a,b", ""):
        with pytest.raises(ConfigError, match="no blanks"):
            run(board, program, arguments=[argument])


@pytest.mark.parametrize("board", ["native"], indirect=True)
def test_a_source_that_does_not_compile_is_shown(board: Board, tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return wrong; }\n")
    with pytest.raises(ConfigError, match=r"wrong\.c:1"):
        build(board, [source], out=tmp_path / "wrong")


def test_missing_tools_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    wanted = "apt-get install -y --no-install-recommends gcc-riscv64-unknown-elf qemu-system-misc"
    with pytest.raises(ConfigError, match=wanted):
        emulation.need_tools(load_board("qemu-rv32"))


def test_a_variant_replaces_its_portable_file_and_nothing_else() -> None:
    portable, vector = ([path.name for path in core_sources(variant)] for variant in ("", "vector"))
    assert "taps.c" in portable
    assert [name for name in vector if name not in portable] == [
        "pointwise_vector.c",
        "taps_vector.c",
    ]
    assert [name for name in portable if name not in vector] == ["pointwise.c", "taps.c"]
    with pytest.raises(ConfigError, match="no variant 'none'"):
        core_sources("none")


def test_every_board_is_tested_and_has_a_variant_that_exists() -> None:
    for name in board_names():
        tools = load_board(name).tools
        assert tools is None or core_sources(tools.variant)
    assert set(EMULATED) == set(BOARDS)


def test_a_board_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nmcu = "m"\ncore = "c"\nfpu = "none"\n[toolchain]\nprefix = ""\n')
    assert load_board(path).name == "mine"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("clock_khz = 1", r"unknown key clock_khz\. Did you mean clock_hz\? Allowed: title, mcu"),
        ("[toolchain]\nprefiks = ''", r"unknown key toolchain\.prefiks\. Did you mean prefix\?"),
        (
            "[emulator]\nprogram = 'q'\nmachine = 'm'\nicount_shift = 11",
            r"icount_shift: .*less than or equal to 10",
        ),
        ("[emulator]\nprogram = 'q'", r"emulator\.machine: field required"),
        ("[memory]\nbanks = []\nflash = { origin = 0, bytes = 8 }", r"memory\.banks"),
        (
            "[memory]\nbanks = [{ name = 'a', origin = 4, size = 8 }]\nflash = { origin = 0, bytes = 8 }",
            r"unknown key memory\.banks\.0\.size\.",
        ),
        ("fpu = 'half'", r"fpu: input should be 'none', 'single' or 'double'"),
        ("mcu = 3", r"mcu: input should be a valid string"),
        ("title", r"no valid TOML"),
        ("name = 'x'", r"Remove the key name"),
    ],
)
def test_a_wrong_board_is_refused_by_key(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    base = {"title": "'t'", "core": "'c'", "mcu": "'m'", "fpu": "'none'"}
    text = "".join(f"{key} = {value}\n" for key, value in base.items() if not line.startswith(key + " "))
    path.write_text(f"{text}{line}\n{'' if '[toolchain]' in line else '[toolchain]'}\nprefix = ''\n")
    with pytest.raises(ConfigError, match=told):
        load_board(path)


def test_an_unknown_board_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean qemu-rv32"):
        load_board("qemu-rv23")
