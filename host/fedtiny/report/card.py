"""model_card.md: what a model is and how it was made, from result.json alone (docs/result.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtiny.report import words
from fedtiny.report.record import dicts, table_of


def model_card(result: Mapping[str, Any]) -> str:
    """Markdown. Keys that are missing or null are left out, or shown as a dash."""
    name = _plain(result.get("run_id") or "model")
    density, target = words.percent(result.get("density_actual")), words.percent(result.get("density_target"))
    parts = [
        f"# {name}\n",
        f"A classifier ({_plain(result.get('model'))}) of which {density} of the convolution and linear weights live "
        f"(target {target}). It was trained with fedtiny, preset `{_plain(result.get('preset'))}`, by federated "
        "learning: the server saw updates of the nodes, not their samples.\n",
        "## Data\n",
        f"Data set: {_plain(result.get('dataset'))}.{_classes(result)}{_input(result)}\n",
        "## Training\n",
        _table(_training(result)),
        "## Result\n",
        _table(_outcome(result)),
        _cost(result),
        "## Use\n",
        _USE,
        "## Limits\n",
        _limits(result),
    ]
    return "\n".join(part for part in parts if part)


_USE = """`model.onnx` runs wherever ONNX does; x is float32 (n, C, H, W), normalised as in training:

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {session.get_inputs()[0].name: x})[0]
```

`model.tflite` and `model-int8.tflite` take and give channels last, (1, H, W, C). They are not there where the model has
a group norm. `model.ftm` is what a node loads; a board that only infers takes C sources made from it:

```sh
fedtiny eval RUN            # this folder: the model on a native node and in ONNX Runtime
fedtiny verify RUN          # PyTorch, ONNX Runtime, LiteRT and C, float and int8
fedtiny export RUN --to c   # C that compiles alone; --int8 for integers
```

```python
from pathlib import Path
from fedtiny_export import read_blob

blob = read_blob(Path("model.ftm").read_bytes())  # blob.graph, blob.arrays, blob.masks
```
"""


def _training(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    candidates, failures = table_of(result, "candidates"), dicts(result.get("failures"))
    rejected, adjustments = dicts(result.get("rejections")), dicts(result.get("adjustments"))
    planned = result.get("rounds_planned")
    of = f" of {words.whole(planned)}" if planned and planned != result.get("rounds") else ""
    rows = [
        ("method", _plain(result.get("method"))),
        ("nodes", f"{words.whole(result.get('nodes'))} ({_plain(result.get('fleet'))})"),
        ("rounds", f"{words.whole(result.get('rounds'))}{of}"),
        ("seed", words.DASH if result.get("seed") is None else str(result["seed"])),
    ]
    if candidates.get("count"):
        chosen = candidates.get("chosen")
        number = f", number {chosen + 1} chosen" if isinstance(chosen, int) else ""
        rows.append(("candidate masks", f"{candidates['count']}{number}"))
    if adjustments:
        moved = sum(int(words.number(a.get("pruned")) or 0) for a in adjustments)
        rows.append(("adjustments", f"{len(adjustments)}, {moved:,} weights exchanged"))
    rows.append(("left out", f"{len(failures)} failed answers, {len(rejected)} rejected updates"))
    rows.append(("time", words.seconds(result.get("wall_s"))))
    return rows


def _outcome(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, parity = table_of(result, "memory"), table_of(result, "parity")
    return [
        ("accuracy on the test samples", words.accuracy(result.get("accuracy"))),
        ("loss on the test samples", f"{words.decimal(result.get('loss'))} nats per sample"),
        ("size of `model.ftm`", words.size(result.get("model_bytes"))),
        ("memory to train on a node, planned", words.size(memory.get("plan_bytes"))),
        ("memory to train on a node, peak", words.size(memory.get("peak_bytes"))),
        ("largest logit difference to ONNX Runtime", words.decimal(parity.get("onnxruntime_max_abs"))),
        ("largest logit difference to a node", words.decimal(parity.get("node_max_abs"))),
        ("sha256 of `model.ftm`", f"`{_plain(result.get('model_sha256'))}`"),
    ]


def _cost(result: Mapping[str, Any]) -> str:
    moved, flops = table_of(result, "bytes"), table_of(result, "flops")
    down, up, dense = (words.number(moved.get(k)) for k in ("down", "up", "dense_fedavg"))
    out = []
    if down is not None and up is not None:
        share = f", {words.percent((down + up) / dense)} of what dense FedAvg would have moved" if dense else ""
        out.append(f"All nodes together moved {words.size(down)} down and {words.size(up)} up{share}.")
    if flops.get("ratio_to_dense") is not None:
        out.append(
            f"The costliest round of a node took {words.percent(flops['ratio_to_dense'])} of a dense one's operations."
        )
    return " ".join(out) + "\n" if out else ""


def _limits(result: Mapping[str, Any]) -> str:
    known = result.get("dataset")
    lines = [
        f"- Measured on the test samples of {_plain(known)} only; other sensors or people may do worse.",
        "- One run with one seed: another seed moves the accuracy by a point or two.",
        "- It always names one of its classes, also for a sample that belongs to none.",
        "- Federated training keeps samples on the nodes, but updates can still reveal something about them.",
    ]
    if result.get("state") != "finished":
        lines.insert(0, "- **Training was stopped before its last round.**")
    if result.get("fleet") == "simulated":
        lines.append("- The nodes were simulated; memory and time on a board are planned figures.")
    return "\n".join(lines) + "\n"


def _classes(result: Mapping[str, Any]) -> str:
    names = result.get("class_names") or result.get("classes")
    if isinstance(names, list) and names:
        return f" {len(names)} classes, by label: {', '.join(_plain(n) for n in names)}."
    return f" {names} classes." if isinstance(names, int) else ""


def _input(result: Mapping[str, Any]) -> str:
    shape, norm = result.get("input_shape"), table_of(result, "normalisation")
    text = f" A sample has the shape (C, H, W) = ({', '.join(str(d) for d in shape)})." if shape else ""
    if norm.get("mean") and norm.get("std"):
        mean, std = (", ".join(words.decimal(v) for v in norm[k]) for k in ("mean", "std"))
        text += f" Normalised per channel as (raw - mean) / std with mean {mean} and std {std}."
    return text


def _table(rows: list[tuple[str, str]]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {key} | {value} |\n" for key, value in rows)


def _plain(value: Any) -> str:
    """Text that cannot break a table's row."""
    return words.DASH if value is None else str(value).replace("|", "/").replace("\n", " ")
