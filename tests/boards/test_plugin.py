"""The pytest plugin as its users have it: pytest in a process of its own, on one file that never changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedtiny.boards import load_board
from tests.firmware.boards import need
from tests.fleet.fleets import NODE, ROOT, environment
from tests.system.test_structure import HEAVY

EXAMPLE = ROOT / "examples" / "bench" / "test_board.py"
BOARD = "qemu-netduinoplus2"
QUESTION = """
import pytest

def test_it_answers(node):
    assert node.describe().samples == 0

def test_all_answer(fleet):
    assert [node.describe().samples for node in fleet] == [0] * len(fleet)

@pytest.mark.hardware
def test_a_board_answers(node):
    assert node.describe().samples == 0
"""


class Run:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out = done.returncode, done.stdout + done.stderr
        self.counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", self.last)}

    @property
    def last(self) -> str:
        return self.out.strip().splitlines()[-1]

    @property
    def boards(self) -> str:
        [line] = [line for line in self.out.splitlines() if line.startswith("boards: ")]
        return line


Pytest = Callable[..., Run]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """`run_pytest("--fleet", "lab.toml")` in a folder of one's own, on the file named there or on QUESTION."""
    (tmp_path / "test_question.py").write_text(QUESTION)

    def call(*arguments: str, file: Path | str = "test_question.py") -> Run:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(file),
            "--rootdir",
            str(tmp_path),
        ]
        around = os.environ | environment()
        done = subprocess.run([*command, *arguments], cwd=tmp_path, env=around, capture_output=True, text=True)
        return Run(done)

    return call


