"""The README's table of kernels: `fedtiny bench kernels` on this machine, its promised rows as Markdown.

    .venv/bin/python scripts/kernels_table.py

Writes docs/kernels.json; tests/system/test_readme.py compares the README with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedtiny.bench import table
from fedtiny.bench.rows import KERNELS

FIGURES = Path("docs/kernels.json")


def main() -> None:
    command = [sys.executable, "-m", "fedtiny", "bench", "kernels", "--json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    FIGURES.write_text(told)
    print(markdown(rows_of(told)))


def rows_of(text: str) -> list[dict[str, Any]]:
    told = json.loads(text)
    rows: list[dict[str, Any]] = told["rows"] if isinstance(told, dict) else told
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The promised rows in the order of the goals, then what the small plans cost."""
    small = [row["name"] for row in rows if ".small." in row["name"] or ".portable." in row["name"]]
    return table.markdown(KERNELS, [*KERNELS.goals, *KERNELS.beside, *small, "node.stack_bytes"], rows)


if __name__ == "__main__":
    main()
