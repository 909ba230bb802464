"""The command itself: quick to start, and clear about what it offers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedtiny.config import presets
from tests.system.conftest import Fedtiny

COMMANDS = ("run", "report", "export", "eval", "presets", "boards", "build", "flash", "doctor")


def seconds(*arguments: str) -> float:
    """The best of five: what it costs, not what else the machine is doing."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def test_importing_fedtiny_takes_less_than_300_ms() -> None:
    assert seconds("-c", "import fedtiny") < 0.3


def test_help_takes_less_than_500_ms() -> None:
    assert seconds("-m", "fedtiny", "--help") < 0.5


def test_starting_the_command_loads_no_heavy_library() -> None:
    code = "import sys, fedtiny.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"torch", "onnx", "onnxruntime", "pydantic", "numpy"} & set(done.stdout.split()) == set()


def test_help_names_every_command(fedtiny: Fedtiny) -> None:
    shown = fedtiny("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert command in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_offers_json(fedtiny: Fedtiny, command: str) -> None:
    shown = fedtiny(command, "--help")
    assert shown.code == 0
    assert "--json" in shown.out


def test_presets_lists_every_preset_with_its_command(fedtiny: Fedtiny) -> None:
    shown = fedtiny("presets")
    assert shown.code == 0
    for name in presets():
        assert f"fedtiny run {name}" in shown.out
    listed = json.loads(fedtiny("presets", "--json").out)["presets"]
    assert {row["name"]: row["title"] for row in listed} == presets()


def test_the_version_is_the_packages(fedtiny: Fedtiny) -> None:
    import fedtiny as package

    assert fedtiny("--version").out == f"fedtiny {package.__version__}\n"


def test_every_public_name_can_be_had() -> None:
    import fedtiny as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nothing_of_that_name  # noqa: B018


def test_the_readme_shows_the_example_that_the_tests_run() -> None:
    root = Path(__file__).resolve().parents[2]
    assert (root / "examples" / "fifteen_lines.py").read_text("utf-8") in (root / "README.md").read_text("utf-8")
