"""The benchmark's rows for people: figures in their units, met or short, and the best elsewhere beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fedtiny.bench.suite import Config, Row, Suite
from fedtiny_export.errors import FedtinyError


def figure(value: float, unit: str) -> str:
    """1955867, "instructions" -> 1.956 M."""
    if unit == "bytes":
        return f"{value / 1024:.1f} KB"
    if unit.startswith(("instructions", "cycles")) and value >= 1000:
        return f"{value / 1e6:.3f} M"
    if unit == "ratio":
        return f"{value:.3f}"
    if unit in ("kB/s", "s", "ms", "us"):
        return f"{value:.2f} {unit}"
    return f"{value:.2f}"


def watched(suite: Suite, only: str | None) -> list[Row]:
    """Measures with one line of progress on standard error."""
    names = suite.chosen(only)
    rows: list[Row] = []
    with Console(stderr=True).status("building") as status:

        def say(what: str) -> None:
            status.update(f"{len(rows)} of {len(names)} rows · {what}")

        for row in suite.measure(only, say):
            rows.append(row)
    return rows


def print_table(suite: Suite, rows: Sequence[Row]) -> None:
    """What is promised first, then the rest; peers beside a row, or below the table where the screen is narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    promised = [row for row in rows if row.name in suite.goals or row.name in suite.beside]
    for title, some in (("Promised", promised), ("All others", [row for row in rows if row not in promised])):
        if some:
            console.print(_table(suite, title, some, wide=console.width >= 120))
    if console.width < 120:
        for row in rows:
            if suite.peers_of(row.name):
                console.print(f"{row.name}: {_elsewhere(suite, row.name)}", highlight=False)
    for text in sorted({row.missing for row in rows if row.missing}):
        console.print(f"[yellow]missing[/] {text}", highlight=False)
    for text in suite.notes:
        console.print(text, highlight=False)


def _table(suite: Suite, title: str, rows: Sequence[Row], *, wide: bool) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("to reach", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    if wide:
        table.add_column("elsewhere")
    for row in rows:
        value = "-" if row.value is None else figure(row.value, row.unit)
        table.add_row(
            row.name,
            value,
            _goal(suite, row.name, row.unit),
            _verdict(suite, row),
            *([_elsewhere(suite, row.name)] if wide else []),
        )
    return table


def markdown(suite: Suite, names: Iterable[str], rows: Sequence[Config]) -> str:
    """These rows, as `Row.as_json` gives them, for a README."""
    by_name = {row["name"]: row for row in rows}
    lines = ["| row | value | to reach | elsewhere |", "|---|---|---|---|"]
    for name in names:
        row = by_name[name]
        value = "-" if row["value"] is None else figure(row["value"], row["unit"])
        lines.append(f"| `{name}` | **{value}** | {_goal(suite, name, row['unit'])} | {_elsewhere(suite, name)} |")
    return "\n".join(lines) + "\n"


def between(text: str, mark: str, lines: str) -> str:
    """The text with these lines between `<!-- mark -->` and `<!-- end of mark -->`. Raises FedtinyError."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    head, found, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found and found_end):
        raise FedtinyError(f"no {begin.strip()} … {end.strip()}: put both where the table belongs")
    return head + begin + lines + end + tail


def _elsewhere(suite: Suite, name: str) -> str:
    return "; ".join(f"{figure(peer.value, peer.unit)} {peer.who}" for peer in suite.peers_of(name))


def _goal(suite: Suite, name: str, unit: str) -> str:
    goal = suite.goals.get(name)
    return "" if goal is None else f"{'≥' if goal.at_least else '≤'} {figure(goal.value, unit)}"


def _verdict(suite: Suite, row: Row) -> str:
    """Met, or how many times short."""
    goal = suite.goals.get(row.name)
    if row.value is None:
        return "[yellow]missing[/]"
    if goal is None:
        return ""
    if goal.met(row.value):
        return "[green]met[/]"
    return f"[red]short ×{goal.value / row.value if goal.at_least else row.value / goal.value:.2f}[/]"
