"""The benchmark's rows for people: figures in their units, met or short, and the best elsewhere beside them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fedtiny.bench.peers import PUBLISHED, peers_of
from fedtiny.bench.rows import BESIDE, GOALS, Row, chosen, measure


def figure(value: float, unit: str) -> str:
    """1955867, "instructions" -> 1.956 M."""
    if unit == "bytes":
        return f"{value / 1024:.1f} KB"
    if unit.startswith(("instructions", "cycles")) and value >= 1000:
        return f"{value / 1e6:.3f} M"
    return f"{value:.2f}"


def watched(only: str | None) -> list[Row]:
    """Measures with one line of progress on standard error."""
    names = list(chosen(only))
    rows: list[Row] = []
    with Console(stderr=True).status("building") as status:

        def say(what: str) -> None:
            status.update(f"{len(rows)} of {len(names)} rows · {what}")

        for row in measure(only, say):
            rows.append(row)
    return rows


def print_table(rows: Sequence[Row]) -> None:
    """What is promised first, then the rest; peers beside a row, or below the table where the screen is narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    promised = [row for row in rows if row.name in GOALS or row.name in BESIDE]
    for title, some in (("Promised", promised), ("All others", [row for row in rows if row not in promised])):
        if some:
            console.print(_table(title, some, wide=console.width >= 120))
    if console.width < 120:
        for row in rows:
            if peers_of(row.name):
                console.print(f"{row.name}: {_elsewhere(row)}", highlight=False)
    for text in sorted({row.missing for row in rows if row.missing}):
        console.print(f"[yellow]missing[/] {text}", highlight=False)
    console.print(
        "Cycles are modelled, not timed (bench/cycles.py); peers were counted in the same emulator (bench/peers.py)."
    )
    for text in PUBLISHED:
        console.print(f"Published: {text}", highlight=False)


def _table(title: str, rows: Sequence[Row], *, wide: bool) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("to reach", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    if wide:
        table.add_column("elsewhere")
    for row in rows:
        value = "-" if row.value is None else figure(row.value, row.unit)
        table.add_row(row.name, value, _goal(row), _verdict(row), *([_elsewhere(row)] if wide else []))
    return table


def _elsewhere(row: Row) -> str:
    return "; ".join(f"{figure(peer.value, peer.unit)} {peer.who}" for peer in peers_of(row.name))


def _goal(row: Row) -> str:
    goal = GOALS.get(row.name)
    return "" if goal is None else f"{'≥' if goal.at_least else '≤'} {figure(goal.value, row.unit)}"


def _verdict(row: Row) -> str:
    """Met, or how many times short."""
    goal = GOALS.get(row.name)
    if row.value is None:
        return "[yellow]missing[/]"
    if goal is None:
        return ""
    if goal.met(row.value):
        return "[green]met[/]"
    return f"[red]short ×{goal.value / row.value if goal.at_least else row.value / goal.value:.2f}[/]"
