"""The tables of a run's page: nodes and what was left out, adjustments, layers, rounds, the model and its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fedtiny.report import words
from fedtiny.report.record import RunRecord, adjusted, dicts, table_of


def nodes(result: Mapping[str, Any]) -> str:
    found = dicts(result.get("nodes_report"))
    problems = [("failed", p) for p in dicts(result.get("failures"))]
    problems += [("rejected", p) for p in dicts(result.get("rejections"))]
    if not found and not problems:
        return ""
    counts = {(kind, p.get("node")): 0 for kind, p in problems}
    for kind, p in problems:
        counts[kind, p.get("node")] += 1
    rows = [
        [
            str(n.get("node", words.DASH)),
            str(n.get("board") or words.DASH),
            words.whole(n.get("samples")),
            words.size(n.get("plan_bytes")),
            words.size(n.get("peak_bytes")),
            words.seconds(n.get("busy_s")),
            str(counts.get(("failed", n.get("node")), 0)),
            str(counts.get(("rejected", n.get("node")), 0)),
        ]
        for n in found
    ]
    head = ["node", "board", "samples", "planned", "peak", "busy", "failures", "rejections"]
    out = rows_of(head, rows, words_in=2) if rows else ""
    if problems:
        lines = [
            [words.whole(p.get("round")), str(p.get("node", words.DASH)), kind, str(p.get("reason", ""))]
            for kind, p in problems
        ]
        shown = f"<h3>What was left out ({len(lines)})</h3>"
        out += shown + rows_of(["round", "node", "what", "reason"], lines, words_in=4)
    else:
        out += '<p class="hint">Every node answered in every round; no update was rejected.</p>'
    return f"<section><h2>Nodes</h2>{out}{_links(result, found)}</section>"


def _links(result: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    """How each node was reached and what went over its link, by kind."""
    by_node = table_of(table_of(table_of(result, "bytes"), "link"), "by_node")
    if not by_node:
        return ""
    about = {str(node.get("node")): node for node in nodes}
    ways = {name: {way: table_of(both, way) for way in ("down", "up")} for name, both in by_node.items()}
    kinds = dict.fromkeys(kind for both in ways.values() for way in both.values() for kind in way)
    rows = [
        [
            name,
            words.shortened(str(about.get(name, {}).get("link") or words.DASH)),
            str(about.get(name, {}).get("profile") or words.DASH),
            str(about.get(name, {}).get("firmware") or words.DASH)[:8],
            *(words.size(sum(way.values())) for way in both.values()),
            *(words.size(sum(way.get(kind, 0) for way in both.values())) for kind in kinds),
        ]
        for name, both in ways.items()
    ]
    head = ["node", "link", "profile", "firmware", "down", "up", *kinds]
    return "<h3>On the links, frames and retries included</h3>" + rows_of(head, rows, words_in=4)


def adjustments(result: Mapping[str, Any]) -> str:
    found = adjusted(result)
    if not found:
        return ""
    rows = [
        [words.whole(a["round"]), str(a.get("block", "")), words.whole(a.get("pruned")), words.whole(a.get("grown"))]
        for a in found
    ]
    table = rows_of(["round", "block", "pruned", "grown"], rows, words_in=0, left=(1,))
    return folded(f"Adjustments ({len(rows)})", table)


def layers(result: Mapping[str, Any]) -> str:
    found = dicts(result.get("layers"))
    if not found:
        return ""
    rows = []
    for layer in found:
        live, count = words.number(layer.get("live")), words.number(layer.get("size"))
        rows.append(
            [
                str(layer.get("name", "")),
                " × ".join(str(d) for d in layer.get("shape") or ()),
                words.whole(count),
                words.whole(live),
                words.percent(live / count if live is not None and count else None),
                words.size(layer.get("mask_bytes")),
                words.size(layer.get("mask_entropy")),
                "dense" if layer.get("dense") else "sparse",
            ]
        )
    return folded(
        f"Layers ({len(rows)})",
        rows_of(["layer", "shape", "weights", "live", "density", "mask", "its entropy", ""], rows, words_in=2),
    )


def rounds(run: RunRecord) -> str:
    if not run.rounds:
        return ""
    head = ["round", "accuracy", "loss", "train loss", "density", "down", "up", "time", "left out", "adjusted"]
    rows = []
    for row in run.rounds:
        adjusted = row.get("adjusted")
        block = adjusted.get("block", "") if isinstance(adjusted, dict) else (adjusted or "")
        rows.append(
            [
                words.whole(row["round"]),
                words.accuracy(row.get("accuracy")),
                words.decimal(row.get("loss")),
                words.decimal(row.get("train_loss")),
                words.percent(row.get("density")),
                words.size(row.get("bytes_down")),
                words.size(row.get("bytes_up")),
                words.seconds(row.get("seconds")),
                str(len(row.get("failed") or ()) + len(row.get("rejected") or ())),
                str(block),
            ]
        )
    return folded(f"Rounds ({len(rows)})", rows_of(head, rows, words_in=0, left=(9,)))


def model(result: Mapping[str, Any]) -> str:
    parity = table_of(result, "parity")
    rows = [
        ["sha256 of model.ftm", str(result.get("model_sha256") or words.DASH)],
        ["size of model.ftm", words.size(result.get("model_bytes"))],
        ["largest logit difference, PyTorch to ONNX Runtime", words.decimal(parity.get("onnxruntime_max_abs"))],
        ["largest logit difference, PyTorch to a node", words.decimal(parity.get("node_max_abs"))],
        ["files", ", ".join(str(f) for f in result.get("files") or ()) or words.DASH],
    ]
    return folded("The model and its checks", rows_of([], rows, words_in=2)) if result.get("model_sha256") else ""


def settings(text: str) -> str:
    return folded("Settings (config.toml)", f"<pre>{escape(text)}</pre>") if text else ""


def folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def rows_of(head: Sequence[str], rows: Iterable[Sequence[str]], *, words_in: int, left: Sequence[int] = ()) -> str:
    """A table; the first `words_in` columns and those in `left` are words, the others figures."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = ["w" if i < words_in or i in left else "n" for i in range(len(row))]
        return "".join(f'<{tag} class="{k}">{escape(c)}</{tag}>' for k, c in zip(kinds, row, strict=True))

    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
