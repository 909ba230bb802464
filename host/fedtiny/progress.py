"""What a terminal shows: a run as it goes, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fedtiny.config import Config
    from fedtiny.federation.records import Event, RoundRecord, Selection

PHASES = {
    "data": "reading data",
    "model": "building the model",
    "fleet": "opening the fleet",
    "pre-training": "server pre-trains",
    "scoring": "server ranks weights",
    "pruning": "server prunes its dense model",
    "selection": "nodes try the candidates",
    "loading": "nodes load the model",
    "report": "writing the report",
}


class TimeLeft(TimeRemainingColumn):
    """Only of the rounds: a phase is over before it could be told."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["timed"] else Text()


class Display:
    """A live display on standard error; silent where `live` is off."""

    def __init__(self, config: Config, *, live: bool) -> None:
        self._config = config
        self._console = Console(stderr=True, quiet=not live, highlight=False)
        self._bytes = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeLeft(compact=True),
            console=self._console,
            transient=True,
            disable=not live,
        )
        self._rounds = self._progress.add_task(
            "rounds", total=config.train.rounds, figures="", timed=True, visible=False
        )
        self._nodes = self._progress.add_task("", total=None, figures="", timed=False)

    def __enter__(self) -> Display:
        config = self._config
        from fedtiny.config import method_of

        density = method_of(config).density
        method = config.pruning.method + ("" if density == 1.0 else f" at density {density:g}")
        self._console.print(
            f"[bold]{config.name}[/]: {method}, {config.fleet.nodes} {config.fleet.kind} nodes, seed {config.seed}"
        )
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._progress.stop()

    def phase(self, name: str) -> None:
        """One of PHASES, or what is worth a line of its own."""
        if name not in PHASES:
            self._console.print(name)
        self._progress.update(self._nodes, description=PHASES.get(name, name), total=None, completed=0)

    def heard(self, event: Event) -> None:
        """One node's answer."""
        if event.phase != "select" and event.round:
            self._progress.update(self._nodes, description=f"nodes {event.phase}")
        self._progress.update(self._nodes, total=event.asked, completed=event.done)
        if event.problem is not None:
            self._console.print(f"[yellow]round {event.round}: {event.node} left out:[/] {event.problem}")

    def prepared(self, selection: Selection | None, rows: list[dict[str, Any]]) -> None:
        if selection is not None:
            losses = ", ".join(f"{loss:.3f}" for loss in sorted(selection.losses)[:3])
            self._console.print(
                f"candidate {selection.chosen + 1} of {selection.count} chosen by its loss (smallest: {losses})"
            )
        self._bytes = sum(row["bytes_down"] + row["bytes_up"] for row in rows)
        self._progress.update(self._rounds, visible=True, completed=len(rows))

    def round(self, record: RoundRecord) -> None:
        self._bytes += record.bytes_down + record.bytes_up
        figures = f"accuracy {record.accuracy:.1%}  density {record.density:.3f}  moved {size(self._bytes)}"
        self._progress.update(self._rounds, completed=record.round, figures=figures)
        if record.adjustment is not None:
            change = record.adjustment
            moved = f"{change.pruned} weights pruned, {change.grown} grown"
            self._console.print(f"[dim]round {change.round}, block {change.block}: {moved}[/]")


