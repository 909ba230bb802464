"""Multiply-accumulates and training FLOPs of a graph: the cost that papers on federated pruning report."""

from __future__ import annotations

from collections.abc import Mapping

from fedtiny_export.graph import Graph, OpKind


def macs(graph: Graph, densities: Mapping[str, float] | None = None) -> dict[str, float]:
    """Multiply-accumulates of one sample's forward pass by layer name; padding counts as computed.

    `densities`: live share of a layer's weights by name, 1 where absent.
    """
    densities = densities or {}
    counts = {}
    for name, op in zip(graph.layer_names, graph.layer_ops, strict=True):
        _, h, w = graph.tensors[op.output].shape
        places = h * w if op.kind is OpKind.CONV2D else 1
        counts[name] = graph.params[op.params[0]].size * places * densities.get(name, 1.0)
    return counts


def training_flops(
    graph: Graph, densities: Mapping[str, float] | None = None, *, samples: int, epochs: int = 1
) -> float:
    """FLOPs of local training: 3 x 2 x MACs x samples x epochs.

    Two operations per multiply-accumulate; three passes: forward, input gradient, weight gradient. The cost model of
    the FedTiny paper (arXiv 2212.01977).
    """
    return 3 * 2 * sum(macs(graph, densities).values()) * samples * epochs
