"""FLOPs of what a node does beside local training (fedtiny_export.flops), by the same published accounting.

One multiply-accumulate is two operations; norms, activations and the optimiser are not counted, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping

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