def started_from(folder: Path) -> str:
    """Processes that still run with a file of this folder."""
    return subprocess.run(["pgrep", "-fa", str(folder)], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def port(tmp_path: Path) -> Iterator[str]:
    """What the host takes for a board's serial port; at its other end is the node's program."""
    words = ["serve", str(tmp_path / "s1.record"), "--pty", "--board", "nucleo_f446re"]
    with subprocess.Popen([NODE, *words], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        yield node.stdout.readline().strip()
        node.kill()


def test_one_file_passes_on_native_nodes_on_an_emulated_board_and_on_a_serial_port(
    run_pytest: Pytest, tmp_path: Path, port: str
) -> None:
    before = EXAMPLE.read_bytes()
    native = run_pytest(file=EXAMPLE)
    assert (native.code, native.counts) == (0, {"passed": 3, "skipped": 1}), native.out
    assert native.boards == "boards: 2 native, 0 serial, 1 test skipped: no board"

    (tmp_path / "serial.toml").write_text(f'[nodes.s1]\nlink = "serial:{port}"\n')
    keyless = run_pytest("--fleet", "serial.toml")
    assert keyless.counts == {"errors": 3}
    assert "s1: it has no key on file. Give it one: fedtiny fleet enrol" in keyless.out
    enrol = [str(NODE.with_name("fedtiny")), "fleet", "enrol", "serial.toml"]
    subprocess.run(enrol, cwd=tmp_path, check=True, capture_output=True)
    serial = run_pytest("--fleet", "serial.toml", file=EXAMPLE)
    assert (serial.code, serial.counts) == (0, {"passed": 4}), serial.out
    assert serial.boards == "boards: 1 serial"

    need(load_board(BOARD))
    (tmp_path / "boards.toml").write_text(f'[settings]\ntrain.lr = 0.01\n[nodes.b1]\nlink = "qemu:{BOARD}"\n')
    emulated = run_pytest("--fleet", "boards.toml", file=EXAMPLE)
    assert (emulated.code, emulated.counts) == (0, {"passed": 3, "skipped": 1}), emulated.out
    assert emulated.boards == "boards: 1 qemu, 0 serial, 1 test skipped: no board"
    assert [line for line in started_from(tmp_path).splitlines() if "--pty" not in line] == []
    assert EXAMPLE.read_bytes() == before


def test_a_board_that_is_not_plugged_in_skips_its_tests_and_is_counted(run_pytest: Pytest, tmp_path: Path) -> None:
    """The node beside it is tested all the same; a test of the whole fleet is not."""
    nodes = {"n1": f"process:fedtiny-node serve {tmp_path}/n1.record", "s1": "serial:NOBODY", "s2": "serial:/dev/ttyNO"}
    (tmp_path / "lab.toml").write_text("".join(f'[nodes.{name}]\nlink = "{link}"\n' for name, link in nodes.items()))
    found = run_pytest("--fleet", "lab.toml", "-rs", "--junit-xml", "found.xml")
    assert (found.code, found.counts) == (0, {"passed": 1, "skipped": 5}), found.out
    assert found.boards == "boards: 1 program, 0 serial, 5 tests skipped: no board"
    assert "no board: s1: no USB device with the serial number NOBODY is plugged in" in found.out
    assert "no board: s2: /dev/ttyNO: there is no such port" in found.out
    told = ET.parse(tmp_path / "found.xml").iter("property")
    assert [(p.get("name"), p.get("value")) for p in told] == [("board", "n1 program")]
    assert started_from(tmp_path) == ""

    needed = run_pytest("--fleet", "lab.toml", "--need-boards")
    assert (needed.code, needed.counts) == (1, {"passed": 1, "errors": 5}), needed.out
    one = run_pytest("--fleet", "lab.toml", "--node", "n1")
    assert (one.code, one.counts) == (0, {"passed": 2, "skipped": 1}), one.out


def test_a_board_that_is_there_and_silent_is_a_failure(run_pytest: Pytest, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('patience_s = 0.5\nprofile = "plain"\n[nodes.n1]\nlink = "process:cat"\n')
    found = run_pytest("--fleet", "lab.toml")
    assert (found.code, found.counts) == (1, {"errors": 2, "skipped": 1}), found.out
    assert "n1: no answer" in found.out or "n1: it" in found.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fleet", "lab.toml"), "unknown key nodes.n1.lin. Did you mean nodes.n1.link?"),
        (("--fleet", "none.toml"), "cannot read the fleet file none.toml"),
        (("--node", "n1"), "there is no node n1 to test. There are: native-1, native-2."),
    ],
)
def test_what_cannot_be_used_stops_the_session(
    arguments: tuple[str, ...], told: str, run_pytest: Pytest, tmp_path: Path
) -> None:
    (tmp_path / "lab.toml").write_text('[nodes.n1]\nlink = "process:cat"\nlin = "x"\n')
    found = run_pytest(*arguments)
    assert found.code == pytest.ExitCode.USAGE_ERROR
    assert told in found.out


def test_a_fixture_of_ones_own_by_the_same_name_is_left_alone(run_pytest: Pytest, tmp_path: Path) -> None:
    own = "import pytest\n@pytest.fixture\ndef node():\n    return 7\ndef test_own(node):\n    assert node == 7\n"
    (tmp_path / "test_own.py").write_text(own)
    found = run_pytest(file="test_own.py")
    assert (found.code, found.counts) == (0, {"passed": 1}), found.out
    assert "boards:" not in found.out


def test_a_file_that_cannot_be_collected_is_pytests_own_error(run_pytest: Pytest, tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text("import nothing_of_that_name\n")
    found = run_pytest(file="test_wrong.py")
    assert "No module named 'nothing_of_that_name'" in found.out
    assert "plugin.py" not in found.out


def test_the_plugin_costs_who_has_no_nodes_next_to_nothing() -> None:
    """Every run of pytest imports it."""
    told = "import sys, fedtiny.testing.plugin; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    assert not {*HEAVY, "numpy", "pydantic"} & set(loaded)


def test_the_page_shows_what_the_example_holds() -> None:
    [shown] = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    imports, rest = shown.split("\n\n", 1)
    assert imports in EXAMPLE.read_text()
    assert rest in EXAMPLE.read_text()
