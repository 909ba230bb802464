"""What a network must satisfy before anything computes it: order, shapes, types, and LiteRT's rules on scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedtiny_export.infer.network import Activation, Kind, Network, Operator, Tensor

Shape = tuple[int, ...]

MAX_ELEMENTS = 1 << 24  # of one tensor: far above any microcontroller, and it bounds what a damaged file allocates
MAX_RANK = 4
MAX_OPERATORS = 1024
SAME_SCALE = (Kind.AVERAGE_POOL, Kind.MAX_POOL, Kind.PAD, Kind.RESHAPE, Kind.TRANSPOSE, Kind.CONCAT)
"""Operators that move int8 values without looking at them: scale and zero point of inputs and output are equal."""

WEIGHTED = {Kind.CONV2D: 0, Kind.DEPTHWISE_CONV2D: 3, Kind.FULLY_CONNECTED: 0}
"""Operators with a weight, and the axis of the weight along which output channels lie."""

SOFTMAX_SCALE, SOFTMAX_ZERO = 1.0 / 256.0, -128
FUSING = (Kind.CONV2D, Kind.DEPTHWISE_CONV2D, Kind.FULLY_CONNECTED, Kind.ADD, Kind.AVERAGE_POOL, Kind.MAX_POOL)
"""Operators that can have a fused activation."""

FEWEST = {Kind.CONV2D: 2, Kind.DEPTHWISE_CONV2D: 2, Kind.FULLY_CONNECTED: 2, Kind.ADD: 2}
MOST = {Kind.CONV2D: 3, Kind.DEPTHWISE_CONV2D: 3, Kind.FULLY_CONNECTED: 3, Kind.ADD: 2, Kind.CONCAT: 1 << 16}


def describe(network: Network, op: Operator) -> str:
    """An operator as a message names it: by its kind and its output."""
    name = network.tensors[op.outputs[0]].name if op.outputs and op.outputs[0] < len(network.tensors) else "?"
    return f"{op.kind.name} '{name}'"


def check_network(network: Network) -> list[str]:
    """Everything that is wrong with a network, each with the name of an operator or tensor. Empty when it is sound."""
    count = len(network.tensors)
    problems = _check_tensors(network)
    if not network.inputs or not network.outputs:
        problems.append("it has no input or no output")
    if len(network.operators) > MAX_OPERATORS:
        problems.append(f"it has {len(network.operators)} operators; at most {MAX_OPERATORS} are allowed")
    if not all(0 <= i < count for i in (*network.inputs, *network.outputs)):
        return [*problems, "an input or output is a tensor that does not exist"]
    written = {i for i, t in enumerate(network.tensors) if t.data is not None} | set(network.inputs)
    if any(network.tensors[i].data is not None for i in network.inputs):
        problems.append("an input is a constant")
    for op in network.operators:
        if not all(0 <= i < count for i in (*op.inputs, *op.outputs)) or len(op.outputs) != 1:
            problems.append(f"{op.kind.name} does not have one output, or uses a tensor that does not exist")
            continue
        what = describe(network, op)
        late = [network.tensors[i].name for i in op.inputs if i not in written]
        if late:
            problems.append(f"{what} reads {', '.join(late)} before it is written")
        if op.outputs[0] in written:
            problems.append(f"{what} writes a tensor that is already written")
        written.add(op.outputs[0])
        if not late:
            problems += [f"{what} {problem}" for problem in _check_operator(network, op)]
    problems += [f"output {network.tensors[i].name} is never written" for i in network.outputs if i not in written]
    return problems


def _check_tensors(network: Network) -> list[str]:
    problems = []
    for tensor in network.tensors:
        if any(d < 1 for d in tensor.shape) or tensor.size > MAX_ELEMENTS or len(tensor.shape) > MAX_RANK:
            problems.append(
                f"tensor {tensor.name} has the shape {tensor.shape}; at most {MAX_RANK} dimensions, each 1 or more, "
                f"and {MAX_ELEMENTS} elements are allowed"
            )
        elif tensor.data is not None and (tensor.data.shape != tensor.shape or tensor.data.dtype != tensor.dtype):
            problems.append(f"tensor {tensor.name} holds {tensor.data.shape} {tensor.data.dtype}, not what it says")
        elif tensor.data is not None and tensor.dtype == np.float32 and not np.isfinite(tensor.data).all():
            problems.append(f"tensor {tensor.name} holds values that are not finite; is the model damaged?")
        if tensor.dtype not in (np.float32, np.int8, np.int32):
            problems.append(f"tensor {tensor.name} is {tensor.dtype}; use float32 or int8")
        if tensor.dtype == np.int8:
            problems += _check_quantization(tensor)
    return problems


def _check_quantization(tensor: Tensor) -> list[str]:
    q = tensor.quantization
    if q is None:
        return [f"tensor {tensor.name} is int8 without a scale; quantise the model with calibration samples"]
    axis = len(q.scale) > 1
    if len(q.scale) != len(q.zero_point) or not len(q.scale):
        return [f"tensor {tensor.name} has {len(q.scale)} scales and {len(q.zero_point)} zero points"]
    if not (np.isfinite(q.scale).all() and (q.scale > 0).all()):
        return [f"tensor {tensor.name} has a scale that is not a positive number"]
    if (q.zero_point < -128).any() or (q.zero_point > 127).any():
        return [f"tensor {tensor.name} has a zero point outside -128 to 127"]
    if axis and (not 0 <= q.axis < len(tensor.shape) or tensor.shape[q.axis] != len(q.scale)):
        return [f"tensor {tensor.name} has {len(q.scale)} scales along axis {q.axis} of {tensor.shape}"]
    if axis and tensor.data is None:
        return [f"tensor {tensor.name} is an activation with a scale per channel; it needs one for the whole tensor"]
    return []


def _check_operator(network: Network, op: Operator) -> list[str]:
    fewest, most = FEWEST.get(op.kind, 1), MOST.get(op.kind, 1)
    if not fewest <= len(op.inputs) <= most:
        return [f"has {len(op.inputs)} inputs; it takes {fewest}" + (f" to {most}" if most > fewest else "")]
    tensors = [network.tensors[i] for i in op.inputs]
    output = network.tensors[op.outputs[0]]
    if op.activation is not Activation.NONE and op.kind not in FUSING:
        return ["has a fused activation, which its kind does not take"]
    try:
        shape = output_shape(op, [t.shape for t in tensors], output.shape)
    except ValueError as error:
        return [str(error)]
    problems = []
    if shape != output.shape:
        problems.append(f"gives the shape {shape}, its output has {output.shape}")
    return problems + _check_types(op, tensors, output)


def _check_types(op: Operator, tensors: Sequence[Tensor], output: Tensor) -> list[str]:
    x = tensors[0]
    if op.kind is Kind.QUANTIZE:
        right = x.dtype in (np.float32, np.int8) and output.dtype == np.int8
        return [] if right else [f"turns {x.dtype} into {output.dtype}; it turns float32 or int8 into int8"]
    if op.kind is Kind.DEQUANTIZE:
        right = x.dtype == np.int8 and output.dtype == np.float32
        return [] if right else [f"turns {x.dtype} into {output.dtype}; it turns int8 into float32"]
    if op.kind in WEIGHTED:
        bias = [t.dtype for t in tensors[2:]]
        wanted = [np.dtype(np.int32 if x.dtype == np.int8 else np.float32)] * len(bias)
        if tensors[1].dtype != x.dtype or output.dtype != x.dtype or bias != wanted or x.dtype == np.int32:
            types = ", ".join(str(t.dtype) for t in (*tensors, output))
            return [f"mixes the types {types}; use float32 throughout, or int8 with an int32 bias"]
    elif any(t.dtype != output.dtype for t in tensors) or output.dtype == np.int32:
        return [
            f"mixes the types {', '.join(str(t.dtype) for t in (*tensors, output))}; use float32 or int8 throughout"
        ]
    return _check_scales(op, tensors, output) if output.dtype == np.int8 else []


def _check_scales(op: Operator, tensors: Sequence[Tensor], output: Tensor) -> list[str]:
    if any(t.quantization is None for t in (*tensors[:2], output)):
        return []  # already said of the tensor
    problems = []
    x, y = tensors[0].quantization, output.quantization
    assert x is not None
    assert y is not None
    if op.kind in WEIGHTED:
        weight = tensors[1].quantization
        assert weight is not None
        axis, channels = WEIGHTED[op.kind], tensors[1].shape[WEIGHTED[op.kind]]
        if (weight.zero_point != 0).any():
            problems.append("has a weight with a zero point; quantise weights symmetrically")
        if len(weight.scale) > 1 and (weight.axis != axis or len(weight.scale) != channels):
            problems.append(f"has a weight quantised along axis {weight.axis}; quantise along output channels ({axis})")
        elif len(tensors) > 2 and (bias := tensors[2].quantization) is not None:
            product = x.scale[0].astype(np.float64) * weight.scale
            if len(bias.scale) not in (1, len(product)) or (np.abs(bias.scale - product) > 0.02 * product).any():
                problems.append("has a bias whose scale is not that of its input times that of its weight")
    elif op.kind in SAME_SCALE:
        for tensor in tensors:
            q = tensor.quantization
            if q is None or abs(q.scale[0] - y.scale[0]) > 1e-6 * y.scale[0] or q.zero_point[0] != y.zero_point[0]:
                problems.append(
                    f"changes the scale from that of {tensor.name}; give input and output the same scale and zero point"
                )
    elif op.kind is Kind.SOFTMAX and (abs(y.scale[0] * 256 - 1) > 1e-3 or y.zero_point[0] != SOFTMAX_ZERO):
        problems.append(f"has the output scale {y.scale[0]:g}; int8 softmax gives 1/256 with a zero point of -128")
    return problems


def output_shape(op: Operator, inputs: Sequence[Shape], given: Shape) -> Shape:
    """Shape of an operator's output. `given`, the stated one, decides between the two that a MEAN, a RESHAPE and a
    FULLY_CONNECTED may have. Raises ValueError where inputs do not fit."""
    x = inputs[0]
    match op.kind:
        case Kind.CONV2D | Kind.DEPTHWISE_CONV2D:
            return _convolved(op, x, inputs[1:])
        case Kind.AVERAGE_POOL | Kind.MAX_POOL:
            n, h, w, c = _map(x)
            top, left, bottom, right = op.padding
            if max(top, bottom) >= op.kernel[0] or max(left, right) >= op.kernel[1]:
                raise ValueError(f"has padding {op.padding} as large as its kernel {op.kernel}")
            return (n, *_window(op, h, w), c)
        case Kind.FULLY_CONNECTED:
            return _multiplied(x, inputs[1:], given)
        case Kind.ADD:
            if inputs[0] != inputs[1]:
                raise ValueError(f"adds the shapes {inputs[0]} and {inputs[1]}; they must be equal")
        case Kind.CONCAT:
            return _joined(op, inputs)
        case Kind.PAD:
            if len(op.pads) != len(x) or any(min(p) < 0 for p in op.pads):
                raise ValueError(f"pads {x} by {op.pads}")
            return tuple(d + before + after for d, (before, after) in zip(x, op.pads, strict=True))
        case Kind.MEAN:
            if not op.axes or any(not 0 <= a < len(x) for a in op.axes):
                raise ValueError(f"reduces the axes {op.axes} of {x}")
            kept = tuple(1 if i in op.axes else d for i, d in enumerate(x))
            return given if given == tuple(d for i, d in enumerate(x) if i not in op.axes) else kept
        case Kind.RESHAPE:
            if math.prod(x) != math.prod(given):
                raise ValueError(f"reshapes {x} to {given}")
            return given
        case Kind.TRANSPOSE:
            if sorted(op.permutation) != list(range(len(x))):
                raise ValueError(f"permutes {x} by {op.permutation}")
            return tuple(x[i] for i in op.permutation)
        case Kind.SOFTMAX:
            if not x:
                raise ValueError("has a scalar input")
        case _:
            pass
    return x


def _map(x: Shape) -> tuple[int, int, int, int]:
    if len(x) != 4:
        raise ValueError(f"reads the shape {x}; it takes a map (1, height, width, channels)")
    if x[0] != 1:
        raise ValueError(f"reads {x[0]} samples at once; give the model a batch of 1")
    return (x[0], x[1], x[2], x[3])


def _window(op: Operator, h: int, w: int) -> tuple[int, int]:
    if min(*op.kernel, *op.stride, *op.dilation) < 1 or min(op.padding) < 0:
        raise ValueError(f"has the kernel {op.kernel}, stride {op.stride}, padding {op.padding}")
    top, left, bottom, right = op.padding
    sizes = []
    for size, around, k, s, d in zip(
        (h, w), (top + bottom, left + right), op.kernel, op.stride, op.dilation, strict=True
    ):
        room = size + around - ((k - 1) * d + 1)
        if room < 0:
            raise ValueError(
                f"has a kernel of {op.kernel} over a padded map of {h + top + bottom} x {w + left + right}"
            )
        sizes.append(room // s + 1)
    return (sizes[0], sizes[1])


def _convolved(op: Operator, x: Shape, params: Sequence[Shape]) -> Shape:
    n, h, w, c = _map(x)
    weight = params[0]
    if len(weight) != 4 or weight[1:3] != op.kernel:
        raise ValueError(f"has a weight {weight} for a kernel of {op.kernel}")
    if op.kind is Kind.CONV2D and weight[3] != c:
        raise ValueError(f"has a weight {weight} for {c} input channels; grouped convolutions are depthwise or none")
    if op.kind is Kind.DEPTHWISE_CONV2D and (weight[0] != 1 or weight[3] % c):
        raise ValueError(f"has a depthwise weight {weight} for {c} input channels")
    channels = weight[0] if op.kind is Kind.CONV2D else weight[3]
    _expect_bias(params[1:], channels)
    return (n, *_window(op, h, w), channels)


def _multiplied(x: Shape, params: Sequence[Shape], given: Shape) -> Shape:
    weight = params[0]
    if len(weight) != 2 or not x or math.prod(x) % weight[1]:
        raise ValueError(f"has a weight {weight} for an input {x}")
    _expect_bias(params[1:], weight[0])
    kept = (*x[:-1], weight[0])
    return kept if given == kept and x[-1] == weight[1] else (math.prod(x) // weight[1], weight[0])


def _joined(op: Operator, inputs: Sequence[Shape]) -> Shape:
    x = inputs[0]
    if not 0 <= op.axis < len(x) or any(len(s) != len(x) for s in inputs):
        raise ValueError(f"joins {list(inputs)} along axis {op.axis}")
    if any(s[i] != d for s in inputs for i, d in enumerate(x) if i != op.axis):
        raise ValueError(f"joins {list(inputs)} along axis {op.axis}; the others must be equal")
    return (*x[: op.axis], sum(s[op.axis] for s in inputs), *x[op.axis + 1 :])


def _expect_bias(params: Sequence[Shape], channels: int) -> None:
    if params and params[0] != (channels,):
        raise ValueError(f"has a bias {params[0]} for {channels} channels")
