"""A run folder as it was left, read leniently: a run that has not finished lacks files and keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtiny.report import words
from fedtiny.runfolder import CONFIG, METRICS, RESULT
from fedtiny_export.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the folder says: result.json, the lines of metrics.jsonl, config.toml's text ("" where there is none)."""

    result: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    config: str


def read_run(folder: Path) -> RunRecord:
    """Reads a run folder, finished or not."""
    if not any((folder / name).is_file() for name in (RESULT, METRICS, CONFIG)):
        raise ConfigError(f"{folder} is no run folder: it has no {RESULT}. Name a folder that `fedtiny run` made.")
    result: dict[str, Any] = {"run_id": folder.resolve().name}
    if (folder / RESULT).is_file():
        try:
            found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{folder / RESULT} is damaged ({error}). Move it away and write it anew.") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{folder / RESULT} holds no table. Move it away and write it anew.")
        result |= found
    config = folder / CONFIG
    return RunRecord(
        result=result,
        rounds=_read_rounds(folder / METRICS) or _rounds_of(result),
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
    )


def table_of(source: Mapping[str, Any], key: str) -> dict[str, Any]:
    """source[key] where that is a table, else an empty one."""
    found = source.get(key)
    return found if isinstance(found, dict) else {}


def dicts(values: Any) -> list[dict[str, Any]]:
    """The tables in a list of tables."""
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def adjusted(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The adjustments that say their round."""
    return [a for a in dicts(result.get("adjustments")) if words.number(a.get("round")) is not None]


def column(run: RunRecord, key: str) -> list[float | None]:
    """A figure by round; None where it is missing or not finite."""
    return [words.number(row.get(key)) for row in run.rounds]


def has_train_loss(run: RunRecord) -> bool:
    return any(v is not None for v in column(run, "train_loss"))


def _read_rounds(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: a run that was killed can leave half a line."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and words.number(row.get("round")) is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: float(row["round"]))


def _rounds_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rounds from result.json alone."""
    accuracies, losses = result.get("accuracy_by_round") or [], result.get("loss_by_round") or []
    count = max(len(accuracies), len(losses))
    return [
        {"round": i + 1, "accuracy": _at(accuracies, i), "loss": _at(losses, i), "densities": {}} for i in range(count)
    ]


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None
