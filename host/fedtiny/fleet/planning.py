"""What a node of the C core takes for a Load task: the same answer from every kind of fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedtiny.federation.tasks import Load, Task
from fedtiny_export.core import BANKS_MOST, PARTS, NodeConfig, plan, plan_banks
from fedtiny_export.errors import PlanError

MICRO_BATCH_LEAST = 4  # batch norms over fewer samples do not train


ENDLESS = 2**31 - 8  # bytes of a bank that holds any model
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


def refuse_what_does_not_fit(
    orders: Mapping[str, Sequence[Task]],
    ram_bytes: int,
    banks: Mapping[str, int] | None = None,
    *,
    setting: str = "fleet.board",
) -> None:
    """Raises PlanError if a model among the tasks does not fit, before a node gets it.

    `ram_bytes`: the most it may take in one arena, 0: any. `banks`: bytes of a board's pieces of RAM by name, the
    fastest first; None: any. `setting`: what says so. The message says what takes what, and what each setting would
    make of it.
    """
    loads = {id(task): task for tasks in orders.values() for task in tasks if isinstance(task, Load)}
    for task in loads.values():
        for limit, room in (("fleet.ram_bytes", {"ram": ram_bytes}), (setting, banks or {})):
            if any(room.values()) and not _fits(task, room):
                raise PlanError(_refusal(task, room, limit))


def _fits(task: Load, room: Mapping[str, int]) -> bool:
    return plan_banks(task.blob, node_config(task), list(room.values()))[1].missing is None


def _refusal(task: Load, room: Mapping[str, int], setting: str) -> str:
    memory = plan(task.blob, node_config(task))
    kinds = sorted(((size, kind) for kind, size in memory.by_kind().items() if size), reverse=True)
    allowed = " + ".join(f"{size:,}" for size in room.values())
    lines = [f"the model takes {memory.peak:,} bytes of a node, and {setting} allows {allowed}. What takes what:"]
    lines += [f"  {kind:<12} {size:>11,}  {size / memory.peak:4.0%}" for size, kind in kinds]
    if len(room) > 1:
        lines += _by_bank(task, room)
    lines += [
        "What settings would make of it (lean changes no result; keep rounds activations; the others change training):"
    ]
    first = ""
    for words, knobs in _ways(task):
        other = replace(task, **knobs)
        fits = _fits(other, room)
        first = first or (words if fits else "")
        lines.append(f"  {words:<68} {planned(other)[0]:>11,}{'  fits' if fits else ''}")
    flags = " ".join(f"-s {setting}" for setting in first.split())
    advice = (
        f"Try {flags}." if first else "None fits: take a smaller model, a lower density or a board with more memory."
    )
    return "\n".join([*lines, advice])


def _by_bank(task: Load, room: Mapping[str, int]) -> list[str]:
    """What would lie where as long as there is room, and what finds none: a bank without end stands for nowhere."""
    config, sizes = node_config(task), list(room.values())
    _, failed = plan_banks(task.blob, config, sizes)
    missing = failed.missing or ""
    lines = [f"Each part lies in one bank; none has {failed.parts[missing]:,} contiguous bytes for its {missing}:"]
    names = [*room, "no place"]
    where: Mapping[str, int] = {}
    if len(sizes) < BANKS_MOST:
        _, spread = plan_banks(task.blob, config, [*sizes, ENDLESS])
        where = spread.banks
    for number, name in enumerate(names):
        here = [f"{part} {failed.parts[part]:,}" for part in PARTS if where.get(part) == number and failed.parts[part]]
        size = f"{sizes[number]:,}" if number < len(sizes) else ""
        if size or here:
            lines.append(f"  {name:<12} {size:>11}  {', '.join(here)}".rstrip())
    return lines


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
