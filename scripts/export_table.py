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
MARK = "export: scripts/export_table.py"


def main() -> None:
    command = [sys.executable, "-m", "fedtiny", "bench", "export", "--json"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    FIGURES.write_text(told)
    README.write_text(table.between(README.read_text(), MARK, markdown(rows_of(told))))


def rows_of(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(text)["rows"]
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    return table.markdown(EXPORT, [row["name"] for row in rows], rows)


if __name__ == "__main__":
    main()
