"""What all commands share: errors as one message, JSON on request."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from fedtiny_export.errors import FedtinyError

P = ParamSpec("P")
R = TypeVar("R")

WRONG = 2
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command whose errors are one message and exit code 2, and whose Ctrl-C is exit code 130."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FedtinyError as error:
            say(f"fedtiny: {error}")
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            say("fedtiny: stopped")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe has seen enough
            sys.stderr.close()
            raise typer.Exit(1) from None

    return run


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    typer.echo(text, err=True)
