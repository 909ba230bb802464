"""The README's tables of the wire: what it is worth, and what came of the tests that try to break it.

    .venv/bin/python scripts/wire_table.py

Runs `fedtiny bench wire` and the tests that tell their outcome (the fixture `outcome` of tests/conftest.py), writes
docs/wire.json, and puts both tables between their marks in README.md. Ends with 1, and changes nothing, where a test
fails. tests/system/test_readme.py compares README and file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtiny.bench import table
from fedtiny.bench.wire import WIRE

FIGURES = Path("docs/wire.json")
README = Path("README.md")
ROWS, OUTCOMES = "wire rows", "wire outcomes"
TESTS = (
    "fuzzed decoders",
    "C and Python write the same messages",
    "damaged frames",
    "forged tags",
    "wrong key, downgrade, rollback, other version",
    "hostile updates",
    "lossy line, 256 KB each way",
    "every sixth frame lost",
    "first frames of a handshake lost",
    "100 KB of 0x00 or 0xFF on the line",
    "goodput on a paced terminal",
    "link cut at every block",
    "node killed in a round",
    "power lost at every flash operation",
    "broker restarted, killed, gone, robbed of its client",
    "FedTiny over two boards' UARTs in QEMU",
    "FedTiny over boards of two kinds in QEMU",
    "FedTiny over ten nodes behind mosquitto, TLS",
    "FedTiny over programs, terminals and sockets",
    "answers overtake each other",
    "host killed in a run",
)
ENDS = {"host": "Python", "node": "C", "both": "both"}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        if subprocess.run([*command, *telling()], check=False).returncode:
            return 1
        outcomes = read_outcomes(report.read_text())
    bench = [sys.executable, "-m", "fedtiny", "bench", "wire", "--json"]
    told = subprocess.run(bench, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = {"rows": json.loads(told)["rows"], "outcomes": outcomes}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    text = README.read_text()
    for mark, lines in ((ROWS, rows_table(figures["rows"])), (OUTCOMES, outcomes_table(outcomes))):
        text = table.between(text, mark, lines)
        print(lines)
    README.write_text(text)
    return 0


def telling() -> list[str]:
    """The test files in which a test tells an outcome."""
    return [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "outcome: Outcome" in path.read_text()]


def read_outcomes(report: str) -> list[dict[str, Any]]:
    """Lines of pytest's report, those that differ in `tried` alone added up, in the order of TESTS, others last."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for case in ET.fromstring(report).iter("testcase"):
        for told in case.iter("property"):
            if told.get("name") != "outcome":
                continue
            line = json.loads(told.get("value", ""))
            same = found.setdefault(tuple(line[key] for key in ("test", "end", "what", "result")), line | {"tried": 0})
            same["tried"] += line["tried"]
            same.setdefault("where", []).append(f"{case.get('file', case.get('classname'))}::{case.get('name')}")
    for line in found.values():
        line["where"] = sorted({name.partition("[")[0] for name in line["where"]})
    place = {name: at for at, name in enumerate(TESTS)}
    return sorted(
        found.values(),
        key=lambda line: (place.get(line["test"], len(TESTS)), line["test"], line["end"], -line["tried"]),
    )


def rows_table(rows: Sequence[dict[str, Any]]) -> str:
    """The promised rows, then those of the host; not the masks of every density."""
    beside = [row["name"] for row in rows if row["name"] not in WIRE.goals and not row["name"].startswith("mask.d")]
    return table.markdown(WIRE, [*WIRE.goals, *beside], rows)


def outcomes_table(outcomes: Sequence[dict[str, Any]]) -> str:
    lines = ["| test | of | tried | result |", "|---|---|---|---|"]
    for line in outcomes:
        tried = f"{line['tried']:,} {line['what']}"
        lines.append(f"| {line['test']} | {ENDS[line['end']]} | {tried} | {line['result']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
