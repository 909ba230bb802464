"""How each ONNX operator becomes operators of the engine, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from fedtiny_export.infer.building import NetworkBuilder, quantization, same_padding
from fedtiny_export.infer.from_graph import convolution_weight, folded_norm
from fedtiny_export.infer.network import Array, Kind, Quantization
from fedtiny_export.infer.passes.layout import channels_first, channels_last, inverse
from fedtiny_export.onnx_values import Constant, Refused, attribute


@dataclass(frozen=True, eq=False)
class Stored(Constant):
    """A known array; `quantization` says of which integers it was made, along an axis of the array."""

    quantization: Quantization | None = None


Value = int | Stored | None
"""An activation of the builder by its index, channels first as in ONNX; a constant; or an input that was left out."""


class Importer:
    """What handlers work on: the network so far, and what each name stands for."""

    def __init__(self, builder: NetworkBuilder) -> None:
        self.b = builder
        self.values: dict[str, Value] = {}
        self.used: set[str] = set()
        self.unsigned: set[int] = set()  # uint8 in ONNX
        self._numbers = 0

    def activation(self, value: Value) -> int:
        if not isinstance(value, int):
            raise Refused("works on a constant, or on nothing, where it needs an activation")
        return value

    def shape(self, value: int) -> tuple[int, ...]:
        return self.b.tensors[value].shape

    def emit(self, kind: Kind, inputs: Sequence[int], shape: Sequence[int], name: str = "", **fields: Any) -> int:
        """An operator with an output of the given shape, of the type of its first input."""
        self._numbers += 1
        model = self.b.tensors[inputs[0]]
        q = model.quantization if model.dtype == np.int8 else None
        output = self.b.activation(name or f"{kind.name.lower()}{self._numbers}", shape, model.dtype, q)
        if inputs[0] in self.unsigned:
            self.unsigned.add(output)
        return self.b.emit(kind, inputs, output, **fields)

    def transpose(self, x: int, permutation: Sequence[int], name: str = "") -> int:
        permutation = tuple(permutation)
        return self.emit(Kind.TRANSPOSE, [x], [self.shape(x)[p] for p in permutation], name, permutation=permutation)

    def reshape(self, x: int, shape: Sequence[int], name: str = "") -> int:
        shape = tuple(int(d) for d in shape)
        if math.prod(shape) != math.prod(self.shape(x)) or min(shape, default=1) < 1:
            raise Refused(f"reshapes {self.shape(x)} to {shape}")
        return x if shape == self.shape(x) and not name else self.emit(Kind.RESHAPE, [x], shape, name)

    def constant(self, value: Value, what: str) -> Stored:
        if not isinstance(value, Stored):
            raise Refused(f"computes its {what} at run time; it must be stored")
        return value

    def weights(self, value: Value, what: str) -> Stored:
        stored = self.constant(value, what)
        if stored.array.dtype not in (np.float32, np.float64, np.float16):
            raise Refused(f"has a {what} of type {stored.array.dtype}; convert the model to float32")
        return replace(stored, array=stored.array.astype(np.float32))

    def numbers(self, value: Value, what: str) -> list[int]:
        return [int(n) for n in self.constant(value, what).array.reshape(-1)]

    def map(self, x: int) -> int:
        """(N, C, W) or (N, C, H, W) -> (N, H, W, C)."""
        shape = self.shape(x)
        if len(shape) not in (3, 4):
            raise Refused(f"has {len(shape) - 2} spatial dimensions; the engine has 1 and 2")
        if len(shape) == 3:
            x = self.reshape(x, (shape[0], shape[1], 1, shape[2]))
        return self.transpose(x, channels_last(4))

    def unmap(self, x: int, rank: int, name: str) -> int:
        first = self.transpose(x, channels_first(4), name if rank == 4 else "")
        n, c, h, w = self.shape(first)
        return first if rank == 4 else self.reshape(first, (n, c, h * w), name)


Handler = Callable[[Importer, onnx.NodeProto, list[Value]], Value]


def _conv(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x, weight = m.activation(inputs[0]), m.weights(inputs[1], "weight")
    rank = len(m.shape(x))
    if rank not in (3, 4) or weight.array.ndim != rank:
        raise Refused(f"has {rank - 2} spatial dimensions; the engine has 1 and 2")
    fields = _windows(node, m.shape(x)[2:], weight.array.shape[2:])
    array = weight.array if rank == 4 else weight.array[:, :, None, :]
    groups = attribute(node, "group", 1)
    if groups < 1 or array.shape[0] % groups or array.shape[1] * groups != m.shape(x)[1]:
        raise Refused(f"has {groups} groups, a weight {weight.array.shape} and {m.shape(x)[1]} channels")
    kind, last = convolution_weight(array, groups)
    q = weight.quantization
    if q is not None and kind is Kind.DEPTHWISE_CONV2D:
        q = replace(q, axis=3) if q.axis == 0 else None
    mapped = m.map(x)
    operands = [mapped, m.b.constant(weight.name or node.output[0], last, q), *_bias(m, inputs, last, kind)]
    n, h, w, _ = m.shape(mapped)
    out = _sizes((h, w), fields)
    y = m.emit(kind, operands, (n, *out, array.shape[0]), **fields)
    return m.unmap(y, rank, node.output[0])


def _bias(m: Importer, inputs: list[Value], weight: Array, kind: Kind) -> list[int]:
    if len(inputs) < 3 or inputs[2] is None:
        return []
    bias = m.weights(inputs[2], "bias")
    channels = weight.shape[3] if kind is Kind.DEPTHWISE_CONV2D else weight.shape[0]
    if bias.array.size != channels:
        raise Refused(f"has a bias of {bias.array.size} values for {channels} channels")
    return [m.b.constant(bias.name or "bias", bias.array.reshape(-1))]


def _multiply(m: Importer, x: int, weight: Stored, array: Array, bias: Array | None, name: str) -> int:
    """x (..., K) by array (K, M) -> (..., M)."""
    shape = m.shape(x)
    if array.ndim != 2 or not shape or shape[-1] != array.shape[0]:
        raise Refused(f"multiplies {shape} by {array.shape}; the engine multiplies by a stored matrix")
    q = weight.quantization
    if q is not None and len(q.scale) > 1:
        along = array.shape[1] == len(q.scale) and weight.array.shape[q.axis] == len(q.scale)
        q = replace(q, axis=0) if along else None
    flat = m.reshape(x, (math.prod(shape[:-1]), shape[-1]))
    operands = [flat, m.b.constant(weight.name or f"{name}/weight", array.T, q)]
    if bias is not None:
        operands.append(m.b.constant(f"{name}/bias", bias))
    target = (*shape[:-1], array.shape[1])
    product = m.emit(Kind.FULLY_CONNECTED, operands, (math.prod(shape[:-1]), array.shape[1]), name)
    return m.reshape(product, target) if m.shape(product) != target else product


def _gemm(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x, weight = m.activation(inputs[0]), m.weights(inputs[1], "weight")
    if attribute(node, "transA", 0):
        x = m.transpose(x, (1, 0))
    array = weight.array.T if attribute(node, "transB", 0) else weight.array
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if alpha != 1.0:
        array, weight = array * np.float32(alpha), replace(weight, quantization=None)
    name = node.output[0]
    if len(inputs) < 3 or inputs[2] is None:
        return _multiply(m, x, weight, array, None, name)
    shift = m.weights(inputs[2], "bias").array * np.float32(beta)
    if shift.size == array.shape[1] and shift.ndim and shift.shape[-1] == shift.size:
        return _multiply(m, x, weight, array, shift.reshape(-1), name)
    product = _multiply(m, x, weight, array, None, f"{name}/product")
    return _affine(m, product, np.float32(1), shift, name)


def _matmul(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x, weight = m.activation(inputs[0]), m.weights(inputs[1], "weight")
    return _multiply(m, x, weight, weight.array, None, node.output[0])


def _batchnorm(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    if attribute(node, "training_mode", 0):
        raise Refused("was exported in training mode; call eval() on the module before exporting")
    gamma, beta, mean, var = (m.weights(v, "parameter").array for v in inputs[1:5])
    scale, shift = folded_norm(gamma, beta, mean, var, attribute(node, "epsilon", 1e-5))
    x = m.activation(inputs[0])
    spread = (1, -1, *[1] * (len(m.shape(x)) - 2))
    return _affine(m, x, scale.reshape(spread), shift.reshape(spread), node.output[0])


def _affine(m: Importer, x: int, scale: Any, shift: Any, name: str) -> int:
    """x * scale + shift, constants that broadcast to x, as a depthwise convolution of one pixel."""
    shape = m.shape(x)
    scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    try:
        whole = np.broadcast_shapes(scale.shape, shift.shape, shape)
    except ValueError:
        whole = ()
    if whole != shape:
        raise Refused(f"has a constant of the shape {np.broadcast_shapes(scale.shape, shift.shape)} beside {shape}")
    if m.b.tensors[x].dtype != np.float32:
        raise Refused("scales or shifts integers; quantise the model in QDQ format")
    varied = {len(shape) - c.ndim + a for c in (scale, shift) for a, d in enumerate(c.shape) if d > 1}
    if not varied:
        varied = {1} if len(shape) > 2 else {len(shape) - 1}
    order = tuple(range(len(shape)))
    if varied == {1} and len(shape) > 2:
        order = channels_last(len(shape))
    elif varied != {len(shape) - 1}:  # not one channel axis: every element is a channel of its own
        scale, shift = (np.broadcast_to(c, shape) for c in (scale, shift))
        flat = m.reshape(x, (1, 1, 1, math.prod(shape)))
        return m.reshape(_depthwise(m, flat, scale.reshape(-1), shift.reshape(-1), name), shape, name)
    last = m.transpose(x, order) if order != tuple(range(len(shape))) else x
    inner = m.shape(last)
    channels = inner[-1] if inner else 1
    scale, shift = (np.broadcast_to(c.reshape(-1), (channels,)) for c in (scale, shift))
    one = len(inner) == 4 and inner[0] == 1  # else one sample of the others' pixels: each is treated alone
    target = inner if one else (1, 1, math.prod(inner[:-1]), channels)
    y = m.reshape(_depthwise(m, m.reshape(last, target), scale, shift, name), inner)
    return y if last == x else m.transpose(y, inverse(order), name)


def _depthwise(m: Importer, x: int, scale: Array, shift: Array, name: str) -> int:
    operands = [x, m.b.constant(f"{name}/scale", scale.reshape(1, 1, 1, -1)), m.b.constant(f"{name}/shift", shift)]
    return m.emit(Kind.DEPTHWISE_CONV2D, operands, m.shape(x), name)


def _add(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    name = node.output[0]
    result = inputs[0]
    for value in inputs[1:]:
        if isinstance(result, Stored):
            result, value = value, result
        x = m.activation(result)
        if isinstance(value, Stored):
            result = _affine(m, x, np.float32(1), m.weights(value, "constant").array, name)
            continue
        other = m.activation(value)
        if m.shape(x) != m.shape(other):
            raise Refused(f"adds {m.shape(x)} and {m.shape(other)}; the engine adds equal shapes")
        result = m.emit(Kind.ADD, [x, other], m.shape(x), name)
    return result


def _sub(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    if isinstance(inputs[0], Stored):
        return _affine(
            m, m.activation(inputs[1]), np.float32(-1), m.weights(inputs[0], "constant").array, node.output[0]
        )
    if not isinstance(inputs[1], Stored):
        raise Refused("subtracts one activation from another; the engine adds them")
    return _affine(m, m.activation(inputs[0]), np.float32(1), -m.weights(inputs[1], "constant").array, node.output[0])


def _mul(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    left, right = inputs[:2]
    if isinstance(left, Stored) and node.op_type == "Mul":
        left, right = right, left
    if isinstance(left, Stored) or not isinstance(right, Stored):
        raise Refused("multiplies or divides one activation by another; the engine scales by a constant")
    factor = m.weights(right, "constant").array
    if node.op_type == "Div":
        with np.errstate(divide="ignore"):
            factor = np.float32(1) / factor
    if not np.isfinite(factor).all():
        raise Refused("divides by zero")
    return _affine(m, m.activation(left), factor, np.float32(0), node.output[0])


def _relu(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    return m.emit(Kind.RELU, [x], m.shape(x), node.output[0])


def _clip(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    bounds = [-math.inf, math.inf]
    for place, value in enumerate(inputs[1:3]):
        if value is not None:
            bounds[place] = float(m.constant(value, "bound").array.reshape(()))
    x = m.activation(inputs[0])
    least = float(np.finfo(np.float32).min)
    low, high = bounds[0] if bounds[0] > least else -math.inf, bounds[1] if bounds[1] < -least else math.inf
    if (low, high) == (-math.inf, math.inf):
        return x
    kind = {(0.0, 6.0): Kind.RELU6, (0.0, math.inf): Kind.RELU}.get((low, high))
    if kind is None:
        raise Refused(f"clips to {low:g} … {high:g}; the engine has ReLU and ReLU6 (0 … 6)")
    return m.emit(kind, [x], m.shape(x), node.output[0])


def _pool(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    rank = len(m.shape(x))
    kernel = attribute(node, "kernel_shape", [])
    if len(kernel) != rank - 2 or rank not in (3, 4):
        raise Refused(f"has a kernel {kernel} over {m.shape(x)}; the engine has 1 and 2 spatial dimensions")
    if any(d != 1 for d in attribute(node, "dilations", [1])):
        raise Refused("is dilated; the engine's pools are not")
    fields = _windows(node, m.shape(x)[2:], kernel)
    del fields["dilation"]
    kind = Kind.AVERAGE_POOL if node.op_type == "AveragePool" else Kind.MAX_POOL
    mapped = m.map(x)
    if kind is Kind.AVERAGE_POOL and attribute(node, "count_include_pad", 0) and any(fields["padding"]):
        if fields.pop("extra"):
            raise Refused("rounds its size up and counts its padding; use one of the two")
        top, left, bottom, right = fields["padding"]
        pads = ((0, 0), (top, bottom), (left, right), (0, 0))
        shape = [d + sum(p) for d, p in zip(m.shape(mapped), pads, strict=True)]
        mapped, fields["padding"] = m.emit(Kind.PAD, [mapped], shape, pads=pads), (0, 0, 0, 0)
    fields.pop("extra", None)
    n, h, w, c = m.shape(mapped)
    return m.unmap(m.emit(kind, [mapped], (n, *_sizes((h, w), fields), c), **fields), rank, node.output[0])


def _global_pool(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    kind = Kind.AVERAGE_POOL if node.op_type == "GlobalAveragePool" else Kind.MAX_POOL
    mapped = m.map(x)
    n, h, w, c = m.shape(mapped)
    return m.unmap(m.emit(kind, [mapped], (n, 1, 1, c), kernel=(h, w)), len(m.shape(x)), node.output[0])


def _mean(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    rank = len(m.shape(x))
    axes = m.numbers(inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else attribute(node, "axes", [])
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return x
    over = tuple(sorted({a % rank for a in axes} or range(rank)))
    kept = [1 if i in over else d for i, d in enumerate(m.shape(x))]
    if not attribute(node, "keepdims", 1):
        kept = [d for i, d in enumerate(m.shape(x)) if i not in over]
    return m.emit(Kind.MEAN, [x], kept, node.output[0], axes=over)


def _concat(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    operands = [
        m.b.constant(v.name or node.output[0], m.weights(v, "input").array)
        if isinstance(v, Stored)
        else m.activation(v)
        for v in inputs
    ]
    shapes = [m.shape(x) for x in operands]
    axis = attribute(node, "axis", 0)
    axis += len(shapes[0]) if axis < 0 else 0
    if len(operands) == 1:
        return operands[0]
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    return m.emit(Kind.CONCAT, operands, shape, node.output[0], axis=axis)


def _pad(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    rank = len(m.shape(x))
    fill = inputs[2] if len(inputs) > 2 else None
    if attribute(node, "mode", b"constant") != b"constant":
        raise Refused("pads with something else than 0")
    if fill is not None and m.constant(fill, "fill value").array.any():
        raise Refused("pads with something else than 0")
    axes = m.numbers(inputs[3], "axes") if len(inputs) > 3 and inputs[3] is not None else range(rank)
    amounts = m.numbers(inputs[1], "padding")
    if min(amounts) < 0 or len(amounts) != 2 * len(axes):
        raise Refused(f"pads by {amounts}; the engine only adds, before and after each axis")
    pads = [(0, 0)] * rank
    for n, axis in enumerate(axes):
        pads[axis % rank] = (amounts[n], amounts[len(axes) + n])
    shape = [d + sum(p) for d, p in zip(m.shape(x), pads, strict=True)]
    return m.emit(Kind.PAD, [x], shape, node.output[0], pads=tuple(pads))


def _softmax(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    rank = len(m.shape(x))
    axis = attribute(node, "axis", -1) % rank
    if axis == rank - 1:
        return m.emit(Kind.SOFTMAX, [x], m.shape(x), node.output[0])
    order = (*(i for i in range(rank) if i != axis), axis)
    moved = m.transpose(x, order)
    return m.transpose(m.emit(Kind.SOFTMAX, [moved], m.shape(moved)), inverse(order), node.output[0])


def _reshape(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x, target = m.activation(inputs[0]), m.numbers(inputs[1], "shape")
    shape = m.shape(x)
    if not attribute(node, "allowzero", 0):
        target = [shape[i] if d == 0 else d for i, d in enumerate(target)]
    if target.count(-1) == 1:
        known = math.prod(d for d in target if d != -1)
        if known < 1 or math.prod(shape) % known:
            raise Refused(f"reshapes {shape} to {target}")
        target = [math.prod(shape) // known if d == -1 else d for d in target]
    return m.reshape(x, target, node.output[0])


def _flatten(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    shape = m.shape(x)
    axis = attribute(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    return m.reshape(x, (math.prod(shape[:axis]), math.prod(shape[axis:])), node.output[0])


def _squeeze(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    shape = m.shape(x)
    given = m.numbers(inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else attribute(node, "axes", None)
    axes = {a % len(shape) for a in given} if given is not None else {i for i, d in enumerate(shape) if d == 1}
    if any(shape[a] != 1 for a in axes):
        raise Refused(f"removes the axes {sorted(axes)} of {shape}")
    return m.reshape(x, [d for i, d in enumerate(shape) if i not in axes], node.output[0])


def _unsqueeze(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    axes = m.numbers(inputs[1], "axes") if len(inputs) > 1 else attribute(node, "axes", [])
    shape = list(m.shape(x))
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return m.reshape(x, shape, node.output[0])


def _transpose(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    rank = len(m.shape(x))
    permutation = attribute(node, "perm", list(range(rank))[::-1])
    if sorted(permutation) != list(range(rank)):
        raise Refused(f"permutes {m.shape(x)} by {list(permutation)}")
    return m.transpose(x, permutation, node.output[0])


def _same(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    training = inputs[2] if len(inputs) > 2 else None
    if isinstance(training, Stored) and training.array.any():
        raise Refused("drops activations; call eval() on the module before exporting")
    if node.op_type == "Cast" and attribute(node, "to", 0) != onnx.TensorProto.FLOAT:
        raise Refused("casts an activation; convert the model to float32")
    return m.activation(inputs[0])


def _shape_of(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    shape = m.shape(m.activation(inputs[0]))
    return Stored(np.array(shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))], np.int64), None)


def _quantization(m: Importer, inputs: list[Value], axis: int, rank: int) -> tuple[Quantization, bool]:
    """Scale and zero point of a (De)QuantizeLinear, moved by 128 where its integers are unsigned, and whether so."""
    scale = m.constant(inputs[1], "scale").array.astype(np.float32).reshape(-1)
    zero = m.constant(inputs[2], "zero point").array if len(inputs) > 2 and inputs[2] is not None else None
    unsigned = zero is None or zero.dtype == np.uint8  # ONNX: uint8 where no zero point says otherwise
    if zero is not None and zero.dtype not in (np.int8, np.uint8, np.int32):
        raise Refused(f"quantises to {zero.dtype}; quantise to int8 or uint8")
    zeros = np.zeros(len(scale), np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    if len(zeros) != len(scale) or not len(scale):
        raise Refused(f"has {len(scale)} scales and {len(zeros)} zero points")
    return quantization(scale, zeros - 128 if unsigned else zeros, axis % max(rank, 1)), unsigned


def _quantize(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    x = m.activation(inputs[0])
    q, unsigned = _quantization(m, inputs, attribute(node, "axis", 1), len(m.shape(x)))
    if len(q.scale) > 1 or attribute(node, "block_size", 0):
        raise Refused("quantises an activation per channel; the engine has one scale per activation")
    if attribute(node, "output_dtype", 0) not in (0, onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
        raise Refused("quantises to another type than int8 or uint8")
    output = m.b.activation(node.output[0], m.shape(x), np.int8, q)
    if unsigned:
        m.unsigned.add(output)
    return m.b.emit(Kind.QUANTIZE, [x], output)


def _dequantize(m: Importer, node: onnx.NodeProto, inputs: list[Value]) -> Value:
    source = inputs[0]
    axis = attribute(node, "axis", 1)
    if isinstance(source, Stored):
        return _dequantized(m, source, inputs, axis)
    x = m.activation(source)
    q, _ = _quantization(m, inputs, axis, len(m.shape(x)))
    zero = inputs[2] if len(inputs) > 2 else None
    if isinstance(zero, Stored) and zero.array.dtype != (np.uint8 if x in m.unsigned else np.int8):
        raise Refused("reads other integers than its zero point says")
    if zero is None and x not in m.unsigned:
        q = replace(q, zero_point=q.zero_point + 128)
    tensor = m.b.tensors[x]
    if len(q.scale) > 1 or tensor.dtype != np.int8:
        raise Refused("dequantises per channel, or what is no int8")
    known = tensor.quantization
    if known is None:
        _tell(m, x, q)
    elif known.scale[0] != q.scale[0] or known.zero_point[0] != q.zero_point[0]:
        raise Refused("has another scale than the QuantizeLinear before it")
    output = m.b.activation(node.output[0], m.shape(x), np.float32)
    return m.b.emit(Kind.DEQUANTIZE, [x], output)


def _tell(m: Importer, x: int, q: Quantization) -> None:
    """The scale of an int8 input becomes known where it is first dequantised."""
    m.b.tensors[x] = replace(m.b.tensors[x], quantization=q)
    for op in m.b.operators:
        if op.outputs == (x,) and m.b.tensors[op.inputs[0]].quantization is None:
            _tell(m, op.inputs[0], q)


def _dequantized(m: Importer, source: Stored, inputs: list[Value], axis: int) -> Stored:
    """A constant as float32 that remembers its integers."""
    if source.array.dtype not in (np.int8, np.uint8, np.int32):
        raise Refused(f"dequantises a constant of type {source.array.dtype}; quantise weights to int8")
    array = source.array.astype(np.int64) - (128 if source.array.dtype == np.uint8 else 0)
    scale = m.constant(inputs[1], "scale").array.astype(np.float32)
    zero = m.constant(inputs[2], "zero point").array if len(inputs) > 2 and inputs[2] is not None else None
    zeros = np.zeros(scale.size, np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    q = quantization(scale, zeros - (128 if source.array.dtype == np.uint8 else 0), axis % max(array.ndim, 1))
    if scale.ndim > 1 or (scale.size > 1 and array.shape[q.axis] != scale.size):
        raise Refused("dequantises in blocks; quantise weights per channel")
    spread = [1] * array.ndim
    if scale.size > 1:
        spread[q.axis] = -1
    values = (array - q.zero_point.reshape(spread)) * q.scale.astype(np.float64).reshape(spread)
    small = source.array.dtype != np.int32
    return Stored(values.astype(np.float32), source.name, q if small else None)


def _windows(node: onnx.NodeProto, sizes: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
    """kernel, stride, dilation and padding; one dimension becomes two with a height of 1. `extra`, of pools: whether
    the size is rounded up, which takes padding behind the map."""
    axes = len(kernel)
    strides, dilations = list(attribute(node, "strides", [1] * axes)), list(attribute(node, "dilations", [1] * axes))
    pads = list(attribute(node, "pads", [0] * 2 * axes))
    given = attribute(node, "kernel_shape", list(kernel))
    if list(given) != list(kernel) or not len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise Refused(f"has a kernel {list(kernel)}, strides {strides}, dilations {dilations} and pads {pads}")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise Refused(f"has a kernel {list(kernel)}, strides {strides}, dilations {dilations} and pads {pads}")
    two = (1,) * (2 - axes)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = attribute(node, "auto_pad", b"NOTSET").decode()
    before, after = pads[:axes], pads[axes:]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        size, k, s, d = ((*two, *(int(v) for v in part)) for part in (sizes, kernel, strides, dilations))
        top, left, bottom, right = same_padding((size[0], size[1]), (k[0], k[1]), (s[0], s[1]), (d[0], d[1]))
        before, after = [top, left][2 - axes :], [bottom, right][2 - axes :]
        if mode == "SAME_LOWER":
            before, after = after, before
    elif mode == "VALID":
        before, after = [0] * axes, [0] * axes
    extra = False
    if node.op_type in ("MaxPool", "AveragePool") and attribute(node, "ceil_mode", 0):
        for a in range(axes):
            room = sizes[a] + before[a] + after[a] - reach[a]
            out = -(-room // strides[a]) + 1
            out -= (out - 1) * strides[a] >= sizes[a] + before[a]
            more = (out - 1) * strides[a] - room
            extra |= more > 0
            after[a] += max(more, 0)
            if after[a] >= kernel[a]:
                raise Refused("rounds its output size up so far that a window sees padding only")
    zero = (0,) * (2 - axes)
    padding = (*zero, *before, *zero, *after)
    fields = {"kernel": (*two, *kernel), "stride": (*two, *strides), "dilation": (*two, *dilations)}
    fields = {word: tuple(int(v) for v in value) for word, value in fields.items()}
    return {**fields, "padding": tuple(int(p) for p in padding), **({"extra": extra} if "Pool" in node.op_type else {})}


def _sizes(sizes: tuple[int, int], fields: dict[str, Any]) -> tuple[int, int]:
    top, left, bottom, right = fields["padding"]
    around, dilation = (top + bottom, left + right), fields.get("dilation", (1, 1))
    found = []
    for size, more, k, s, d in zip(sizes, around, fields["kernel"], fields["stride"], dilation, strict=True):
        room = size + more - ((k - 1) * d + 1)
        if room < 0:
            raise Refused(f"has a kernel of {fields['kernel']} over a map of {sizes}")
        found.append(room // s + 1)
    return found[0], found[1]


HANDLERS: dict[str, Handler] = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batchnorm,
    "Cast": _same,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _mul,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": _same,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _mul,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _add,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
