"""The journal of a run in SQLite: every accepted update before it counts, and after each round all that the next needs.

It outlives a crash: whatever was committed is there, and a run goes on after its last finished round.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fedtiny.federation.records import RoundRecord, Selection, ServerState
from fedtiny.federation.tasks import Update
from fedtiny_export.errors import ConfigError

VERSION = 1

_TABLES = f"""
CREATE TABLE updates (
    round INTEGER, node TEXT, samples INTEGER, seen INTEGER, loss_sum REAL, correct INTEGER,
    sha256 TEXT, "values" BLOB, moments BLOB, PRIMARY KEY (round, node)
);
CREATE TABLE rounds (round INTEGER PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), text TEXT NOT NULL, arrays BLOB NOT NULL);
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""


class SqliteJournal:
    """A journal in a file, or in a temporary database that is gone when closed (`path` None).

    `clock`: seconds, monotonic; a round's seconds run from the end of the round before it.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._database = sqlite3.connect("" if path is None else path)
        try:
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ConfigError(f"{path} is no journal of a run: {error}. Start a new run.") from None
        if version not in (0, VERSION):
            self._database.close()
            raise ConfigError(
                f"{path} is a journal of version {version}, this fedtiny reads {VERSION}. Start a new run."
            )
        self._database.execute("PRAGMA synchronous = FULL")
        self._tally = _tally(self.state)
        self._since = clock()

    def __enter__(self) -> SqliteJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def accepted(self, round_number: int, node: str, update: Update) -> None:
        """Commits an update; an earlier one of the same node and round, from before a stop, is replaced."""
        values = np.ascontiguousarray(update.values, "<f4").tobytes()
        row = (
            round_number, node, update.samples, update.seen, update.loss_sum, update.correct,
            hashlib.sha256(values).hexdigest(), values, np.ascontiguousarray(update.moments, "<f4").tobytes(),
        )  # fmt: skip
        with self._database as transaction:
            transaction.execute("INSERT OR REPLACE INTO updates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def finished(self, record: RoundRecord, state: ServerState) -> None:
        """Commits a round and the state after it, both or neither."""
        now, tally = self._clock(), _tally(state)
        spent = {kind: tally[kind] - self._tally.get(kind, 0) for kind in tally}
        row = round_row(record, seconds=now - self._since, by_kind={kind: n for kind, n in spent.items() if n})
        with self._database as transaction:
            transaction.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (record.round, json.dumps(row)))
            _write_state(transaction, state)
        self._since, self._tally = now, tally

    def stopped(self, state: ServerState, reason: str) -> None:
        """Keeps why a run could not go on; `state` is the one after the last finished round."""
        with self._database as transaction:
            _write_state(transaction, state)
        self.note("stopped", reason)

    def prepared(self, state: ServerState) -> None:
        """Commits the state before the first round; the first round's seconds and bytes count from here."""
        with self._database as transaction:
            _write_state(transaction, state)
        self._since, self._tally = self._clock(), _tally(state)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished rounds in order, as metrics.jsonl has them (docs/result.md)."""
        found = self._database.execute("SELECT row FROM rounds ORDER BY round").fetchall()
        return [json.loads(text) for (text,) in found]

    @property
    def state(self) -> ServerState | None:
        """The state after the last finished round, or None before the first was prepared."""
        found = self._database.execute("SELECT text, arrays FROM state").fetchone()
        return None if found is None else _read_state(*found)

    def note(self, key: str, value: object) -> None:
        """Keeps a fact about the run beside its rounds, for whoever goes on with it."""
        with self._database as transaction:
            transaction.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, json.dumps(value)))

    def noted(self, key: str) -> Any:
        found = self._database.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def copy_to(self, path: Path) -> None:
        """Writes the whole journal to a new file."""
        with sqlite3.connect(path) as target:
            self._database.backup(target)
        target.close()


def round_row(record: RoundRecord, *, seconds: float, by_kind: Mapping[str, int]) -> dict[str, Any]:
    """A finished round as plain data: one line of metrics.jsonl."""
    fields = asdict(record)
    fields["adjusted"] = fields.pop("adjustment")
    fields["failed"] = fields.pop("failures")
    fields["rejected"] = fields.pop("rejections")
    return fields | {"by_kind": dict(by_kind), "seconds": round(seconds, 4)}


def _tally(state: ServerState | None) -> dict[str, int]:
    """Bytes by kind so far, both directions together."""
    total: dict[str, int] = {}
    for direction in ("down", "up"):
        for kind, count in (state.tally.get(direction, {}) if state else {}).items():
            total[kind] = total.get(kind, 0) + count
    return total


def _write_state(transaction: sqlite3.Connection, state: ServerState) -> None:
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"array/{name}": array for name, array in state.arrays.items()}
    named |= {f"mask/{layer}": mask for layer, mask in state.masks.items()}
    named |= {f"memory/{name}": array for name, array in state.memory.items()}
    np.savez(buffer, **named)
    text = json.dumps(
        {
            "round": state.round,
            "adjustments": state.adjustments,
            "selection": None if state.selection is None else asdict(state.selection),
            "tally": dict(state.tally),
        }
    )
    transaction.execute("INSERT OR REPLACE INTO state VALUES (0, ?, ?)", (text, buffer.getvalue()))


def _read_state(text: str, arrays: bytes) -> ServerState:
    fields = json.loads(text)
    with np.load(io.BytesIO(arrays)) as stored:
        named = {key: stored[key] for key in stored.files}
    selection = fields["selection"]
    if selection is not None:
        lists = {key: tuple(value) for key, value in selection.items() if isinstance(value, list)}
        selection = Selection(**(selection | lists))
    return ServerState(
        round=fields["round"],
        adjustments=fields["adjustments"],
        arrays={key.removeprefix("array/"): value for key, value in named.items() if key.startswith("array/")},
        masks={int(key.removeprefix("mask/")): value for key, value in named.items() if key.startswith("mask/")},
        selection=selection,
        tally=fields["tally"],
        memory={key.removeprefix("memory/"): value for key, value in named.items() if key.startswith("memory/")},
    )
