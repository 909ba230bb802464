"""A PAD of height and width becomes the padding of the convolutions that read it."""

from __future__ import annotations

from dataclasses import replace

from fedtiny_export.infer.building import pruned, readers
from fedtiny_export.infer.network import Kind, Network

_TAKES = (Kind.CONV2D, Kind.DEPTHWISE_CONV2D)


def fold_padding(network: Network) -> Network:
    """Only where all readers are convolutions and take the padded map as their first input."""
    operators = list(network.operators)
    users = readers(network)
    for op in network.operators:
        if op.kind is not Kind.PAD or len(op.pads) != 4 or any(op.pads[0]) or any(op.pads[3]):
            continue
        padded = op.outputs[0]
        numbers = users[padded]
        if not numbers or not all(n >= 0 and operators[n].kind in _TAKES for n in numbers):
            continue
        (top, bottom), (left, right) = op.pads[1], op.pads[2]
        for n in numbers:
            a, b, c, d = operators[n].padding
            inputs = tuple(op.inputs[0] if i == padded else i for i in operators[n].inputs)
            operators[n] = replace(operators[n], inputs=inputs, padding=(a + top, b + left, c + bottom, d + right))
    return pruned(replace(network, operators=tuple(operators)))
