"""The README's comparison of methods, out of the summaries of two studies.

    .venv/bin/python scripts/methods_table.py

Runs nothing: docs/studies/*.toml say how their summaries came to be. tests/system/test_readme.py compares them.
"""

from __future__ import annotations

import csv
from pathlib import Path

from fedtiny.bench.table import between
from fedtiny.report import words
from fedtiny.study.tables import markdown

README = Path("README.md")
MARK = "methods: scripts/methods_table.py"
STUDIES = ("methods", "recipes")
FASHION, SPAR, DIGITS = "Fashion-MNIST, 2,000 images", "SPAR", "digits"
# study, data, density: a column of accuracies
COLUMNS = (
    ("methods", FASHION, "0.1"),
    ("methods", FASHION, "0.05"),
    ("recipes", FASHION, "0.02"),
    ("recipes", FASHION, "0.01"),
    ("recipes", DIGITS, "0.02"),
    ("recipes", DIGITS, "0.01"),
    ("methods", SPAR, "0.1"),
)
HEADS = ("Fashion 0.1", "0.05", "0.02", "0.01", "digits 0.02", "0.01", "SPAR 0.1")
DENSE = "1.0"
COSTS = ("methods", FASHION, "0.02")

Found = dict[tuple[str, str, str, str], dict[str, str]]


def main() -> None:
    README.write_text(between(README.read_text(), MARK, table(Path("docs/studies"))))


def table(folder: Path) -> str:
    """The Markdown table of the studies in a folder."""
    found: Found = {}
    for study in STUDIES:
        with (folder / study / "summary.csv").open(encoding="utf-8", newline="") as stream:
            found |= {(study, r["data"], r["density"], r["method"]): r for r in csv.DictReader(stream)}
    methods = list(dict.fromkeys(method for study, _, _, method in found if study == "methods"))
    rows = [_row(found, method) for method in sorted(methods, key=lambda m: _rank(found, m))]
    heads = ["method", *HEADS, "FLOPs of dense", "bytes both ways"]
    return markdown([heads, *rows]) + "\n"


def _row(found: Found, method: str) -> list[str]:
    accuracies = [_accuracy(_cell(found, column, method)) for column in COLUMNS]
    costs = _cell(found, COSTS, method)
    if costs is None:
        return [method, *accuracies, "", ""]
    flops = words.percent(float(costs["flops_share"]))
    return [method, *accuracies, flops, words.size(float(costs["down"]) + float(costs["up"]))]


def _rank(found: Found, method: str) -> float:
    """Best first, by accuracy at 0.02 on Fashion-MNIST."""
    row = _cell(found, ("recipes", FASHION, "0.02"), method)
    return -float(row["accuracy"]) if row is not None else 0.0


def _cell(found: Found, column: tuple[str, str, str], method: str) -> dict[str, str] | None:
    """The line of a summary. One without masks serves every density; a method that the study of recipes leaves out has
    fewer seeds in that of all methods."""
    study, data, density = column
    for place in (study, "methods"):
        for share in (density, DENSE):
            if (place, data, share, method) in found:
                return found[place, data, share, method]
    return None


def _accuracy(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    half = f" ± {100 * float(row['half_interval']):.1f}" if row["half_interval"] else ""
    return f"{100 * float(row['accuracy']):.1f}{half}"


if __name__ == "__main__":
    main()
