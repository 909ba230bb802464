"""What a node of the C core takes for a Load task: the same answer from every kind of fleet."""

from __future__ import annotations

from fedtiny.federation.tasks import Load
from fedtiny_export.core import NodeConfig, plan


def node_config(task: Load) -> NodeConfig:
    """The core's settings; scoring is planned for only where top-K gradients will be asked for."""
    return NodeConfig(
        micro_batch=task.micro_batch,
        modes=("infer", "measure", "train", "score") if task.topk_max else ("infer", "measure", "train"),
        norm=task.norm.value,
        topk_max=task.topk_max,
        score_tile_bytes=task.score_tile_bytes,
    )


def planned(task: Load) -> tuple[int, dict[str, int]]:
    """Bytes of the arena, and bytes by kind. Raises PlanError where the core refuses the model, as a node would."""
    memory = plan(task.blob, node_config(task))
    return memory.peak, memory.by_kind()
