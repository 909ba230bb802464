"""The report's part for each board, and the line of each at the end of a run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fedtiny.progress import print_boards
from tests.host.test_report import Balance, folder, page, result, rows, wire_result


def board(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "node": name,
        "board": "nucleo_f446re",
        "link": f"serial:{name}",
        "profile": "psk",
        "firmware": "0123456789abcdef",
        "plan_bytes": 70_000,
        "peak_bytes": 63_000,
        "arena_bytes": 100_000,
        "memory": {"activations": 40_000, "weights": 30_000},
        "busy_s": 41.5,
        "tasks": {"train": {"count": 12, "seconds": 36.0}, "load": {"count": 1, "seconds": 5.5}},
        "bytes": {"down": {"values": 150_000, "control": 4_000}, "up": {"values": 120_000}},
        "boots": 7,
        "resets": 0,
        "sessions": 1,
        "refused": 0,
        "dropped": {"node": 0, "host": {}},
        "asked_again": {"node": 0, "host": 0},
        "resent": 0,
        "failures": 0,
        "rejections": 0,
        "last_seen": 1_790_000_000.0,
    } | changes


STEADY = board("node-01")
SHAKY = board(
    "node-02",
    board="<b>odd</b>",
    resets=2,
    dropped={"node": 3, "host": {"check": 4}},
    asked_again={"node": 5, "host": 6},
    failures=1,
    rejections=1,
)
NATIVE = board("node-03", board="native", bytes=None, last_seen=None, arena_bytes=None) | dict.fromkeys(
    ("link", "profile", "firmware", "boots", "resets", "sessions", "refused", "dropped", "asked_again", "resent")
)


def shown(tmp_path: Path, *boards: dict[str, Any]) -> str:
    return page(folder(tmp_path, wire_result() | {"boards": list(boards)}, rows()))


def part_of(text: str, name: str) -> str:
    [found] = re.findall(rf"<details><summary>{name}: .*?</details>", text, re.DOTALL)
    return str(found)


def test_each_board_has_its_own_part_with_memory_time_bytes_and_what_went_wrong(tmp_path: Path) -> None:
    text = shown(tmp_path, STEADY, SHAKY)
    steady, shaky = part_of(text, "node-01"), part_of(text, "node-02")
    charts = [ET.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", steady, re.DOTALL)]
    drawn = {chart.attrib["aria-label"]: " ".join(chart.itertext()) for chart in charts}
    memory, times, down, up = drawn.values()
    assert list(drawn) == [
        "Memory: planned, used at most, there in all",
        "Time by kind of task, transfers included",
        "Bytes down",
        "Bytes up",
    ]
    assert "63 kB" in memory
    assert "36 s · 12, 3 s each" in times
    assert times.index("train") < times.index("load")
    assert ("150 kB" in down, "120 kB" in up) == (True, True)
    assert "It answered in every round, and every answer counted." in steady
    assert "7 ever, 0 in this run" in steady
    for words in ("7 ever, 2 in this run", "by the board 3; by the host: 4 check", "by the board 5, by the host 6"):
        assert words in shaky
    for reason in ("&lt;b&gt;timeout&lt;/b&gt; &amp; gone", "NaN in values", "&lt;b&gt;odd&lt;/b&gt;"):
        assert reason in shaky
    assert "NaN in values" not in steady
    balance = Balance()
    balance.feed(text)
    assert (balance.wrong, balance.open) == ([], [])


def test_the_table_of_boards_adds_up_both_ends(tmp_path: Path) -> None:
    section = shown(tmp_path, STEADY, SHAKY).partition("<h2>Boards</h2>")[2]
    lines = {row[0]: row for row in (re.findall(r">([^<]*)</td>", line) for line in section.split("<tr>")[2:4])}
    assert lines["node-01"] == ["node-01", "nucleo_f446re", "63 kB", "90 %", "41.5 s", "154 kB", "120 kB", *"0000"]
    assert lines["node-02"][-4:] == ["2", "7", "11", "2"]


def test_a_node_without_a_link_says_no_more_than_there_is(tmp_path: Path) -> None:
    part = part_of(shown(tmp_path, STEADY, NATIVE), "node-03")
    assert "Time by kind of task" in part
    assert not any(words in part for words in ("sessions", "firmware", "Bytes down", "in all:"))


def test_a_run_in_one_process_has_no_second_table_of_its_nodes(tmp_path: Path) -> None:
    assert "<h2>Boards</h2>" not in shown(tmp_path, NATIVE)
    assert "<h2>Boards</h2>" in shown(tmp_path, STEADY, NATIVE)


@pytest.mark.parametrize("key", sorted(STEADY))
def test_no_key_of_a_board_is_indispensable(key: str, tmp_path: Path) -> None:
    for value in (None, "?", 1e400):
        shown(tmp_path, SHAKY | {key: value}, {k: v for k, v in STEADY.items() if k != key})


def test_memory_that_dwarfs_the_plan_is_told_and_not_drawn(tmp_path: Path) -> None:
    part = part_of(shown(tmp_path, board("node-01", arena_bytes=16_777_216)), "node-01")
    assert ("16.8 MB" in part, "in all: 16.8 MB" in part, "peak: 63 kB" in part) == (True, False, True)
    assert "in all: 100 kB" in part_of(shown(tmp_path, STEADY), "node-01")


def test_a_thousand_boards_do_not_make_a_page_of_a_thousand_parts(tmp_path: Path) -> None:
    text = shown(tmp_path, *(board(f"n{number}") for number in range(1000)))
    assert text.count("<details><summary>n") == 100
    assert "The first 100 have a part of their own; the others stand in result.json." in text
    assert ">n999</td>" in text


def test_an_old_result_without_boards_gets_its_page(tmp_path: Path) -> None:
    assert "<h2>Boards</h2>" not in page(folder(tmp_path, result(), rows()))


def test_the_terminal_shows_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_boards([STEADY, SHAKY | {"board": "[/odd]"}, NATIVE])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["node-01", "nucleo_f446re", "63.0", "kB"]
    assert lines[1].split()[-4:] == ["0", "0", "0", "0"]
    assert lines[2].split()[-4:] == ["2", "7", "11", "2"]
    assert lines[3].split()[-4:] == ["0", "0", "0", "0"]
