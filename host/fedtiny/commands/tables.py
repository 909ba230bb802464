"""Tables that the commands on boards print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def _columns(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def print_boards(rows: Sequence[dict[str, Any]]) -> None:
    """What `fedtiny boards` lists."""
    table = _columns("board", "core", "FPU", "flash KiB", "RAM KiB, by bank", "built by", "QEMU")
    for column in (0, 1, 5):
        table.columns[column].no_wrap = True
    for row in rows:
        banks = " + ".join(f"{count // 1024} {name}" for name, count in row["banks"].items())
        flash = str(row["flash_bytes"] // 1024) if row["flash_bytes"] else "-"
        emulated = "yes" if row["emulated"] else ""
        table.add_row(row["board"], row["core"], row["fpu"], flash, banks or "-", row["built_by"], emulated)
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row["no_training"]:
            console.print(f"{row['board']} infers; it is not to train: {row['no_training']}.")


def print_flashed(rows: Sequence[dict[str, Any]]) -> None:
    """What became of each board of `fedtiny flash`."""
    table = _columns("board", "serial number", "port", "tool", "tries", "state", "firmware")
    for row in rows:
        state = {"failed": "[red]failed[/]", "answers": "[green]answers[/]"}.get(row["state"], row["state"])
        firmware = (row["firmware"] or "-")[:8]
        table.add_row(
            row["board"], row["serial"] or "-", row["port"] or "-", row["tool"], str(row["tries"]), state, firmware
        )
    Console(highlight=False).print(table)


def print_scanned(rows: Sequence[dict[str, Any]]) -> None:
    """What `fedtiny fleet scan` found."""
    if not rows:
        print("No USB device is plugged in that is a known board or has a serial port.")
        return
    table = _columns("port", "answers", "serial number", "USB", "may be")
    table.columns[1].no_wrap = True
    for row in rows:
        answer = f"[green]{row['node']} on {row['board']}[/]" if row["board"] else "-"
        device, may_be = f"{row['usb']} {row['product']}", ", ".join(row["may_be"]) or "-"
        table.add_row(row["port"] or "-", answer, row["serial"] or "-", device, may_be)
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row["problem"]:
            console.print(Text(row["problem"]))


def print_checks(rows: Sequence[dict[str, Any]], mends: Sequence[str]) -> None:
    """What `fedtiny doctor` found, and the commands that mend it."""
    table = _columns("", "what", "for", "found")
    for row in rows:
        mark = "[green]ok[/]" if row["good"] else "[red]missing[/]"
        table.add_row(mark, row["what"], row["wanted_for"], Text(row["found"]))
    console = Console(highlight=False)
    console.print(table)
    if mends:
        console.print("\nWhat mends it:")
        for line in mends:
            console.print(Text(f"  {line}"), soft_wrap=True)


def print_verification(found: dict[str, Any]) -> None:
    """How far the runtimes of a model are apart."""
    table = _columns("runtime", "n", "max error", "RMSE", "cosine", "class", "accuracy")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    rows = found["comparisons"]
    several = len({row["output"] for row in rows}) > 1
    head, missing, parting = "", [], []
    for row in rows:
        name = row["runtime"] + (f": {row['output']}" if several else "")
        if "missing" in row:
            missing.append(f"{row['precision']} {name} was not run: {row['missing']}")
            continue
        if "parts_at" in row:
            parting.append(f"{row['precision']} {name} first differs from the definition at {_short(row['parts_at'])}")
        if head != (head := f"{row['precision']} vs {row['against']}"):
            table.add_row(f"[bold]{head}[/]")
        equal = row["precision"] == "int8" and row.get("bits")
        table.add_row(
            f"  {name}",
            str(row["samples"]),
            "[green]same bits[/]" if equal else f"{row['max_error']:.1e}",
            f"{row['rmse']:.1e}",
            f"{row['cosine']:.6f}",
            f"{row['agreement']:.1%}",
            f"{row['accuracy']:.1%}" if "accuracy" in row else "",
        )
    console = Console(highlight=False)
    console.print(table)
    for line in (*missing, *parting):
        console.print(line, markup=False)
    if found["points_lost_to_int8"] is not None:
        console.print(f"int8 loses {found['points_lost_to_int8']:.1f} points of accuracy")
    console.print("[green]every runtime computes the model[/]" if found["good"] else "[red]runtimes differ[/]")


def _short(operator: str) -> str:
    """An operator's name; of those that TensorFlow strings together for fused ones, the first."""
    return operator.partition(";")[0]


def print_plans(rows: Sequence[dict[str, Any]]) -> None:
    """What a model takes of a board."""
    table = _columns("work", "flash", "RAM", "of bank", "instructions", "ms", "energy", "")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:6]:
        column.justify = "right"
    for row in rows:
        ((bank, used),) = row["ram"].items()
        table.add_row(
            row["work"],
            f"{row['model_flash_bytes'] + row['code_flash_bytes']:,}" if row["model_flash_bytes"] else "-",
            f"{used:,}",
            f"{row['banks'][bank]:,} {bank}",
            f"{row['instructions']:,}",
            "-" if row["seconds"] is None else f"{1000 * row['seconds']:,.1f}",
            row["energy_class"] or "-",
            "[green]fits[/]" if row["fits"] else "[red]refused[/]",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "Estimates for one sample, at one instruction per cycle. Energy: A below 0.1 mJ, B 1, C 10, D 100, E above."
    )
