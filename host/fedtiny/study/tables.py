"""What came of a study's cells, as tables: means with intervals over seeds, paired differences, costs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedtiny.report import words
from fedtiny.study.stats import Mean, Paired, mean_of, paired

Row = dict[str, Any]
"""One finished cell: its place in the grid and its outcome."""

COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("flops_total", "training FLOPs", lambda v: words.DASH if v is None else f"{v:.3g}"),
    ("flops_share", "of dense", words.percent),
    ("paper_memory_bytes", "memory, no activations", words.size),
    ("plan_bytes", "peak with activations", words.size),
    ("down", "bytes down", words.size),
    ("up", "bytes up", words.size),
    ("models_given", "flash writes", words.whole),
    ("weights_live", "live weights", words.whole),
    ("node_s", "node time", words.seconds),
    ("wall_s", "wall time", words.seconds),
)
"""Columns beside accuracy: key, heading, form. Flash writes are those of a node that keeps what it is given."""


@dataclass(frozen=True)
class Group:
    """The cells that differ in method, density and seed alone."""

    data: str
    alpha: float | None
    axes: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        parts = [self.data] + ([f"alpha {self.alpha:g}"] if self.alpha is not None else [])
        return ", ".join([*parts, *([self.axes] if self.axes else [])])

    @property
    def densities(self) -> list[float]:
        return sorted({row["density"] for row in self.rows}, reverse=True)

    def of(self, method: str, density: float) -> dict[int, Row]:
        """By seed."""
        return {row["seed"]: row for row in self.rows if row["method"] == method and row["density"] == density}

    def accuracy(self, method: str, density: float) -> Mean | None:
        found = [row["accuracy"] for row in self.of(method, density).values()]
        return mean_of(found) if found else None

    def against(self, method: str, other: str, density: float) -> Paired | None:
        """Accuracy of one minus that of the other, over the seeds that both have; a dense method is itself at any
        density."""
        a, b = (self.of(name, 1.0 if self.is_dense(name) else density) for name in (method, other))
        seeds = sorted(a.keys() & b.keys())
        return paired([a[s]["accuracy"] for s in seeds], [b[s]["accuracy"] for s in seeds]) if seeds else None

    def is_dense(self, method: str) -> bool:
        """Whether it has no cell with masks."""
        return {row["density"] for row in self.rows if row["method"] == method} == {1.0}

    def _cost(self, row: Row, key: str) -> float | None:
        """Of one cell. A share of dense is one of the largest model's: a narrower net's own would say nothing."""
        if key != "flops_share":
            return cost_of(row, key)
        dense = max(other.get("flops_dense_total", 0.0) for other in self.rows if other["seed"] == row["seed"])
        return words.number(row["flops_total"] / dense) if dense else None

    def cost(self, method: str, density: float, key: str) -> float | None:
        """Mean over seeds; None where a cell does not tell."""
        found = [self._cost(row, key) for row in self.of(method, density).values()]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None


def cost_of(row: Row, key: str) -> float | None:
    if key == "bytes":
        return float(row["down"] + row["up"])
    return words.number(row.get(key))


def grouped(rows: Iterable[Row]) -> list[Group]:
    """By data set, alpha and what else the study varies. Methods that a pruning setting does not touch join every
    group that differs in such settings alone."""
    found = list(rows)
    places: dict[tuple[str, Any, str], dict[str, Any]] = {}
    for row in found:
        places.setdefault((row["data"], row["alpha"], named(row["axes"])), row["axes"])
    if any(axes for axes in places.values()):  # a dense method's own place is part of the others
        full = max(len(axes) for axes in places.values())
        places = {place: axes for place, axes in places.items() if len(axes) == full}
    groups = []
    for (data, alpha, name), axes in places.items():
        inside = [
            row for row in found if (row["data"], row["alpha"]) == (data, alpha) and row["axes"].items() <= axes.items()
        ]
        groups.append(Group(data, alpha, name, tuple(inside)))
    return groups


def named(axes: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in axes.items())


def accuracy_table(group: Group, methods: Sequence[str]) -> list[list[str]]:
    """Heading and rows: mean +- half of the 95 % interval in points (seeds)."""
    head = ["method", *(_density(d) for d in group.densities)]
    rows = [[m, *(_accuracy(group.accuracy(m, d)) for d in group.densities)] for m in methods]
    return [head, *(row for row in rows if any(cell for cell in row[1:]))]


def paired_table(group: Group, methods: Sequence[str], reference: str) -> list[list[str]]:
    """Differences from the reference in points, with the interval and p of a paired t test."""
    dense = group.is_dense(reference)
    densities = [d for d in group.densities if dense or group.of(reference, d)]
    rows = []
    for method in methods:
        cells = [_difference(group.against(method, reference, d)) for d in densities]
        if method != reference and any(cells):
            rows.append([method, *cells])
    return [[f"minus {reference}", *(_density(d) for d in densities)], *rows]


def cost_table(group: Group, methods: Sequence[str]) -> list[list[str]]:
    shown = [c for c in COSTS if any(group.cost(m, d, c[0]) is not None for m in methods for d in group.densities)]
    rows = []
    for density in group.densities:
        for method in methods:
            accuracy = group.accuracy(method, density)
            if accuracy is not None:
                costs = [form(group.cost(method, density, key)) for key, _, form in shown]
                rows.append([_density(density), method, _accuracy(accuracy), *costs])
    return [["density", "method", "accuracy %", *(heading for _, heading, _ in shown)], *rows]


def markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def latex(table: Sequence[Sequence[str]], caption: str) -> str:
    """A table environment that needs no package."""
    head, *rows = table
    body = [" & ".join(_tex(cell) for cell in line) + r" \\" for line in (head, *rows)]
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline",
            r"\end{tabular}", r"\end{table}",
        ]
    )  # fmt: skip


def csv_of(rows: Sequence[Row]) -> str:
    """Every finished cell on a line; bytes by kind and rounds as JSON."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(keys)
    for row in rows:
        values = [row.get(key) for key in keys]
        writer.writerow([json.dumps(v) if isinstance(v, list | dict) else "" if v is None else v for v in values])
    return out.getvalue()


def summary_csv(groups: Sequence[Group], methods: Sequence[str]) -> str:
    """A line per method and density of each group: mean, half interval, seeds, mean costs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["data", "alpha", "axes", "method", "density", "accuracy", "half_interval", "seeds",
                     *(key for key, _, _ in COSTS)])  # fmt: skip
    for group in groups:
        for density in group.densities:
            for method in methods:
                found = group.accuracy(method, density)
                if found is not None:
                    costs = [group.cost(method, density, key) for key, _, _ in COSTS]
                    place = [group.data, group.alpha, group.axes, method, density]
                    values = [*place, found.mean, found.half, found.count, *costs]
                    writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()


def _density(density: float) -> str:
    return "dense" if density == 1.0 else f"{density:g}"


def _accuracy(found: Mean | None) -> str:
    if found is None:
        return ""
    half = "" if found.half is None else f" ± {100 * found.half:.1f}"
    return f"{100 * found.mean:.1f}{half} ({found.count})"


def _difference(found: Paired | None) -> str:
    if found is None:
        return ""
    if found.p is None:
        return f"{100 * found.difference:+.1f} (1)"
    return f"{100 * found.difference:+.1f} ± {100 * (found.half or 0.0):.1f}, p {found.p:.2g} ({found.count})"


def _tex(text: str) -> str:
    for sign in "&%_#$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r"$\pm$").replace("–", "--")
