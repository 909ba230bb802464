"""No kernel takes more instructions than it did: counts of the M4F build, exact, against tests/firmware/counts.json.

When counts change for a reason: python -m tests.firmware.test_counts writes the file anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from fedtiny.bench import builds, counting, kernels
from fedtiny.bench.cases import Case
from fedtiny.emulation import missing_packages

STORED = Path(__file__).parent / "counts.json"
WORSE = 0.02
LOWER = "Lower the stored figures: python -m tests.firmware.test_counts"
STEP = {f"ref.train.d{d:g}": Case(model="ref", density=d, mode="train") for d in (0.1, 1.0)}


def compiler() -> str:
    board = builds.board_of("m4f")
    command = [board.toolchain.prefix + board.toolchain.compiler, "-dumpversion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure(build: builds.Build, folder: Path) -> dict[str, int]:
    cases = dict(kernels.measured()) | STEP
    costs = counting.count_cases("m4f", build, list(cases.values()), folder)
    return {name: costs[case].instructions for name, case in cases.items()}


@pytest.mark.parametrize("build", [builds.DETERMINISTIC, builds.FAST], ids=lambda build: build.name)
def test_no_kernel_takes_more_instructions_than_it_did(build: builds.Build, tmp_path: Path) -> None:
    missing = missing_packages(builds.board_of("m4f"))
    if missing:
        pytest.skip(f"apt-get install -y --no-install-recommends {' '.join(missing)}")
    stored = json.loads(STORED.read_text("utf-8"))
    if compiler() != stored["compiler"]:
        pytest.skip(f"the figures are of GCC {stored['compiler']}, this is {compiler()}")
    now, before = measure(build, tmp_path), stored[build.name]
    assert now.keys() == before.keys(), LOWER
    worse = {name: f"{before[name]} -> {n}" for name, n in now.items() if n > before[name] * (1 + WORSE)}
    assert not worse, f"slower by more than {WORSE:.0%}: {worse}"
    better = {name: f"{before[name]} -> {n}" for name, n in now.items() if n < before[name] * (1 - WORSE)}
    if better:
        warnings.warn(f"faster than stored: {better}. {LOWER}", stacklevel=1)


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts = {build.name: measure(build, Path(folder)) for build in (builds.DETERMINISTIC, builds.FAST)}
    STORED.write_text(json.dumps({"compiler": compiler(), **counts}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write()
    sys.stdout.write(STORED.read_text("utf-8"))
