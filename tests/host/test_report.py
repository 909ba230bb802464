"""report.html and model_card.md of synthetic run folders: what stands in them, and that nothing breaks them."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedtiny.report import model_card, words, write_report
from fedtiny.report.charts import Bar, HeatRow, Series, bar_chart, dot_chart, heat_map, line_chart, ticks
from fedtiny_export.errors import ConfigError

LAYERS = {"stem.weight": 144, "stage1.conv.weight": 4608, "fc.weight": 640}
ROUNDS = 12


def result() -> dict[str, Any]:
    """A finished run, as docs/result.md describes it."""
    accuracies = [0.1 + 0.7 * (1 - math.exp(-i / 4)) for i in range(1, ROUNDS + 1)]
    return {
        "schema_version": 1,
        "run_id": "demo-s0-1",
        "state": "finished",
        "preset": "demo",
        "method": "fedtiny",
        "fleet": "native",
        "dataset": "fashion-mini",
        "model": "resnet-mini",
        "classes": ["T-shirt/top", "Bag | box"],
        "seed": 0,
        "nodes": 2,
        "rounds": ROUNDS,
        "rounds_planned": ROUNDS,
        "density_target": 0.05,
        "density_actual": 0.0496,
        "accuracy": accuracies[-1],
        "loss": 0.512,
        "accuracy_by_round": accuracies,
        "loss_by_round": [1 - a for a in accuracies],
        "candidates": {
            "count": 3,
            "losses": [0.72, 0.65, 0.70],
            "densities": [0.049, 0.05, 0.051],
            "chosen": 1,
            "bytes": 30_000,
            "bytes_if_sent_apart": 90_000,
        },
        "adjustments": [{"round": 3, "block": "4x4", "pruned": 120, "grown": 120}],
        "failures": [{"round": 2, "node": "node-02", "phase": "train", "reason": "<b>timeout</b> & gone"}],
        "rejections": [{"round": 5, "node": "node-02", "phase": "train", "reason": "NaN in values"}],
        "bytes": {
            "down": 4_000_000,
            "up": 6_000_000,
            "by_kind": {"values": 9_000_000, "mask": 1_000_000},
            "dense_fedavg": 80_000_000,
        },
        "flops": {"per_round_max": 1.2e9, "ratio_to_dense": 0.061},
        "memory": {
            "plan_bytes": 250_000,
            "peak_bytes": 262_144,
            "by_kind": {"activations": 200_000, "weights": 50_000},
        },
        "layers": [
            {"name": n, "shape": [size], "size": size, "live": size // 2, "dense": n != "stage1.conv.weight"}
            for n, size in LAYERS.items()
        ],
        "density_by_round": {name: [0.5] * ROUNDS for name in LAYERS},
        "nodes_report": [
            {
                "node": f"node-0{i}",
                "board": "native",
                "samples": 100 * i,
                "plan_bytes": 250_000,
                "peak_bytes": 262_144,
                "busy_s": 1.5,
            }
            for i in (1, 2)
        ],
        "model_sha256": "ab" * 32,
        "model_bytes": 27_600,
        "files": ["model.onnx", "model.ftm"],
        "parity": {"onnxruntime_max_abs": 1e-6, "node_max_abs": None},
        "wall_s": 75.0,
    }


def wire_result() -> dict[str, Any]:
    """The same over links, one of them unprotected."""
    found = result() | {"fleet": "wire"}
    by_node = {
        f"node-0{i}": {"down": {"values": 2_150_000, "control": 50_000}, "up": {"values": 3_300_000}} for i in (1, 2)
    }
    by_kind = {"values": 10_900_000, "control": 100_000}
    found["bytes"] |= {
        "masks": {"bytes": 1250, "entropy": 1000.0},
        "link": {"down": 4_400_000, "up": 6_600_000, "by_kind": by_kind, "by_node": by_node},
    }
    for node, profile in zip(found["nodes_report"], ("psk", "plain"), strict=True):
        node |= {"link": f"serial:{node['node']}", "profile": profile, "firmware": "0123456789abcdef"}
    return found


def rows() -> list[dict[str, Any]]:
    found = result()
    return [
        {
            "round": i + 1,
            "accuracy": found["accuracy_by_round"][i],
            "loss": found["loss_by_round"][i],
            "train_loss": 0.9 * found["loss_by_round"][i],
            "density": 0.0496,
            "densities": dict.fromkeys(LAYERS, 0.5),
            "bytes_down": 300_000,
            "bytes_up": 400_000,
            "by_kind": {"values": 700_000},
            "seconds": 1.25,
            "adjusted": found["adjustments"][0] if i == 2 else None,
            "failed": [],
            "rejected": [],
        }
        for i in range(ROUNDS)
    ]


def folder(
    tmp_path: Path, found: dict[str, Any] | None, lines: list[dict[str, Any]], config: str = "seed = 0\n"
) -> Path:
    if found is not None:
        (tmp_path / "result.json").write_text(json.dumps(found))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config:
        (tmp_path / "config.toml").write_text(config)
    return tmp_path


def page(path: Path) -> str:
    return write_report(path).read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Notes tags that open and never close, or close and never open."""

    VOID = frozenset({"meta", "br", "rect", "circle", "line", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_is_one_file_without_network_or_script(tmp_path: Path) -> None:
    text = page(folder(tmp_path, result(), rows()))
    assert not re.search(r"https?://|<script|<link|@import|url\(|src=", text)
    assert "prefers-color-scheme: dark" in text
    balance = Balance()
    balance.feed(text)
    assert balance.wrong == []
    assert balance.open == []


def test_every_chart_is_well_formed_and_named(tmp_path: Path) -> None:
    charts = re.findall(r"<svg.*?</svg>", page(folder(tmp_path, result(), rows())), flags=re.S)
    names = [ET.fromstring(chart).attrib["aria-label"] for chart in charts]
    assert names == [
        "Accuracy by round",
        "Loss by round",
        "Loss of each candidate",
        "Bytes moved",
        "Bytes by kind, both ways",
        "Density of each layer",
        "Memory by kind",
    ]


def test_the_headline_shows_the_run_s_own_figures(tmp_path: Path) -> None:
    text = page(folder(tmp_path, result(), rows()))
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert tiles == {
        "Accuracy": "76.5 %",
        "Density": "4.96 %",
        "Bytes moved": "10 MB",
        "Operations": "6.1 %",
        "Peak memory": "262 kB",
    }
    assert "8× fewer than dense FedAvg" in text
    assert "1 min 15 s" in text


def test_failures_and_rejections_are_counted_and_named_and_cannot_break_the_page(tmp_path: Path) -> None:
    text = page(folder(tmp_path, result(), rows()))
    assert "&lt;b&gt;timeout&lt;/b&gt; &amp; gone" in text
    assert "<b>timeout" not in text
    assert "NaN in values" in text
    row = re.search(r"<tr><td class=\"w\">node-02</td>.*?</tr>", text)
    assert row is not None
    assert re.findall(r">([^<]*)</td>", row[0])[-2:] == ["1", "1"]


def test_bytes_on_the_links_stand_beside_payload_and_the_entropy_of_masks(tmp_path: Path) -> None:
    text = page(folder(tmp_path, wire_result(), rows()))
    assert "Bytes on the links by kind" in text
    assert "Masks that changed: 1.25 kB, 1.25 times their entropy of 1 kB." in text
    row = re.search(r"<tr><td class=\"w\">node-02</td><td class=\"w\">serial:node-02.*?</tr>", text)
    assert row is not None
    shown = re.findall(r">([^<]*)</td>", row[0])
    assert shown == ["node-02", "serial:node-02", "plain", "01234567", "2.2 MB", "3.3 MB", "5.45 MB", "50 kB"]


def test_a_line_that_nothing_protects_is_named_in_red(tmp_path: Path) -> None:
    alarm = '<p class="alarm">Profile plain: nothing protects the line of node-02 from other people.</p>'
    assert alarm in page(folder(tmp_path, wire_result(), rows()))
    assert 'class="alarm"' not in page(folder(tmp_path, result(), rows()))


def test_figures_can_be_read_without_the_charts(tmp_path: Path) -> None:
    text = page(folder(tmp_path, result(), rows()))
    assert f"Rounds ({ROUNDS})" in text
    assert "round 12: test 0.2349, training 0.2114" in text
    assert "candidate 2: loss 0.6500, density 5 %" in text
    assert "seed = 0" in text


def test_a_run_without_rounds_gets_a_page_that_says_so(tmp_path: Path) -> None:
    text = page(folder(tmp_path, None, []))
    assert "This run has not finished: 0 rounds so far." in text
    assert text.count("No round has finished yet.") == 3


def test_a_stopped_run_says_how_far_it_came(tmp_path: Path) -> None:
    found = result() | {"state": "stopped", "rounds": 5, "rounds_planned": 12}
    text = page(folder(tmp_path, found, rows()[:5]))
    assert "This run has not finished: 5 of 12 rounds so far." in text
    assert "stage1.conv, round 5: 50 %" in text
    assert "stage1.conv, round 6" not in text


@pytest.mark.parametrize("key", sorted(result()))
@pytest.mark.parametrize("value", ["absent", None])
def test_no_key_of_the_result_is_indispensable(tmp_path: Path, key: str, value: str | None) -> None:
    found = result()
    del found[key]
    if value is None:
        found[key] = None
    assert "<svg" in page(folder(tmp_path, found, rows()))
    assert model_card(found).startswith("# ")


def test_half_a_last_line_and_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    lines = rows()
    lines[4]["loss"] = float("nan")
    lines[5]["accuracy"] = None
    path = folder(tmp_path, None, lines)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 13, "accur')
    text = page(path)
    assert f"Rounds ({ROUNDS})" in text
    assert not re.search(r"\bnan\b|\binf\b", text)
    accuracy = ET.fromstring(re.findall(r"<svg.*?</svg>", text, flags=re.S)[0])
    line = next(e for e in accuracy.iter() if e.attrib.get("class") == "line1")
    assert line.attrib["d"].count("M") == 2  # a gap, not a guess


def test_a_result_without_metrics_still_has_its_curve(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result()))
    assert "round 12: accuracy 76.5 %" in page(tmp_path)


def test_the_page_is_written_anew_and_whole(tmp_path: Path) -> None:
    path = folder(tmp_path, result(), rows())
    assert page(path) == page(path)
    assert {p.name for p in path.iterdir()} == {"result.json", "metrics.jsonl", "config.toml", "report.html"}


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_result_is_a_config_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ConfigError, match=r"result\.json"):
        write_report(tmp_path)


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_what_the_model_is_and_how_to_load_it() -> None:
    card = model_card(result())
    for part in ("demo-s0-1", "76.5 %", "262 kB", "model.onnx", "model.ftm", "## Limits"):
        assert part in card, part
    assert "1 failed answers, 1 rejected updates" in card
    assert "Bag / box" in card  # a bar would end the table's cell
    assert "stopped" not in card
    assert "stopped before its last round" in model_card(result() | {"state": "stopped"})


