"""How each ONNX operator becomes an operator of the node, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from fedtiny_export.graph import F32, OpKind, Role
from fedtiny_export.onnx_builder import GraphBuilder
from fedtiny_export.onnx_values import (
    BATCH,
    Activation,
    Constant,
    Grouped,
    Padded,
    Product,
    Refused,
    Standardised,
    Value,
    attribute,
    per_channel,
    weights_of,
)

HINTS = {
    **dict.fromkeys(("Softmax", "LogSoftmax"), "leave it out: the loss of the node applies it"),
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "LeakyRelu", "Elu", "Gelu", "Erf", "PRelu", "HardSwish", "HardSigmoid", "Softplus", "Mish"),
        "use ReLU or ReLU6",
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "use convolutions over time"),
    **dict.fromkeys(("Resize", "Upsample", "ConvTranspose"), "the node only keeps or shrinks a map"),
    "LayerNormalization": "use GroupNorm with one group",
    "Concat": "use a residual addition",
    "Mul": "scale the data before it reaches the model, or use a batch norm",
    "Sub": "shift the data before it reaches the model, or use a bias",
    "Div": "scale the data before it reaches the model, or use a batch norm",
    "Transpose": "bring the data into the order (N, C, H, W) before it reaches the model",
}


# Operators. Each takes the node and its values and gives the value of its first output.


def _conv(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source, extra = _unpad(inputs[0])
    source = b.activation(source)
    standard = inputs[1] if isinstance(inputs[1], Standardised) else None
    weight = weights_of(standard.weight if standard else inputs[1], "weight")
    if weight.array.ndim not in (3, 4):
        raise Refused(f"has {weight.array.ndim - 2} spatial dimensions; the node has 1 and 2")
    fields = _windows(b, node, source, weight.array.shape[2:])
    fields["padding"] = _plus(fields["padding"], extra)
    array = weight.array if weight.array.ndim == 4 else weight.array[:, :, None, :]
    params = [(Role.WEIGHT, weight, array), *_bias(inputs[2] if len(inputs) > 2 else None)]
    fields |= {"groups": attribute(node, "group", 1), "eps": standard.eps if standard else 0.0}
    return b.emit(node.output[0], OpKind.CONV2D, [source], params, **fields)


def standardised_weight(node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    return Standardised(weights_of(inputs[0], "weight"), attribute(node, "epsilon", 0.0))


def _gemm(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source, weight = b.activation(inputs[0]), weights_of(inputs[1], "weight")
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        raise Refused("scales or transposes its operands; the node computes x W^T + b")
    array = weight.array if attribute(node, "transB", 0) else weight.array.T
    return _linear(b, node.output[0], source, weight, array, inputs[2] if len(inputs) > 2 else None)


def _matmul(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source, weight = b.activation(inputs[0]), weights_of(inputs[1], "weight")
    if weight.array.ndim != 2:
        raise Refused(f"has a weight of {weight.array.ndim} dimensions; the node multiplies by a matrix")
    _expect_vector(source)
    return Product(source, weight, weight.array.T, node.output[0])


def _linear(
    b: GraphBuilder, output: str, source: Activation, weight: Constant, array: F32, bias: Value | None
) -> Value:
    _expect_vector(source)
    params = [(Role.WEIGHT, weight, array), *_bias(bias)]
    return b.emit(output, OpKind.LINEAR, [source], params)


def _batchnorm(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    if attribute(node, "training_mode", 0):
        raise Refused("was exported in training mode; call eval() on the module before exporting")
    roles = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VAR)
    constants = [weights_of(v, r.name.lower()) for r, v in zip(roles, inputs[1:], strict=True)]
    params = [(r, c, c.array) for r, c in zip(roles, constants, strict=True)]
    eps = attribute(node, "epsilon", 1e-5)
    return b.emit(node.output[0], OpKind.BATCHNORM, [b.activation(inputs[0])], params, eps=eps)


def _groupnorm(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    return _emit_groupnorm(
        b,
        node.output[0],
        b.activation(inputs[0]),
        weights_of(inputs[1], "scale"),
        weights_of(inputs[2], "shift"),
        attribute(node, "num_groups", 1),
        attribute(node, "epsilon", 1e-5),
    )


def _emit_groupnorm(
    b: GraphBuilder, output: str, source: Activation, gamma: Constant, beta: Constant, groups: int, eps: float
) -> Activation:
    params = [(role, c, c.array.reshape(-1)) for role, c in ((Role.GAMMA, gamma), (Role.BETA, beta))]
    return b.emit(output, OpKind.GROUPNORM, [source], params, groups=groups, eps=eps)


def _instancenorm(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source, gamma, beta = inputs[0], weights_of(inputs[1], "scale"), weights_of(inputs[2], "shift")
    eps = attribute(node, "epsilon", 1e-5)
    if isinstance(source, Grouped) and source.eps is None:
        if (gamma.array != 1).any() or beta.array.any():
            raise Refused("scales groups of channels; the node scales each channel")
        return replace(source, eps=eps)
    source = b.activation(source)
    return _emit_groupnorm(b, node.output[0], source, gamma, beta, b.shape(source)[0], eps)


def _relu(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    return b.emit(node.output[0], OpKind.RELU, [b.activation(inputs[0])])


def _clip(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    bounds = [attribute(node, "min", -math.inf), attribute(node, "max", math.inf)]
    for position, value in enumerate(inputs[1:3]):
        if value is not None and not isinstance(value, Constant):
            raise Refused("has bounds that are computed at run time")
        if value is not None:
            bounds[position] = value.array.item()
    kind = {(0.0, 6.0): OpKind.RELU6, (0.0, math.inf): OpKind.RELU}.get((bounds[0], bounds[1]))
    if kind is None:
        raise Refused(f"clips to {bounds[0]:g} … {bounds[1]:g}; the node has ReLU and ReLU6 (0 … 6)")
    return b.emit(node.output[0], kind, [b.activation(inputs[0])])


def _pool(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    average = node.op_type == "AveragePool"
    padded, extra = _unpad(inputs[0]) if average else (inputs[0], (0, 0, 0, 0))
    source = b.activation(padded)
    fields = _windows(b, node, source, attribute(node, "kernel_shape", []))
    kind = OpKind.AVGPOOL if average else OpKind.MAXPOOL
    counts = bool(attribute(node, "count_include_pad", 0)) if average else False
    if any(extra):
        if any(fields["padding"]) and not counts:
            raise Refused("pads a map that is already padded; give all padding to this operator")
        fields["padding"], counts = _plus(fields["padding"], extra), True
    return b.emit(node.output[0], kind, [source], count_include_pad=counts, **fields)


def _global_pool(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = b.activation(inputs[0])
    kind = OpKind.AVGPOOL if node.op_type == "GlobalAveragePool" else OpKind.MAXPOOL
    return b.emit(node.output[0], kind, [source], kernel=b.shape(source)[1:])


def _reduce(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = b.activation(inputs[0])
    axes = _axes(node, inputs, source.rank)
    if not axes or min(axes) < 2:
        raise Refused(f"reduces the axes {axes or 'all'}; the node reduces height and width only")
    _, h, w = b.shape(source)
    kernel = (h if source.rank == 4 and 2 in axes else 1, w if source.rank - 1 in axes else 1)
    kind = OpKind.AVGPOOL if node.op_type == "ReduceMean" else OpKind.MAXPOOL
    if attribute(node, "keepdims", 1):
        return b.emit(node.output[0], kind, [source], kernel=kernel)
    pooled = b.emit(f"{node.output[0]}.pooled", kind, [source], kernel=kernel)
    return b.drop(node.output[0], pooled, axes)


def _add(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    grouped, constant = _grouped_and_constant(inputs)
    if grouped is not None and constant is not None and grouped.gamma is not None:
        _expect_per_channel(b, constant, grouped.source)
        return _emit_groupnorm(
            b, node.output[0], grouped.source, grouped.gamma, constant, grouped.groups, grouped.eps or 0.0
        )
    product = next((v for v in inputs if isinstance(v, Product) and v.emitted is None), None)
    if product is not None and constant is not None:
        return _linear(b, node.output[0], product.source, product.weight, product.array, constant)
    if constant is not None:
        raise Refused("adds a constant; the node adds two activations, or a bias behind a matrix product")
    left, right = b.activation(inputs[0]), b.activation(inputs[1])
    if left.rank != right.rank:
        raise Refused(f"adds maps of {left.rank} and {right.rank} dimensions")
    return b.emit(node.output[0], OpKind.ADD, [left, right])


def _mul(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    grouped, constant = _grouped_and_constant(inputs)
    if grouped is not None and constant is not None and grouped.restored and grouped.gamma is None:
        _expect_per_channel(b, weights_of(constant, "scale"), grouped.source)
        return replace(grouped, gamma=constant)
    raise Refused(f"is no operator of the node; {HINTS['Mul']}")


def _expect_per_channel(b: GraphBuilder, constant: Constant, source: Activation) -> None:
    if per_channel(constant, b.shape(source)[0], source.rank) is None:
        raise Refused(
            f"has a constant of the shape {constant.array.shape}; a norm scales and shifts each channel (affine=True)"
        )


def _shape_of(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = inputs[0].source if isinstance(inputs[0], Grouped) else b.activation(inputs[0])
    dims = [BATCH, *b.dims(source)]
    start, end = attribute(node, "start", 0), attribute(node, "end", len(dims))
    return Constant(np.array(dims[start:end], np.int64), None)


def _reshape(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    value, target = inputs[0], inputs[1]
    if not isinstance(target, Constant):
        raise Refused("reshapes to a shape that is computed at run time")
    grouped = value if isinstance(value, Grouped) and value.eps is not None and not value.restored else None
    source = grouped.source if grouped is not None else b.activation(value)
    dims = _resolve(
        [int(d) for d in target.array.reshape(-1)],
        [BATCH, *b.dims(source)],
        keep_zero=bool(attribute(node, "allowzero", 0)),
        batch=b.batch,
    )
    if grouped is not None:
        if dims != b.dims(source):
            raise Refused("does not restore the shape that the map had before its group norm")
        return replace(grouped, restored=True)
    seen = b.view(node.output[0], source, dims)
    if seen is not None:
        return seen
    if len(dims) == 2 and b.shape(source)[0] % dims[0] == 0:
        return Grouped(source, dims[0])
    raise Refused(f"reshapes {b.dims(source)} to {dims}; the node only flattens")


def _flatten(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = b.activation(inputs[0])
    if attribute(node, "axis", 1) not in (1, 1 - source.rank):
        raise Refused(f"flattens from axis {attribute(node, 'axis', 1)}; the node flattens each sample (axis 1)")
    seen = b.view(node.output[0], source, [math.prod(b.dims(source))])
    assert seen is not None
    return seen


def _squeeze(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = b.activation(inputs[0])
    return b.drop(node.output[0], source, _axes(node, inputs, source.rank))


def _unsqueeze(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source = b.activation(inputs[0])
    dims = [BATCH, *b.dims(source)]
    axes = _axes(node, inputs, 0)
    for axis in sorted(a % (len(dims) + len(axes)) for a in axes):
        dims.insert(axis, 1)
    seen = b.view(node.output[0], source, dims[1:]) if dims[0] == BATCH else None
    if seen is None:
        raise Refused(f"inserts the axes {axes} into {b.dims(source)}; the node adds a height of 1 only")
    return seen


def _pad(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    source, pads = b.activation(inputs[0]), inputs[1] if len(inputs) > 1 else None
    fill, axes = (inputs[i] if len(inputs) > i else None for i in (2, 3))
    zero = fill is None or (isinstance(fill, Constant) and not fill.array.any())
    if (
        attribute(node, "mode", b"constant") != b"constant"
        or not zero
        or not isinstance(pads, Constant)
        or axes is not None
    ):
        raise Refused("pads other than with a fixed number of zeros")
    counts = [int(p) for p in pads.array]
    before, after = counts[: source.rank], counts[source.rank :]
    if source.rank < 3 or any(before[:2] + after[:2]) or min(counts) < 0:
        raise Refused("pads other than height and width")
    top, bottom = (before[2], after[2]) if source.rank == 4 else (0, 0)
    return Padded(source, (top, before[-1], bottom, after[-1]))


def _same(b: GraphBuilder, node: onnx.NodeProto, inputs: list[Value | None]) -> Value:
    assert inputs[0] is not None
    training = inputs[2] if len(inputs) > 2 else None
    if isinstance(training, Constant) and training.array.any():
        raise Refused("drops activations; call eval() on the module before exporting")
    return inputs[0]


def _windows(b: GraphBuilder, node: onnx.NodeProto, source: Activation, kernel: Sequence[int]) -> dict[str, Any]:
    """kernel, stride and padding of a convolution or pool; one dimension becomes two with a height of 1."""
    axes = len(kernel)
    if source.rank != axes + 2:
        raise Refused(f"has a kernel of {axes} dimensions over a map of {source.rank - 2}")
    if any(d != 1 for d in attribute(node, "dilations", [1])):
        raise Refused("is dilated; the node has no dilation")
    strides = list(attribute(node, "strides", [1] * axes))
    pads = list(attribute(node, "pads", [0] * 2 * axes))
    sizes = b.shape(source)[3 - axes :]
    mode = attribute(node, "auto_pad", b"NOTSET").decode()
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max((-(-s // t) - 1) * t + k - s, 0) for s, t, k in zip(sizes, strides, kernel, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = small + large if mode == "SAME_UPPER" else large + small
    if attribute(node, "ceil_mode", 0):
        for axis, size in enumerate(sizes):
            if (size + pads[axis] + pads[axes + axis] - kernel[axis]) % strides[axis]:
                raise Refused("rounds its output size up; use ceil_mode=False")
    if min(pads) < 0:
        raise Refused("has negative padding")
    if axes == 1:
        return {"kernel": (1, kernel[0]), "stride": (1, strides[0]), "padding": (0, pads[0], 0, pads[1])}
    return {"kernel": tuple(kernel), "stride": tuple(strides), "padding": tuple(pads)}


HANDLERS: dict[str, Callable[[GraphBuilder, onnx.NodeProto, list[Value | None]], Value]] = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batchnorm,
    "Clip": _clip,
    "Conv": _conv,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GroupNormalization": _groupnorm,
    "Identity": _same,
    "InstanceNormalization": _instancenorm,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _mul,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Relu": _relu,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}


def _resolve(target: list[int], dims: list[int], *, keep_zero: bool, batch: int) -> list[int]:
    """The sample's shape that a reshape to `target` gives. `dims` starts with BATCH, of size `batch` where fixed."""
    size = math.prod(dims[1:])
    if not keep_zero:
        target = [dims[i] if d == 0 and i < len(dims) else d for i, d in enumerate(target)]
    if not target or not (target[0] in (BATCH, -1) or (batch > 0 and target[0] == batch)):
        raise Refused(f"reshapes to {target}, which mixes samples; keep the batch first")
    rest = target[1:]
    if rest.count(-1) == 1 and target[0] != -1:
        known = math.prod(d for d in rest if d != -1)
        if known > 0 and size % known == 0:
            rest = [size // known if d == -1 else d for d in rest]
    if math.prod(rest) != size or min(rest, default=0) < 1:
        raise Refused(f"reshapes {dims[1:]} to {rest}, which mixes samples")
    return rest


def _axes(node: onnx.NodeProto, inputs: list[Value | None], rank: int) -> list[int]:
    """Axes as a second input (newer opsets) or an attribute, counted from 0 where a rank is given."""
    value = inputs[1] if len(inputs) > 1 else None
    if value is not None and not isinstance(value, Constant):
        raise Refused("has axes that are computed at run time")
    axes = value.array.reshape(-1).tolist() if value is not None else attribute(node, "axes", [])
    return [int(a) + (rank if a < 0 else 0) for a in axes]


def _expect_vector(source: Activation) -> None:
    if source.rank != 2:
        raise Refused(f"multiplies a map of {source.rank - 1} dimensions; flatten it first")


def _bias(value: Value | None) -> list[tuple[Role, Constant, F32]]:
    if value is None:
        return []
    constant = weights_of(value, "bias")
    return [(Role.BIAS, constant, constant.array.reshape(-1))]


def _unpad(value: Value | None) -> tuple[Value | None, tuple[int, int, int, int]]:
    return (value.source, value.padding) if isinstance(value, Padded) else (value, (0, 0, 0, 0))


def _plus(left: tuple[int, int, int, int], right: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])


def _grouped_and_constant(inputs: list[Value | None]) -> tuple[Grouped | None, Constant | None]:
    grouped = next((v for v in inputs if isinstance(v, Grouped) and v.restored), None)
    return grouped, next((v for v in inputs if isinstance(v, Constant)), None)
