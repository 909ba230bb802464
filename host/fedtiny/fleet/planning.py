"""What a node of the C core takes for a Load task: the same answer from every kind of fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedtiny.federation.tasks import Load, Task
from fedtiny_export.core import Memory, NodeConfig, plan
from fedtiny_export.errors import PlanError

MICRO_BATCH_LEAST = 4  # batch norms over fewer samples do not train


LAST_LAYERS = 2  # what a refusal offers to train alone


def node_config(task: Load) -> NodeConfig:
    """The core's settings; scoring is planned for only where top-K gradients will be asked for."""
    return NodeConfig(
        micro_batch=task.micro_batch,
        modes=("infer", "measure", "train", "score") if task.topk_max else ("infer", "measure", "train"),
        norm=task.norm.value,
        topk_max=task.topk_max,
        score_tile_bytes=task.score_tile_bytes,
        keep=task.keep,
        lean=task.lean,
        layerwise=True,  # no task asks for a gradient, and the steps are the same
        plain_sgd=task.plain_sgd,
        last_layers=task.last_layers,
        loss=task.loss,
    )


def planned(task: Load) -> tuple[int, dict[str, int]]:
    """Bytes of the arena, and bytes by kind. Raises PlanError where the core refuses the model, as a node would."""
    memory = plan(task.blob, node_config(task))
    return memory.peak, memory.by_kind()


def refuse_what_does_not_fit(orders: Mapping[str, Sequence[Task]], ram_bytes: int) -> None:
    """Raises PlanError if a model among the tasks takes more than `ram_bytes` (0: any may), before a node gets it.

    The message says what takes what, and what each setting would make of it.
    """
    loads = {id(task): task for tasks in orders.values() for task in tasks if isinstance(task, Load)}
    for task in loads.values() if ram_bytes else ():
        memory = plan(task.blob, node_config(task))
        if memory.peak > ram_bytes:
            raise PlanError(_refusal(task, memory, ram_bytes))


def _refusal(task: Load, memory: Memory, ram_bytes: int) -> str:
    kinds = sorted(((size, kind) for kind, size in memory.by_kind().items() if size), reverse=True)
    lines = [
        f"the model takes {memory.peak:,} bytes of a node, and fleet.ram_bytes allows {ram_bytes:,}. What takes what:"
    ]
    lines += [f"  {kind:<12} {size:>11,}  {size / memory.peak:4.0%}" for size, kind in kinds]
    lines += [
        "What settings would make of it (lean changes no result; keep rounds activations; the others change training):"
    ]
    fits = ""
    for words, knobs in _ways(task):
        peak = plan(task.blob, node_config(replace(task, **knobs))).peak
        fits = fits or (words if peak <= ram_bytes else "")
        lines.append(f"  {words:<68} {peak:>11,}{'  fits' if peak <= ram_bytes else ''}")
    flags = " ".join(f"-s {setting}" for setting in fits.split())
    advice = (
        f"Try {flags}." if fits else "None fits: take a smaller model, a lower density or a board with more memory."
    )
    return "\n".join([*lines, advice])


def _ways(task: Load) -> list[tuple[str, dict[str, Any]]]:
    """Settings that this task lacks, what costs nothing first."""
    batch = max(min(task.micro_batch, MICRO_BATCH_LEAST), 1)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("train.lean=true", {"lean": True}),
        ("train.keep=f16", {"keep": "f16"}),
        ("train.keep=int8", {"keep": "int8"}),
        ("train.momentum=0", {"plain_sgd": True}),
        (f"train.micro_batch={batch}", {"micro_batch": batch}),
        (f"train.last_layers={LAST_LAYERS}", {"last_layers": LAST_LAYERS}),
    ]
    new = [(words, knobs) for words, knobs in steps if any(getattr(task, k) != v for k, v in knobs.items())]
    new = [way for way in new if not (task.keep == "int8" and way[0] == "train.keep=f16")]
    ways, together = list(new), list[tuple[str, dict[str, Any]]]()
    for words, knobs in new:
        if words != "train.keep=f16" or not any(other == "train.keep=int8" for other, _ in new):
            together.append((words, knobs))
            if len(together) > 1:
                ways.append((" ".join(w for w, _ in together), {k: v for _, more in together for k, v in more.items()}))
    return ways