def test_the_card_says_how_to_normalise_where_the_result_does() -> None:
    extra = {"input_shape": [1, 28, 28], "normalisation": {"mean": [72.94], "std": [90.02]}}
    card = model_card(result() | extra)
    assert "(1, 28, 28)" in card
    assert "mean 72.94 and std 90.02" in card


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.43, 0.832, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (3, 3, None),
        (-1, 1, None),
        (0, 0, None),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float] | None) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 12
    if expected is not None:
        assert found == pytest.approx(expected)


def test_points_stand_where_their_values_are() -> None:
    chart = ET.fromstring(
        bar_chart([Bar(label="a", parts=[("", 10.0)], text="10"), Bar(label="b", parts=[("", 5.0)], text="5")],
                  title="t", text=str)
    )  # fmt: skip
    wide = [float(e.attrib["width"]) for e in chart if e.attrib.get("class") == "bar1"]
    assert wide[1] == pytest.approx(wide[0] / 2, abs=0.1)
    dots = ET.fromstring(
        dot_chart([1.0, 3.0, 2.0], chosen=0, title="t", x_label="x", y_label="y", text=str, tips=["a", "b", "c"])
    )
    heights = [float(e.attrib["cy"]) for e in dots if e.attrib.get("class", "").startswith("dot")]
    assert heights[2] == pytest.approx((heights[0] + heights[1]) / 2, abs=0.1)
    assert heights[0] > heights[1]  # y grows downwards


