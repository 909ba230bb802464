"""The README's table of exported networks: `fedtiny bench export` on this machine, its promised rows as Markdown.

    .venv/bin/python scripts/export_table.py

Writes docs/export.json and puts the table between its marks in README.md; tests/system/test_readme.py compares them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedtiny.bench import table
from fedtiny.bench.export import EXPORT

FIGURES = Path("docs/export.json")
README = Path("README.md")
BEGIN, END = "<!-- export: scripts/export_table.py -->\n", "<!-- export: end -->\n"


def main() -> None:
    command = [sys.executable, "-m", "fedtiny", "bench", "export", "--json"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    FIGURES.write_text(told)
    README.write_text(between(README.read_text(), markdown(rows_of(told))))


def rows_of(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(text)["rows"]
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    return table.markdown(EXPORT, [row["name"] for row in rows], rows)


def between(text: str, lines: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no place for the table: put {BEGIN.strip()} and {END.strip()} back.")
    return before + BEGIN + lines + END + after


if __name__ == "__main__":
    main()
