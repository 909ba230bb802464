"""A run's boards: one table of all, and a part of the page for each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import Any

from fedtiny.report import words
from fedtiny.report.charts import Bar, bar_chart
from fedtiny.report.record import dicts, table_of
from fedtiny.report.tables import folded, rows_of

MUCH = 10
MOST = 100  # boards with a part of their own: a page of thousands would help nobody


def boards(result: Mapping[str, Any]) -> str:
    """The section; "" for a run without boards: of nodes in the host's process the table of nodes says all there is."""
    found = dicts(result.get("boards"))
    if all(board.get("bytes") is None for board in found):
        return ""
    note = ""
    if len(found) > MOST:
        note = f'<p class="hint">The first {MOST} have a part of their own; the others stand in result.json.</p>'
    parts = "".join(folded(_title(board), _part(board, result)) for board in found[:MOST])
    return f"<section><h2>Boards</h2>{_overview(found)}{note}{parts}</section>"


def _overview(found: list[dict[str, Any]]) -> str:
    head = ["node", "board", "peak", "of planned", "busy", "down", "up", "resets", "dropped", "asked again", "left out"]
    rows = []
    for board in found:
        moved = table_of(board, "bytes")
        peak, planned = words.number(board.get("peak_bytes")), words.number(board.get("plan_bytes"))
        rows.append(
            [
                _word(board.get("node")),
                _word(board.get("board")),
                words.size(peak),
                words.percent(peak / planned if peak is not None and planned else None),
                words.seconds(board.get("busy_s")),
                words.size(_total(moved.get("down"))),
                words.size(_total(moved.get("up"))),
                words.whole(board.get("resets")),
                words.whole(_both(board.get("dropped"))),
                words.whole(_both(board.get("asked_again"))),
                words.whole((words.number(board.get("failures")) or 0) + (words.number(board.get("rejections")) or 0)),
            ]
        )
    return rows_of(head, rows, words_in=2)


def _title(board: Mapping[str, Any]) -> str:
    return f"{_word(board.get('node'))}: {_word(board.get('board'))}"


def _part(board: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    parts = [
        rows_of([], _facts(board), words_in=2),
        _chart("Memory: planned, used at most, there in all", _memory(board), words.size),
        _chart("Time by kind of task, transfers included", _times(board), words.seconds),
        _chart("Bytes down", _bytes(board, "down"), words.size),
        _chart("Bytes up", _bytes(board, "up"), words.size),
        _problems(board, result),
    ]
    return "".join(parts)


def _facts(board: Mapping[str, Any]) -> list[list[str]]:
    """What one line says; a node without a link has fewer."""
    dropped, again = table_of(board, "dropped"), table_of(board, "asked_again")
    seen = words.number(board.get("last_seen"))
    facts = [("busy with tasks", words.seconds(board.get("busy_s")))]
    if board.get("arena_bytes"):
        facts.append(("memory in all", words.size(board.get("arena_bytes"))))
    if board.get("link"):
        causes = ", ".join(f"{words.whole(n)} {cause}" for cause, n in table_of(dropped, "host").items())
        facts += [
            ("link", words.shortened(_word(board.get("link")))),
            ("profile", _word(board.get("profile"))),
            ("firmware", _word(board.get("firmware"))),
            ("starts", f"{words.whole(board.get('boots'))} ever, {words.whole(board.get('resets'))} in this run"),
            ("sessions", words.whole(board.get("sessions"))),
            ("frames dropped", f"by the board {words.whole(dropped.get('node'))}; by the host: {causes or 'none'}"),
            (
                "blocks asked for again",
                f"by the board {words.whole(again.get('node'))}, by the host {words.whole(again.get('host'))}; "
                f"sent again {words.whole(board.get('resent'))}",
            ),
            ("tasks refused", words.whole(board.get("refused"))),
            ("last seen", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen)) if seen else words.DASH),
        ]
    return [list(fact) for fact in facts]


def _memory(board: Mapping[str, Any]) -> list[Bar]:
    found = (("planned", "plan_bytes"), ("peak", "peak_bytes"), ("in all", "arena_bytes"))
    sizes = [(label, words.number(board.get(key)) or 0.0) for label, key in found]
    if sizes[2][1] > MUCH * max(sizes[0][1], sizes[1][1]):  # a computer's, beside which the others would not be seen
        sizes.pop()
    return [Bar(label=label, parts=(("", n),), text=words.size(n), plain=label != "peak") for label, n in sizes if n]


def _times(board: Mapping[str, Any]) -> list[Bar]:
    bars = []
    for kind, spent in table_of(board, "tasks").items():
        seconds, count = (words.number(spent.get(key)) for key in ("seconds", "count"))
        if seconds is not None and count:
            each = f" · {words.whole(count)}, {words.seconds(seconds / count)} each"
            bars.append((seconds, Bar(label=kind, parts=(("", seconds),), text=words.seconds(seconds) + each)))
    return [bar for _, bar in sorted(bars, key=lambda pair: -pair[0])]


def _bytes(board: Mapping[str, Any], way: str) -> list[Bar]:
    kinds = ((kind, words.number(count)) for kind, count in table_of(table_of(board, "bytes"), way).items())
    found = sorted(((kind, count) for kind, count in kinds if count), key=lambda pair: -pair[1])
    return [Bar(label=kind, parts=(("", count),), text=words.size(count)) for kind, count in found]


def _chart(title: str, bars: list[Bar], text: Any) -> str:
    return f'<p class="hint between">{escape(title)}</p>{bar_chart(bars, title=title, text=text)}' if bars else ""


def _problems(board: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Answers of this board that are missing, or that were refused."""
    lines = [
        [words.whole(p.get("round")), _word(p.get("phase")), what, _word(p.get("reason"))]
        for key, what in (("failures", "failed"), ("rejections", "rejected"))
        for p in dicts(result.get(key))
        if p.get("node") == board.get("node")
    ]
    if not lines:
        return '<p class="hint between">It answered in every round, and every answer counted.</p>'
    return rows_of(["round", "phase", "what", "reason"], lines, words_in=4)


def _word(value: Any) -> str:
    return str(value) if value else words.DASH


def _total(kinds: Any) -> float | None:
    found = [words.number(count) for count in kinds.values()] if isinstance(kinds, dict) else []
    return sum(count for count in found if count) if found else None


def _both(ends: Any) -> float | None:
    """What board and host counted together; None where neither did."""
    if not isinstance(ends, dict):
        return None
    ours = ends.get("host")
    found = [words.number(ends.get("node")), _total(ours) if isinstance(ours, dict) else words.number(ours)]
    known = [count for count in found if count is not None]
    return sum(known) if known else 0.0
