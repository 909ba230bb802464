"""Reshapes that change nothing, or that follow one another, go."""

from __future__ import annotations

from dataclasses import replace

from fedtiny_export.infer.building import pruned
from fedtiny_export.infer.network import Kind, Network, Operator


def merge_reshapes(network: Network) -> Network:
    """What remains is at most one RESHAPE between two other operators. A network's output keeps its name."""
    tensors = list(network.tensors)
    outputs = list(network.outputs)
    stands_for: dict[int, int] = {}
    source_of: dict[int, int] = {}
    operators = []
    for op in network.operators:
        op = replace(op, inputs=tuple(stands_for.get(i, i) for i in op.inputs))
        if op.kind is not Kind.RESHAPE:
            operators.append(op)
            continue
        source, output = source_of.get(op.inputs[0], op.inputs[0]), op.outputs[0]
        same = tensors[source].shape == tensors[output].shape
        if same and output not in outputs:
            stands_for[output] = source
        elif same and source not in (*network.inputs, *outputs) and tensors[source].data is None:
            tensors[source] = replace(tensors[source], name=tensors[output].name)
            outputs = [source if i == output else i for i in outputs]
            stands_for[output] = source
        else:
            source_of[output] = source
            operators.append(replace(op, inputs=(source,)))
    return pruned(replace(network, tensors=tuple(tensors), operators=tuple(operators), outputs=tuple(outputs)))


def before_reshapes(
    network: Network, op: Operator, users: dict[int, list[int]], writer: dict[int, int], *, channels: bool = False
) -> int | None:
    """The number of the operator whose result `op` alone reads, be it through reshapes; None where there is none.

    `channels`: the reshapes must keep the last dimension. `users` and `writer`: operator numbers by tensor.
    """
    tensor = op.inputs[0]
    last = network.tensors[tensor].shape[-1:]
    while len(users[tensor]) == 1 and tensor in writer and (not channels or network.tensors[tensor].shape[-1:] == last):
        found = network.operators[writer[tensor]]
        if found.kind is not Kind.RESHAPE:
            return writer[tensor]
        tensor = found.inputs[0]
    return None