def print_summary(result: dict[str, Any], folder: Path) -> None:
    """What a run came to, for people."""
    moved, memory, candidates = result["bytes"], result["memory"], result["candidates"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    unfinished = "" if result["state"] == "finished" else f" of {result['rounds_planned']} ({result['state']})"
    table.add_row("run", f"{result['run_id']}: {result['method']}, {result['fleet']} fleet")
    plain = [row["node"] for row in result["nodes_report"] if row.get("profile") == "plain"]
    if plain:
        table.add_row("profile", f"[bold red]plain: nothing protects the line of {', '.join(plain)}[/]")
    table.add_row("rounds", f"{result['rounds']}{unfinished}, {result['nodes']} nodes, {result['wall_s']:.1f} s")
    if result["accuracy"] is not None:
        table.add_row("accuracy", f"{result['accuracy']:.1%} on the test samples, loss {result['loss']:.3f}")
    table.add_row("density", f"{result['density_actual']:.4f} (target {result['density_target']:g})")
    if candidates["count"]:
        table.add_row("candidates", f"{candidates['count']}, number {candidates['chosen'] + 1} chosen")
    exchanged = sum(change["pruned"] for change in result["adjustments"])
    if exchanged:
        table.add_row("adjustments", f"{len(result['adjustments'])}, {exchanged:,} weights exchanged")
    total = moved["down"] + moved["up"]
    share = f", {total / moved['dense_fedavg']:.1%} of dense FedAvg" if moved["dense_fedavg"] else ""
    table.add_row("moved", f"{size(moved['down'])} down, {size(moved['up'])} up{share}")
    if link := moved.get("link"):
        table.add_row("on links", f"{size(link['down'])} down, {size(link['up'])} up, frames and data")
    if memory["plan_bytes"] is not None:
        table.add_row("memory", f"{size(memory['plan_bytes'])} a node")
    table.add_row("operations", f"{result['flops']['ratio_to_dense']:.1%} of dense training, the costliest round")
    if costs := result.get("costs"):  # not in runs of earlier versions
        part = costs["flops_total"] / costs["flops_dense_total"] if costs["flops_dense_total"] else 0.0
        spent = f"{costs['flops_total']:.3g} FLOPs of a node in all rounds, {part:.1%} of dense"
        held = f"{size(costs['paper_memory_bytes'])} of weights and gradients"
        table.add_row("costs", f"{spent}; {held}; {costs['models_given']} models sent to a node")
    if result["failures"] or result["rejections"]:
        table.add_row("left out", f"{len(result['failures'])} failures, {len(result['rejections'])} rejected updates")
    table.add_row("model", f"{size(result['model_bytes'])}, sha256 {result['model_sha256'][:16]}…")
    console = Console(highlight=False)
    console.print(table)
    if result["fleet"] == "wire" and "boards" in result:  # not in runs of earlier versions
        print_boards(result["boards"])
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


def print_boards(rows: Sequence[dict[str, Any]]) -> None:
    """Each board in a line, what is out of the ordinary in yellow; the report has a part for each."""
    table = Table(box=None, pad_edge=False)
    for column in ("node", "board", "peak", "planned", "busy", "resets", "dropped", "asked again", "left out"):
        table.add_column(column, overflow="fold", justify="left" if column in ("node", "board") else "right")
    for row in rows:
        dropped, again = row["dropped"] or {}, row["asked_again"] or {}
        unusual = [
            row["resets"],
            (dropped.get("node") or 0) + sum(dropped.get("host", {}).values()),
            (again.get("node") or 0) + again.get("host", 0),
            row["failures"] + row["rejections"],
        ]
        table.add_row(
            row["node"],
            escape(row["board"] or "-"),
            *("-" if row[key] is None else size(row[key]) for key in ("peak_bytes", "plan_bytes")),
            "-" if row["busy_s"] is None else f"{row['busy_s']:.1f} s",
            *(f"[yellow]{count}[/]" if count else "0" for count in unusual),
        )
    _wide().print(table)


def print_evaluation(outcome: dict[str, Any]) -> None:
    """What `fedtiny eval` found."""
    console = Console(highlight=False)
    console.print(
        f"{outcome['samples']} test samples of {outcome['dataset']}\n"
        f"native node   {outcome['node']['accuracy']:.2%}  loss {outcome['node']['loss']:.4f}\n"
        f"ONNX Runtime  {outcome['onnxruntime']['accuracy']:.2%}  loss {outcome['onnxruntime']['loss']:.4f}\n"
        f"the same class on {outcome['agreement']:.2%}, logits differ by at most {outcome['max_abs']:.2g}"
    )


def print_devices(rows: Sequence[dict[str, Any]]) -> None:
    """What `fedtiny fleet list` found; an unprotected line is red."""
    table = Table(box=None, pad_edge=False)
    figures = ("free RAM", "peak", "starts", "dropped")
    for column in ("node", "state", "board", "firmware", *figures, "profile", "last seen"):
        table.add_column(column, overflow="fold")
    table.add_column("link", overflow="fold", ratio=1)
    for row in rows:
        state = {True: "here", False: "[yellow]silent[/]", None: row["state"]}[row["reached"]]
        if row["state"] in ("unknown", "pending", "revoked"):
            state = f"[yellow]{'no key' if row['state'] == 'unknown' else row['state']}[/]"
        free = size(row["free_ram"]) if row["free_ram"] is not None else "-"
        seen = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["last_seen"])) if row["last_seen"] else "never"
        table.add_row(
            row["node"], state, escape(row["board"] or "-"), (row["firmware"] or "-")[:8], free,
            "-" if row["peak_bytes"] is None else size(row["peak_bytes"]),
            *("-" if row[key] is None else str(row[key]) for key in ("boot_counter", "dropped")),
            _profile(row["profile"]), seen, _short(row["link"]),
        )  # fmt: skip
    console = _wide()
    console.print(table)
    for row in rows:
        if row["problem"]:
            console.print(Text(row["problem"]))


def _wide() -> Console:
    """A console whose tables do not wrap where nobody looks."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=150)


def _short(link: str, most: int = 40) -> str:
    """Its beginning; --json has all of it."""
    return link if len(link) <= most else link[: most - 1] + "…"


def _profile(word: str) -> str:
    return "[bold red]plain[/]" if word == "plain" else word


def print_presets(found: dict[str, str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("command", no_wrap=True)
    table.add_column("what it is")
    for name, title in found.items():
        table.add_row(f"fedtiny run {name}", title)
    Console(highlight=False).print(table)


def size(count: float) -> str:
    """Bytes for people: 1.2 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
