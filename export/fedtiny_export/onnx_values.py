"""What an ONNX value name stands for while a model is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fedtiny_export.graph import F32

BATCH = 1 << 40
"""Stands for the free batch dimension in shapes that a model computes with."""


class Refused(Exception):
    """Why one ONNX node cannot be imported; the importer adds which node."""


@dataclass(frozen=True)
class Activation:
    """Tensor `index` of the graph, seen with `rank` dimensions: 4 (N, C, H, W), 3 (N, C, W) or 2 (N, C)."""

    index: int
    rank: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A known array; `name` is that of the initializer it was made from, where there is one."""

    array: NDArray[Any]
    name: str | None


@dataclass(frozen=True, eq=False)
class Standardised:
    """The weight of a convolution that standardises it."""

    weight: Constant
    eps: float


@dataclass(frozen=True)
class Padded:
    """An activation with zeros around it, to be taken up by the convolution or average pool that reads it."""

    source: Activation
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Grouped:
    """Part of a group norm written as reshape, instance norm, reshape, multiply, add.

    It is split, then `eps` is known, then it is `restored` to the shape of `source`, then scaled by `gamma`.
    """

    source: Activation
    groups: int
    eps: float | None = None
    restored: bool = False
    gamma: Constant | None = None


@dataclass(eq=False)
class Product:
    """A matrix product that waits for its bias; `emitted` once it was used without one."""

    source: Activation
    weight: Constant
    array: F32
    output: str
    emitted: Activation | None = None


class Unknown:
    """The output of a node that was refused and whose shape is not known either."""


Value = Activation | Constant | Standardised | Padded | Grouped | Product | Unknown


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return default


def weights_of(value: Value | None, what: str) -> Constant:
    """A constant that can be a parameter. Raises Refused for anything else."""
    if not isinstance(value, Constant):
        raise Refused(f"computes its {what} at run time; it must be a stored parameter")
    if value.array.dtype != np.float32:
        raise Refused(f"has a {what} of type {value.array.dtype}; convert the model to float32")
    return value


def per_channel(value: Constant, channels: int, rank: int) -> F32 | None:
    """(C,) out of a constant that broadcasts over the channel axis of `rank` dimensions; None when it does not."""
    shape = (1,) * (rank - value.array.ndim) + value.array.shape
    wanted = (1, channels) + (1,) * (rank - 2)
    return value.array.reshape(channels).astype(np.float32) if shape == wanted else None


def fold(node: onnx.NodeProto, inputs: list[Constant | None], opset: int) -> list[Constant]:
    """Outputs of a node that reads constants only. Raises Refused when ONNX's reference evaluator cannot run it."""
    arrays = {n: v.array for n, v in zip(node.input, inputs, strict=True) if v is not None}
    name = next((v.name for v in inputs if v is not None), None)
    if node.op_type == "Identity":
        # torch writes equal parameters once and the others as identities: each keeps its own name.
        return [Constant(arrays[node.input[0]], node.output[0])]
    if node.op_type == "Constant" and (value := attribute(node, "value", None)) is not None:
        return [Constant(onnx.numpy_helper.to_array(value), None)]
    from onnx.reference import ReferenceEvaluator

    try:
        results = ReferenceEvaluator(node, opsets={"": opset}).run(None, arrays)
    except Exception as error:  # any operator with any constants may stand here
        raise Refused(f"works on constants and could not be computed ({error})") from error
    return [Constant(np.asarray(r), name) for r in results]
