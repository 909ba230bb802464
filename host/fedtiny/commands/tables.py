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
