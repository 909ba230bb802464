"""The flat float32 vectors that travel beside a blob (firmware/BLOB.md, "Vectors that travel beside a blob").

`masks` holds the masks of sparse layers by parameter name; a layer without a mask is dense.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fedtiny_export.graph import F32, Bits, Graph, Param


def value_count(graph: Graph, masks: Mapping[str, Bits]) -> int:
    """Floats of the values vector under `masks`."""
    return sum(count for _, count in _live_counts(graph, masks))


def stat_count(graph: Graph) -> int:
    """Floats of the statistics and of the moments vector: two per channel of every batch norm."""
    return sum(graph.params[i].size for op in graph.batchnorms for i in op.params[2:])


def pack_values(graph: Graph, arrays: Mapping[str, F32], masks: Mapping[str, Bits]) -> F32:
    """The live elements of every trained parameter, in table order."""
    parts = []
    for index in graph.trained:
        param = graph.params[index]
        flat = arrays[param.name].reshape(-1)
        mask = masks.get(param.name)
        parts.append(flat if mask is None else flat[mask.reshape(-1)])
    return np.concatenate(parts, dtype=np.float32) if parts else np.zeros(0, np.float32)


def unpack_values(graph: Graph, values: F32, masks: Mapping[str, Bits]) -> dict[str, F32]:
    """Dense arrays of the trained parameters, 0 where masked. Raises ValueError when the count is not exact."""
    _expect(values, value_count(graph, masks), "values")
    arrays: dict[str, F32] = {}
    at = 0
    for param, count in _live_counts(graph, masks):
        live = values[at : at + count]
        at += count
        mask = masks.get(param.name)
        if mask is None:
            arrays[param.name] = live.astype(np.float32).reshape(param.shape)
        else:
            dense = np.zeros(param.size, np.float32)
            dense[mask.reshape(-1)] = live
            arrays[param.name] = dense.reshape(param.shape)
    return arrays


def pack_stats(graph: Graph, arrays: Mapping[str, F32]) -> F32:
    """mean[C], var[C] of every batch norm, in operator order."""
    parts = [arrays[graph.params[i].name] for op in graph.batchnorms for i in op.params[2:]]
    return np.concatenate(parts, dtype=np.float32) if parts else np.zeros(0, np.float32)


def unpack_stats(graph: Graph, stats: F32) -> dict[str, F32]:
    """Arrays of the running statistics by parameter name. Raises ValueError when the count is not exact."""
    _expect(stats, stat_count(graph), "statistics")
    arrays: dict[str, F32] = {}
    at = 0
    for op in graph.batchnorms:
        for index in op.params[2:]:
            param = graph.params[index]
            arrays[param.name] = stats[at : at + param.size].astype(np.float32)
            at += param.size
    return arrays


def _live_counts(graph: Graph, masks: Mapping[str, Bits]) -> Iterator[tuple[Param, int]]:
    for index in graph.trained:
        param = graph.params[index]
        mask = masks.get(param.name)
        yield param, param.size if mask is None else int(np.count_nonzero(mask))


def _expect(vector: F32, count: int, what: str) -> None:
    if vector.shape != (count,):
        raise ValueError(f"{what} have the shape {vector.shape}, this graph and its masks take ({count},)")
