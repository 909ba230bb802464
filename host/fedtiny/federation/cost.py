"""FLOPs and memory of what a node does (training: fedtiny_export.flops), by the same published accounting.

One multiply-accumulate is two operations; norms, activations and the optimiser are not counted, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedtiny.federation.tasks import Install, Load, Task
from fedtiny_export.flops import macs
from fedtiny_export.graph import Graph


def score_flops(graph: Graph, densities: Mapping[str, float], layers: list[str], *, samples: int) -> float:
    """Of top-K gradients over `samples`: a sparse forward pass and input gradient, and the dense weight gradient of the
    asked layers."""
    dense = macs(graph, None)
    sparse = macs(graph, densities)
    return 2 * samples * (2 * sum(sparse.values()) + sum(dense[layer] for layer in layers))


def forward_flops(graph: Graph, densities: Mapping[str, float], *, samples: int) -> float:
    """Of forward passes: BN measurement and evaluation."""
    return 2 * sum(macs(graph, densities).values()) * samples


def round_flops(
    graph: Graph,
    densities: Mapping[str, float],
    *,
    samples: int,
    epochs: int,
    dense_gradients: Iterable[str] = (),
) -> float:
    """Of a round in which the layers named also compute the gradients of their pruned weights in every step: forward
    and input gradient sparse, weight gradient dense. All layers: (2 m + 1) / 3 of a dense round (PruneFL), m the
    forward pass's share."""
    dense, sparse = macs(graph, None), macs(graph, densities)
    named = set(dense_gradients)
    weight_gradient = sum(dense[layer] if layer in named else sparse[layer] for layer in dense)
    return 2 * samples * epochs * (2 * sum(sparse.values()) + weight_gradient)


def paper_memory_bytes(
    graph: Graph, densities: Mapping[str, float], *, dense_gradients: Iterable[str] = (), topk: int = 0
) -> int:
    """Memory as papers on federated pruning count it: weights and gradients, a sparse tensor as value and index (4 + 4
    bytes), `topk` entries (value and index) beside them; no activations, no momentum.

    `densities` by layer name; at 1 a tensor has no index. `dense_gradients`: layers whose gradient is held whole.
    """
    named, total = set(dense_gradients), 8 * topk
    for index in graph.trained:
        param = graph.params[index]
        density = densities.get(param.name, 1.0)
        held = 4 * param.size if density >= 1.0 else 8 * round(density * param.size)
        total += held + (4 * param.size if param.name in named else held)
    return total


class Costs:
    """What a run has cost so far, counted in the same way for every method.

    `flops_total`: of the device that computes most, over all rounds, and `flops_preparation` before the first.
    `paper_memory`: the most of any round. `models_given`: the most whole models or sets of values that one node was
    given: a node that keeps its model in flash writes it as often.
    """

    def __init__(self) -> None:
        self.flops_total = 0.0
        self.flops_preparation = 0.0
        self.paper_memory = 0
        self._given: dict[str, int] = {}

    @property
    def models_given(self) -> int:
        return max(self._given.values(), default=0)

    def prepared(self, flops: float) -> None:
        self.flops_preparation += flops

    def given(self, node: str, tasks: Iterable[Task]) -> None:
        self._given[node] = self._given.get(node, 0) + sum(isinstance(task, Load | Install) for task in tasks)

    def round(self, graph: Graph, densities: Mapping[str, float], flops: float, k: Mapping[int, int]) -> None:
        """A round's training under these densities, with top-K gradients of so many pruned weights by layer number.

        Where more than half of a layer's weights are asked for, its gradient is held whole and not as a top-K buffer.
        """
        self.flops_total += flops
        names, params = graph.layer_names, graph.params
        whole = {layer for layer, count in k.items() if 2 * count > params[graph.layers[layer]].size}
        topk = max((count for layer, count in k.items() if layer not in whole), default=0)
        held = paper_memory_bytes(graph, densities, dense_gradients=[names[layer] for layer in whole], topk=topk)
        self.paper_memory = max(self.paper_memory, held)

    def tally(self) -> dict[str, Any]:
        """Plain numbers, for a state that outlives the process."""
        return {
            "flops_total": self.flops_total,
            "flops_preparation": self.flops_preparation,
            "paper_memory": self.paper_memory,
            "given": dict(self._given),
        }

    def resume(self, tally: Mapping[str, Any]) -> None:
        self.flops_total = float(tally.get("flops_total", 0.0))
        self.flops_preparation = float(tally.get("flops_preparation", 0.0))
        self.paper_memory = int(tally.get("paper_memory", 0))
        self._given = dict(tally.get("given", {}))
