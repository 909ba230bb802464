"""What the server tells whoever keeps a run's history."""

from __future__ import annotations

from typing import Protocol

from fedtiny.federation.records import RoundRecord, ServerState
from fedtiny.federation.tasks import Update


class Journal(Protocol):
    """Where accepted updates and finished rounds are kept, so that a stopped run can go on."""

    def accepted(self, round_number: int, node: str, update: Update) -> None: ...

    def finished(self, record: RoundRecord, state: ServerState) -> None: ...

    def stopped(self, state: ServerState, reason: str) -> None:
        """The run cannot go on now: `state` is that after the last finished round."""


class NoJournal:
    """Keeps nothing."""

    def accepted(self, round_number: int, node: str, update: Update) -> None: ...

    def finished(self, record: RoundRecord, state: ServerState) -> None: ...

    def stopped(self, state: ServerState, reason: str) -> None: ...
