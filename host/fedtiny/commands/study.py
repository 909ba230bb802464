"""`fedtiny study`: run a grid of runs, and report what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fedtiny.commands import AsJson, command, print_json, say
from fedtiny_export.errors import ConfigError

if TYPE_CHECKING:
    from fedtiny.study.runner import Progress

File = Annotated[Path, typer.Argument(metavar="FILE.toml", help="The study (docs/study.md).")]
Out = Annotated[Path | None, typer.Option(help="The study's folder.", show_default="studies/FILE")]


class _RunByDefault(TyperGroup):
    """`fedtiny study FILE.toml` means `fedtiny study run FILE.toml`."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(context, args)


app = typer.Typer(
    help="Compare methods: a grid of runs, and tables of what came of it.", no_args_is_help=True, cls=_RunByDefault
)


@app.command("run")
@command
def run(
    file: File,
    out: Out = None,
    workers: Annotated[int, typer.Option(min=0, help="Cells at a time; 0: one per core.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many cells.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Only list the cells that are to run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the cells of a study that have not finished. It may be stopped at any time and started again.

    [bold]fedtiny study docs/studies/methods.toml[/] · [bold]fedtiny study report docs/studies/methods.toml[/]
    """
    from fedtiny.study.plan import read_study
    from fedtiny.study.runner import open_cells, run_study

    study, folder = read_study(file), _folder(file, out)
    if dry:
        to_run = open_cells(study, folder)
        if as_json:
            print_json({"cells": len(study.cells), "open": [cell.words for cell in to_run]})
        else:
            for cell in to_run:
                typer.echo(cell.words)
            say(f"{len(to_run)} of {len(study.cells)} cells are to run")
        return
    done, failed = run_study(study, folder, workers=workers, heard=_heard, limit=limit)
    if as_json:
        print_json({"folder": str(folder), "cells": len(study.cells), "finished": done, "failed": failed})
    else:
        typer.echo(f"{done} of {len(study.cells)} cells have finished: {folder}")
        typer.echo(f"Tables and plots: fedtiny study report {file}" + (f" --out {out}" if out else ""))
    if failed:
        raise typer.Exit(1)


@app.command("report")
@command
def report(file: File, out: Out = None, as_json: AsJson = False) -> None:
    """Write tables (Markdown, CSV, LaTeX) and plots of the cells that have finished.

    [bold]fedtiny study report docs/studies/methods.toml[/]
    """
    from fedtiny.study.plan import read_study
    from fedtiny.study.report import write_study_report

    study = read_study(file)
    written = write_study_report(study, _folder(file, out))
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(path)


def _folder(file: Path, out: Path | None) -> Path:
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: name the study's file, and its folder with --out {file}.")
    return out or Path("studies") / file.stem


def _heard(progress: Progress) -> None:
    from fedtiny.report import words

    outcome: dict[str, Any] = progress.outcome
    what = f"failed: {outcome['failed']}" if "failed" in outcome else f"{words.accuracy(outcome['accuracy'])}"
    left = f", about {words.seconds(progress.left_s)} left" if progress.done < progress.total else ""
    say(f"{progress.done} of {progress.total}: {progress.cell.words}: {what}{left}")
