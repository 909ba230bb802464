"""Operators that read constants only become constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtiny_export.infer.building import pruned
from fedtiny_export.infer.check import check_network
from fedtiny_export.infer.network import Network
from fedtiny_export.infer.simulate import compute


def fold_constants(network: Network) -> Network:
    """Computes each such operator by the simulation; a network that is not sound stays as it is, for its check."""
    tensors = list(network.tensors)
    kept = []
    if not any(all(tensors[i].data is not None for i in op.inputs) for op in network.operators) or check_network(
        network
    ):
        return network
    for op in network.operators:
        inputs = [tensors[i].data for i in op.inputs]
        known = [array for array in inputs if array is not None]
        if len(known) < len(inputs):
            kept.append(op)
            continue
        current = replace(network, tensors=tuple(tensors))
        (data,) = compute(current, op, [array[None] for array in known])
        output = tensors[op.outputs[0]]
        tensors[op.outputs[0]] = replace(output, data=np.ascontiguousarray(data).reshape(output.shape))
    return pruned(replace(network, tensors=tuple(tensors), operators=tuple(kept)))
