"""The report of a study: Markdown with tables and plots, CSV, LaTeX, SVG; of the cells that have finished so far."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedtiny.report import words
from fedtiny.study import tables
from fedtiny.study.plan import Study
from fedtiny.study.plots import Line, plot
from fedtiny.study.stats import mean_of
from fedtiny.study.store import Store
from fedtiny.study.tables import Group, Row
from fedtiny_export.errors import ConfigError

_AGAINST: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bytes", "bytes moved, both directions", words.size),
    ("flops_total", "training FLOPs of a node", lambda v: f"{v:.2g}"),
    ("plan_bytes", "peak memory with activations", words.size),
)


def write_study_report(study: Study, folder: Path) -> list[Path]:
    """Writes report.md, cells.csv, summary.csv, tables.tex and plots into the study's folder; returns them.

    Raises ConfigError where no cell has finished.
    """
    store = Store(folder)
    rows = [row for cell in study.cells if (row := store.finished(cell)) is not None]
    if not rows:
        raise ConfigError(f"{folder} has no finished cell of {study.name}. Run it: fedtiny study {study.name}.toml")
    methods = list(dict.fromkeys(cell.method for cell in study.cells))
    groups = tables.grouped(rows)
    written: list[Path] = []
    text = [f"# {study.title}", "", _head(study, store, rows), ""]
    latex = []
    for group in groups:
        accuracy = tables.accuracy_table(group, methods)
        latex.append(tables.latex(accuracy, f"Accuracy in %, {group.title}"))
        text += [f"## {group.title}", "", "Accuracy in %, mean ± half of the 95 % interval (seeds):", ""]
        text += [tables.markdown(accuracy), ""]
        compared = tables.paired_table(group, methods, study.reference)
        if len(compared) > 1 and len(compared[0]) > 1:
            text += [f"Points more than {study.reference}, seed by seed, with p of a paired t test:", ""]
            text += [tables.markdown(compared), ""]
            latex.append(tables.latex(compared, f"Points more than {study.reference}, {group.title}"))
        text += ["What it takes, means over seeds:", "", tables.markdown(tables.cost_table(group, methods)), ""]
        for name, svg in _plots(group, methods):
            written.append(store.write(f"{_slug(group.title)}-{name}.svg", svg))
            text += [f"![{name}]({written[-1].name})", ""]
    for name, svg in _axis_plots(groups, methods):
        written.append(store.write(f"{name}.svg", svg))
        text += [f"![{name}]({written[-1].name})", ""]
    return [
        store.write("report.md", "\n".join(text)),
        store.write("cells.csv", tables.csv_of(rows)),
        store.write("summary.csv", tables.summary_csv(groups, methods)),
        store.write("tables.tex", "\n\n".join(latex) + "\n"),
        *written,
    ]


def _head(study: Study, store: Store, rows: Sequence[Row]) -> str:
    failed = [(cell, why) for cell in study.cells if (why := store.failed(cell)) is not None]
    parts = [
        f"{len(rows)} of {len(study.cells)} cells have finished, in {words.seconds(sum(row['wall_s'] for row in rows))}"
        f" of one core. The command: `fedtiny study {study.name}.toml`, then `fedtiny study report {study.name}.toml`."
    ]
    parts += [f"Failed: {cell.words}: {why}" for cell, why in failed]
    return "\n\n".join(parts)


def _plots(group: Group, methods: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    sparse = [d for d in group.densities if d < 1.0]
    lines = [line for m in methods if (line := _line(group, m, lambda m, d: d, group.densities)) is not None]
    common: dict[str, Any] = {"y_label": "accuracy %", "log": True}
    if len(sparse) > 1:
        title = f"Accuracy by density, {group.title}"
        found.append(("density", plot(lines, title=title, x_label="density", **common)))
    for key, label, form in _AGAINST:
        costed = [
            line for m in methods if (line := _line(group, m, partial(_cost, group, key), group.densities)) is not None
        ]
        if costed:
            title = f"Accuracy by {label}, {group.title}"
            found.append((key, plot(costed, title=title, x_label=label, x_text=form, **common)))
    least = min(group.densities)
    curves = []
    for method in methods:
        density = least if group.of(method, least) else 1.0
        runs = [row["accuracy_by_round"] for row in group.of(method, density).values()]
        if runs:
            means = [mean_of(values).mean for values in zip(*runs, strict=False)]
            curves.append(Line(name=method, x=[float(i + 1) for i in range(len(means))], y=means))
    if curves and max(len(curve.x) for curve in curves) > 1:
        title = f"Convergence at density {least:g}, {group.title}"
        found.append(("convergence", plot(curves, title=title, x_label="round", y_label="accuracy %", dots=False)))
    return found


def _line(
    group: Group, method: str, x_of: Callable[[str, float], float | None], densities: Sequence[float]
) -> Line | None:
    """Accuracy of a method over its densities."""
    points = []
    for density in densities:
        accuracy, x = group.accuracy(method, density), x_of(method, density)
        if accuracy is not None and x is not None and x > 0:
            points.append((x, accuracy.mean, accuracy.half))
    points.sort()
    if not points:
        return None
    return Line(name=method, x=[p[0] for p in points], y=[p[1] for p in points], halves=[p[2] for p in points])


def _cost(group: Group, key: str, method: str, density: float) -> float | None:
    return group.cost(method, density, key)


def _axis_plots(groups: Sequence[Group], methods: Sequence[str]) -> list[tuple[str, str]]:
    """Accuracy by alpha, and by each other setting that the study varies, at the smallest density."""
    found = []
    axes = {"alpha", *(key for group in groups for row in group.rows for key in row["axes"])}
    for data in dict.fromkeys(group.data for group in groups):
        for axis in sorted(axes):
            rows = [row for group in groups if group.data == data for row in group.rows]
            rows = list({row["key"]: row for row in rows}.values())
            values = list(dict.fromkeys(v for row in rows if (v := _value(row, axis)) is not None))
            if len(values) < 2:
                continue
            least = min(row["density"] for row in rows)
            lines = []
            for method in methods:
                points = []
                for position, value in enumerate(values):
                    inside = [row["accuracy"] for row in rows if row["method"] == method
                              and _value(row, axis) == value and row["density"] == least]  # fmt: skip
                    if inside:
                        mean = mean_of(inside)
                        points.append((float(position), mean.mean, mean.half))
                if points:
                    lines.append(Line(name=method, x=[p[0] for p in points], y=[p[1] for p in points],
                                      halves=[p[2] for p in points]))  # fmt: skip
            if lines:
                short = axis.rpartition(".")[2]
                title = f"Accuracy by {short} at density {least:g}, {data}"
                names = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
                svg = plot(lines, title=title, x_label=short, y_label="accuracy %", names=names)
                found.append((f"{_slug(data)}-by-{_slug(short)}", svg))
    return found


def _value(row: Row, axis: str) -> Any:
    return row["alpha"] if axis == "alpha" else row["axes"].get(axis)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
