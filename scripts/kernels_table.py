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

from fedtiny.bench.peers import peers_of
from fedtiny.bench.rows import BESIDE, GOALS
from fedtiny.bench.table import figure

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
    by_name = {row["name"]: row for row in rows}
    lines = ["| row | value | to reach | elsewhere |", "|---|---|---|---|"]
    small = [name for name in by_name if ".small." in name or ".portable." in name]
    for name in [*GOALS, *BESIDE, *small, "node.stack_bytes"]:
        row, goal = by_name[name], GOALS.get(name)
        reach = "" if goal is None else f"{'≥' if goal.at_least else '≤'} {figure(goal.value, row['unit'])}"
        peers = "; ".join(f"{figure(peer.value, peer.unit)} {peer.who}" for peer in peers_of(name))
        value = "-" if row["value"] is None else figure(row["value"], row["unit"])
        lines.append(f"| `{name}` | **{value}** | {reach} | {peers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
