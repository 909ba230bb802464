"""What all tests share: a way to tell how much was tried and what came of it, for the README's table of outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, Protocol

import pytest


class Outcome(Protocol):
    def __call__(
        self, test: str, *, end: Literal["host", "node", "both"], tried: int, what: str, result: str
    ) -> None: ...


@pytest.fixture
def outcome(record_property: Callable[[str, object], None]) -> Outcome:
    """Tells a line of the table: `outcome("damaged frames", end="host", tried=10**6, what="frames", result="0 taken")`.

    Call it last, when all that the line says has been asserted. `end`: whose code was tried. Lines of several tests
    that differ in `tried` alone are added up. scripts/wire_table.py has the names of the tests and their order.
    """

    def tell(test: str, *, end: Literal["host", "node", "both"], tried: int, what: str, result: str) -> None:
        line = {"test": test, "end": end, "tried": tried, "what": what, "result": result}
        record_property("outcome", json.dumps(line))

    return tell
