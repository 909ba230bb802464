"""report.html of a run folder: one file with inline charts and styles, no script and no network.

Reads result.json and metrics.jsonl (docs/result.md), and shows config.toml where there is one. A run that has
not finished, or whose files lack keys, gets a page of what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedtiny.report import tables, words
from fedtiny.report.boards import boards
from fedtiny.report.charts import Bar, HeatRow, Series, bar_chart, dot_chart, heat_map, line_chart
from fedtiny.report.record import RunRecord, adjusted, column, dicts, has_train_loss, read_run, table_of
from fedtiny.runfolder import REPORT, RunFolder

STYLE = Path(__file__).with_name("page.css")


def write_report(folder: Path) -> Path:
    """Writes report.html into the folder and returns its path. Raises ConfigError for a folder that holds no run."""
    folder = Path(folder)
    target = RunFolder(folder)
    target.write(REPORT, render(read_run(folder)))
    return target.file(REPORT)


def render(run: RunRecord) -> str:
    """The page."""
    result = run.result
    name = str(result.get("preset") or result.get("run_id") or "run")
    cards = [
        _card("Accuracy on the test samples", _accuracy(run)),
        _card("Loss", _loss(run), legend=("test", "training, as the nodes saw it") if has_train_loss(run) else ()),
        _card("Candidates: loss on the nodes' development samples", _candidates(result)),
        _card("Bytes moved, in all and by kind", _totals(result), legend=("down", "up")),
        _card("Density of each layer, round by round", _density(run)),
        _card("Memory of a node by kind", _by_kind(table_of(result, "memory").get("by_kind"), "Memory by kind")),
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)} · fedtiny</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n<body>"
        f"<main>{_header(run, name)}{_tiles(result)}"
        f'<div class="cards">{"".join(cards)}</div>{tables.nodes(result)}{boards(result)}{tables.adjustments(result)}'
        f"{tables.layers(result)}{tables.rounds(run)}{tables.model(result)}{tables.settings(run.config)}</main></body></html>\n"
    )


def _header(run: RunRecord, name: str) -> str:
    result = run.result
    state = result.get("state")
    done, planned = result.get("rounds", len(run.rounds)), result.get("rounds_planned")
    facts = [
        str(result["dataset"]) if result.get("dataset") else "",
        str(result["model"]) if result.get("model") else "",
        f"method {result['method']}" if result.get("method") else "",
        f"{words.whole(result.get('nodes'))} {result.get('fleet') or ''} nodes" if result.get("nodes") else "",
        f"{words.whole(done)} rounds",
        f"seed {result['seed']}" if result.get("seed") is not None else "",
        words.seconds(result["wall_s"]) if result.get("wall_s") is not None else "",
    ]
    note = ""
    if state != "finished":
        of = f" of {words.whole(planned)}" if planned else ""
        note = f'<p class="notice">This run has not finished: {words.whole(done)}{of} rounds so far.</p>'
    plain = [str(node.get("node")) for node in dicts(result.get("nodes_report")) if node.get("profile") == "plain"]
    if plain:
        named = escape(", ".join(plain))
        note += f'<p class="alarm">Profile plain: nothing protects the line of {named} from other people.</p>'
    pill = f'<span class="pill {"" if state == "finished" else "open"}">{escape(str(state or "unfinished"))}</span>'
    line = " · ".join(escape(f) for f in facts if f)
    run_id = escape(str(result.get("run_id", "")))
    title = f'<p class="run">{run_id}</p><h1>{escape(name)} {pill}</h1>'
    return f'<header>{title}<p class="facts">{line}</p>{note}</header>'


def _tiles(result: Mapping[str, Any]) -> str:
    moved, flops, memory = table_of(result, "bytes"), table_of(result, "flops"), table_of(result, "memory")
    total = _sum(moved.get("down"), moved.get("up"))
    target = result.get("density_target")
    tiles = [
        ("Accuracy", words.accuracy(result.get("accuracy")), "test samples, last round"),
        (
            "Density",
            words.percent(result.get("density_actual")),
            f"target {words.percent(target)}" if target is not None else "live weights",
        ),
        ("Bytes moved", words.size(total), _against(total, moved.get("dense_fedavg"), "dense FedAvg")),
        ("Operations", words.percent(flops.get("ratio_to_dense")), "of dense training, costliest round"),
        (
            "Peak memory",
            words.size(memory.get("peak_bytes") or memory.get("plan_bytes")),
            "of the largest node, with activations",
        ),
    ]
    items = "".join(
        f'<div class="tile"><dt>{escape(k)}</dt><dd>{escape(v)}</dd><p>{escape(p)}</p></div>' for k, v, p in tiles
    )
    return f'<dl class="tiles">{items}</dl>'


def _accuracy(run: RunRecord) -> str:
    series = [Series(name="accuracy", values=column(run, "accuracy"))]
    marks = [
        (int(a["round"]), f"round {a['round']}: adjusted {a.get('block', '')}")
        for a in adjusted(run.result)
        if run.rounds and run.rounds[0]["round"] <= a["round"] <= run.rounds[-1]["round"]
    ]
    chart = _lines(run, series, "Accuracy by round", "accuracy", words.accuracy, marks)
    return chart + ('<p class="hint">▲ adjusting rounds</p>' if marks and chart.startswith("<svg") else "")


def _loss(run: RunRecord) -> str:
    series = [Series(name="test", values=column(run, "loss"))]
    if has_train_loss(run):
        series.append(Series(name="training", values=column(run, "train_loss")))
    return _lines(run, series, "Loss by round", "nats per sample", words.decimal, ())


def _lines(
    run: RunRecord,
    series: Sequence[Series],
    title: str,
    y_label: str,
    text: Callable[[float], str],
    marks: Sequence[tuple[int, str]],
) -> str:
    if not any(v is not None for s in series for v in s.values):
        return _empty("No round has finished yet.")
    x = [int(row["round"]) for row in run.rounds]
    percent = text is words.accuracy
    return line_chart(
        series, x=x, title=title, x_label="round", y_label=y_label, text=text, percent=percent, marks=marks
    )


def _candidates(result: Mapping[str, Any]) -> str:
    found = table_of(result, "candidates")
    losses = [v for v in map(words.number, found.get("losses") or ()) if v is not None]
    if not losses or len(losses) != len(found["losses"]):  # a gap would make `chosen` point at another
        return _empty("This run chose among no candidates.")
    densities = found.get("densities") or []
    tips = [f"candidate {i}: loss {v:.4f}" for i, v in enumerate(losses, start=1)]
    if len(densities) == len(losses):
        tips = [f"{tip}, density {words.percent(d)}" for tip, d in zip(tips, densities, strict=True)]
    classes = _class_count(result)
    chart = dot_chart(
        losses,
        chosen=found.get("chosen"),
        title="Loss of each candidate",
        x_label="candidate",
        y_label="nats per sample",
        text=lambda v: f"{v:.3f}",
        tips=tips,
        reference=(math.log(classes), "chance") if classes > 1 else None,
    )
    sent, apart = found.get("bytes"), found.get("bytes_if_sent_apart")
    if sent and apart:
        chart += (
            f'<p class="hint">{words.size(sent)} to each node for all of them; sent one by one '
            f"{words.size(apart)} ({words.times_fewer(sent, apart)}).</p>"
        )
    return chart


def _totals(result: Mapping[str, Any]) -> str:
    moved = table_of(result, "bytes")
    down, up, dense = (words.number(moved.get(k)) for k in ("down", "up", "dense_fedavg"))
    if down is None or up is None:
        return _empty("Not measured yet.")
    bars = [Bar(label="this run", parts=(("down", down), ("up", up)), text=words.size(down + up))]
    if dense:
        bars.append(Bar(label="dense FedAvg", parts=(("both ways", dense),), text=words.size(dense), plain=True))
    link = table_of(moved, "link")
    on_links = [words.number(link.get(k)) for k in ("down", "up")]
    if on_links[0] is not None and on_links[1] is not None:
        total = words.size(on_links[0] + on_links[1])
        bars.insert(1, Bar(label="on the links", parts=(("down", on_links[0]), ("up", on_links[1])), text=total))
    chart = bar_chart(bars, title="Bytes moved", text=words.size)
    against = _against(down + up, dense, "dense FedAvg in the same rounds")
    kinds = _by_kind(moved.get("by_kind"), "Bytes by kind, both ways")
    if link:
        title = "Bytes on the links by kind"
        hint = f"{title}: counted there, with frames, handshakes, retries and the samples of a bench (data)."
        kinds += f'<p class="hint between">{hint}</p>' + _by_kind(link.get("by_kind"), title)
    return f'{chart}<p class="hint between">{escape(against)}</p>{kinds}{_masks(moved)}'


def _masks(moved: Mapping[str, Any]) -> str:
    """What changed masks took, beside what no encoding can go below on average."""
    masks = table_of(moved, "masks")
    count, least = words.number(masks.get("bytes")), words.number(masks.get("entropy"))
    if not count or not least:
        return ""
    text = f"Masks that changed: {words.size(count)}, {count / least:.2f} times their entropy of {words.size(least)}."
    return f'<p class="hint between">{text}</p>'


def _by_kind(kinds: Any, title: str) -> str:
    found = {str(k): words.number(v) for k, v in kinds.items()} if isinstance(kinds, dict) else {}
    rows = sorted(((k, v) for k, v in found.items() if v), key=lambda kv: -kv[1])
    if not rows:
        return _empty("Not measured yet.")
    total = sum(v for _, v in rows)
    bars = [Bar(label=k, parts=(("", v),), text=f"{words.size(v)} · {_share(v / total)}") for k, v in rows]
    return bar_chart(bars, title=title, text=words.size)


def _share(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.01 else "< 1 %"


def _density(run: RunRecord) -> str:
    names = dict.fromkeys(name for row in run.rounds for name in table_of(row, "densities"))
    by_round = {name: [table_of(row, "densities").get(name) for row in run.rounds] for name in names}
    by_round = by_round or table_of(run.result, "density_by_round")
    columns = [int(row["round"]) for row in run.rounds]
    layers = {str(layer.get("name")): layer for layer in dicts(run.result.get("layers"))}
    rows = []
    for name, values in by_round.items():
        if not isinstance(values, list) or len(values) != len(columns):
            continue
        layer = layers.get(name, {})
        live = f" · {words.whole(layer['live'])}/{words.whole(layer.get('size'))}" if "live" in layer else ""
        last = words.number(values[-1])
        note = words.percent(last) + live
        rows.append(HeatRow(label=_short(name), values=[words.number(v) for v in values], note=note))
    if not rows:
        return _empty("No round has finished yet.")
    chart = heat_map(rows, columns=columns, title="Density of each layer", x_label="round", text=words.percent)
    return chart + '<p class="hint">Right: after the last round, live and all weights.</p>'


def _card(title: str, body: str, *, legend: Sequence[str] = ()) -> str:
    keys = "".join(f'<span><i class="key{i}"></i>{escape(k)}</span>' for i, k in enumerate(legend, start=1))
    shown = f'<p class="legend">{keys}</p>' if keys and body.startswith("<svg") else ""
    return f'<figure class="card"><figcaption>{escape(title)}</figcaption>{shown}<div>{body}</div></figure>'


def _empty(text: str) -> str:
    return f'<p class="empty">{escape(text)}</p>'


def _class_count(result: Mapping[str, Any]) -> int:
    classes = result.get("classes")
    return len(classes) if isinstance(classes, list) else int(words.number(classes) or 0)


def _sum(*values: Any) -> float | None:
    found = [words.number(v) for v in values]
    return None if any(v is None for v in found) else sum(v for v in found if v is not None)


def _against(part: float | None, whole: Any, what: str) -> str:
    dense = words.number(whole)
    if not part or not dense:
        return ""
    return f"{words.times_fewer(part, dense)} fewer than {what}" if part <= dense else f"{part / dense:.3g}× of {what}"


def _short(name: str) -> str:
    return name.removesuffix(".weight")