def test_charts_of_one_point_and_of_equal_values_are_drawn() -> None:
    arguments: dict[str, Any] = {"title": "t", "x_label": "x", "text": str}
    for values in ([0.5], [0.0, 0.0], [1.0, 1.0]):
        x = range(1, len(values) + 1)
        for percent in (True, False):
            chart = line_chart([Series(name="s", values=values)], x=x, y_label="y", percent=percent, **arguments)
            assert "nan" not in chart
        assert "nan" not in dot_chart(values, chosen=None, y_label="y", tips=["t"] * len(values), **arguments)
        assert "nan" not in heat_map([HeatRow(label="l", values=values, note="")], columns=list(x), **arguments)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.size(999), "999 B"),
        (words.size(1000), "1 kB"),
        (words.size(999_700), "1 MB"),
        (words.size(1_234_567), "1.23 MB"),
        (words.size(None), "–"),
        (words.percent(0.0496), "4.96 %"),
        (words.percent(1), "100 %"),
        (words.percent(float("nan")), "–"),
        (words.seconds(0.845), "0.845 s"),
        (words.seconds(3840), "1 h 04 min"),
        (words.times_fewer(2, 9), "4.5×"),
        (words.times_fewer(0, 9), "–"),
        (words.whole(True), "–"),
    ],
)
def test_figures_read_well(shown: str, expected: str) -> None:
    assert shown == expected
