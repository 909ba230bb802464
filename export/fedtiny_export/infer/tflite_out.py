"""Network -> .tflite, float or int8, through LiteRT's schema; no converter is involved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flatbuffers
import numpy as np

from fedtiny_export.errors import ExportError
from fedtiny_export.infer.building import NetworkBuilder, quantization, same_padding, sound
from fedtiny_export.infer.check import describe
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Operator, Quantization, Tensor
from fedtiny_export.infer.tflite_schema import (
    DTYPES,
    IDENTIFIER,
    VERSION,
    ActivationFunctionType,
    AddOptionsField,
    BufferField,
    BuiltinOperator,
    BuiltinOptions,
    ConcatenationOptionsField,
    Conv2DOptionsField,
    DepthwiseConv2DOptionsField,
    FullyConnectedOptionsField,
    ModelField,
    OperatorCodeField,
    OperatorField,
    Padding,
    Pool2DOptionsField,
    QuantizationParametersField,
    ReducerOptionsField,
    ReshapeOptionsField,
    SoftmaxOptionsField,
    SubGraphField,
    TensorField,
)

ALIGNMENT = 16  # of constants, which LiteRT and TensorFlow Lite Micro read in place

_WINDOWED = (Kind.CONV2D, Kind.DEPTHWISE_CONV2D, Kind.AVERAGE_POOL, Kind.MAX_POOL)
_CODES = {
    Kind.CONV2D: BuiltinOperator.CONV_2D,
    Kind.DEPTHWISE_CONV2D: BuiltinOperator.DEPTHWISE_CONV_2D,
    Kind.FULLY_CONNECTED: BuiltinOperator.FULLY_CONNECTED,
    Kind.ADD: BuiltinOperator.ADD,
    Kind.CONCAT: BuiltinOperator.CONCATENATION,
    Kind.PAD: BuiltinOperator.PAD,
    Kind.AVERAGE_POOL: BuiltinOperator.AVERAGE_POOL_2D,
    Kind.MAX_POOL: BuiltinOperator.MAX_POOL_2D,
    Kind.MEAN: BuiltinOperator.MEAN,
    Kind.SOFTMAX: BuiltinOperator.SOFTMAX,
    Kind.RESHAPE: BuiltinOperator.RESHAPE,
    Kind.TRANSPOSE: BuiltinOperator.TRANSPOSE,
    Kind.RELU: BuiltinOperator.RELU,
    Kind.RELU6: BuiltinOperator.RELU6,
    Kind.QUANTIZE: BuiltinOperator.QUANTIZE,
    Kind.DEQUANTIZE: BuiltinOperator.DEQUANTIZE,
}
_INT8_VERSION = {
    Kind.CONV2D: 3,
    Kind.DEPTHWISE_CONV2D: 3,
    Kind.FULLY_CONNECTED: 4,
    Kind.RESHAPE: 1,
}
"""Version of an operator on int8; 2 for the others. On float32 it is 1, but for a dilated depthwise convolution."""

_FUSED = {
    Activation.NONE: ActivationFunctionType.NONE,
    Activation.RELU: ActivationFunctionType.RELU,
    Activation.RELU6: ActivationFunctionType.RELU6,
}
_TYPES = {dtype: number for number, dtype in DTYPES.items()}


def to_tflite(network: Network) -> bytes:
    """The bytes of a `.tflite` file that LiteRT, TensorFlow Lite and its Micro runtime load.

    LiteRT pads a window as SAME or not at all; other padding becomes a PAD before it. Raises UnsupportedModel for a
    network that is not sound and ExportError for an average pool whose padding cannot be expressed so.
    """
    return _Writer(_with_pads(sound(network))).bytes()


@dataclass(frozen=True)
class _PadV2:
    """PAD with a value of its own, which a network does not have: before a max pool."""

    inputs: tuple[int, int, int]
    output: int


def _with_pads(network: Network) -> tuple[Network, dict[int, _PadV2]]:
    """Explicit pads in front of windows that LiteRT cannot pad itself; those of max pools by operator number."""
    builder = NetworkBuilder(replace(network, operators=()))
    lowest: dict[int, _PadV2] = {}
    problems = []
    for op in network.operators:
        if op.kind not in _WINDOWED or padding_mode(network, op) is not None:
            builder.operators.append(op)
            continue
        x = builder.tensors[op.inputs[0]]
        if op.kind is Kind.AVERAGE_POOL:
            problems.append(
                f"{describe(network, op)} pads {op.padding} without counting it; TFLite cannot: pad as SAME"
            )
            continue
        top, left, bottom, right = op.padding
        pads = ((0, 0), (top, bottom), (left, right), (0, 0))
        shape = tuple(d + a + b for d, (a, b) in zip(x.shape, pads, strict=True))
        padded = builder.activation(f"{x.name}/padded", shape, x.dtype, x.quantization)
        if op.kind is Kind.MAX_POOL:
            amounts = builder.constant(f"{x.name}/pads", np.array(pads, np.int32))
            least = -128 if x.dtype == np.int8 else np.finfo(np.float32).min
            fill = builder.constant(f"{x.name}/lowest", np.full((), least, x.dtype), x.quantization)
            lowest[len(builder.operators)] = _PadV2((op.inputs[0], amounts, fill), padded)
        else:
            builder.emit(Kind.PAD, op.inputs[:1], padded, pads=pads)
        builder.operators.append(replace(op, inputs=(padded, *op.inputs[1:]), padding=(0, 0, 0, 0)))
    if problems:
        raise ExportError("\n".join(problems))
    return replace(network, tensors=tuple(builder.tensors), operators=tuple(builder.operators)), lowest


def padding_mode(network: Network, op: Operator) -> Padding | None:
    """How LiteRT would name a window's padding; None where it cannot."""
    x, y = network.tensors[op.inputs[0]].shape, network.tensors[op.outputs[0]].shape
    if not any(op.padding):
        return Padding.VALID
    same = op.padding == same_padding((x[1], x[2]), op.kernel, op.stride, op.dilation)
    whole = y[1:3] == (-(-x[1] // op.stride[0]), -(-x[2] // op.stride[1]))
    return Padding.SAME if same and whole else None


class _Writer:
    """One FlatBuffer, from the leaves up: what a table refers to is written before it."""

    def __init__(self, padded: tuple[Network, dict[int, _PadV2]]) -> None:
        self._network, self._lowest = padded
        self._b = flatbuffers.Builder(1024)
        self._tensors = list(self._network.tensors)
        self._codes: list[tuple[int, int]] = []
        self._buffers: list[int] = []

    def bytes(self) -> bytes:
        b, network = self._b, self._network
        operators = []
        for number, op in enumerate(network.operators):
            if number in self._lowest:
                operators.append(self._pad_v2(self._lowest[number]))
            operators.append(self._operator(op))
        self._buffers.append(self._table(3, []))
        tensors = [self._tensor(tensor) for tensor in self._tensors]
        parts = {
            SubGraphField.TENSORS: self._offsets(tensors),
            SubGraphField.INPUTS: self._numbers(network.inputs),
            SubGraphField.OUTPUTS: self._numbers(network.outputs),
            SubGraphField.OPERATORS: self._offsets(operators),
            SubGraphField.NAME: b.CreateString("main"),
        }
        subgraph = self._table(6, [(field, "offset", at) for field, at in parts.items()])
        codes = [
            self._table(
                4,
                [
                    (OperatorCodeField.DEPRECATED_BUILTIN_CODE, "Int8", min(code, 127)),
                    (OperatorCodeField.VERSION, "Int32", version),
                    (OperatorCodeField.BUILTIN_CODE, "Int32", code),
                ],
            )
            for code, version in self._codes
        ]
        model = {
            ModelField.OPERATOR_CODES: self._offsets(codes),
            ModelField.SUBGRAPHS: self._offsets([subgraph]),
            ModelField.DESCRIPTION: b.CreateString(network.name),
            ModelField.BUFFERS: self._offsets(self._buffers),
        }
        fields: list[tuple[int, str, Any]] = [(ModelField.VERSION, "Uint32", VERSION)]
        b.Finish(self._table(10, [*fields, *((field, "offset", at) for field, at in model.items())]), IDENTIFIER)
        return bytes(b.Output())

    def _table(self, size: int, fields: Sequence[tuple[int, str, Any]]) -> int:
        """A table of `size` fields; each given one is (number, type, value)."""
        b = self._b
        b.StartObject(size)
        for field, kind, value in fields:
            if kind == "offset":
                b.PrependUOffsetTRelativeSlot(field, value, 0)
            else:
                getattr(b, f"Prepend{kind}Slot")(field, value, None)
        return int(b.EndObject())

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._b.PrependUOffsetTRelative(offset)
        return int(self._b.EndVector())

    def _numbers(self, numbers: Sequence[int]) -> int:
        return int(self._b.CreateNumpyVector(np.array(numbers, np.int32)))

    def _tensor(self, tensor: Tensor) -> int:
        buffer = 0
        if tensor.data is not None:
            buffer = len(self._buffers)
            self._buffers.append(self._table(3, [(BufferField.DATA, "offset", self._constant(tensor.data))]))
        fields: list[tuple[int, str, Any]] = [
            (TensorField.SHAPE, "offset", self._numbers(tensor.shape)),
            (TensorField.TYPE, "Int8", _TYPES[tensor.dtype]),
            (TensorField.BUFFER, "Uint32", buffer),
            (TensorField.NAME, "offset", self._b.CreateString(tensor.name)),
        ]
        if tensor.quantization is not None:
            fields.append((TensorField.QUANTIZATION, "offset", self._quantization(tensor.quantization)))
        return self._table(11, fields)

    def _constant(self, data: Array) -> int:
        raw = np.ascontiguousarray(data.astype(data.dtype.newbyteorder("<"))).tobytes()
        self._b.StartVector(1, len(raw), ALIGNMENT)
        self._b.head -= len(raw)
        self._b.Bytes[self._b.head : self._b.head + len(raw)] = raw
        return int(self._b.EndVector())

    def _quantization(self, q: Quantization) -> int:
        scale = self._b.CreateNumpyVector(q.scale.astype(np.float32))
        zero = self._b.CreateNumpyVector(q.zero_point.astype(np.int64))
        return self._table(
            7,
            [
                (QuantizationParametersField.SCALE, "offset", scale),
                (QuantizationParametersField.ZERO_POINT, "offset", zero),
                (QuantizationParametersField.QUANTIZED_DIMENSION, "Int32", q.axis),
            ],
        )

    def _hidden(self, name: str, numbers: Any) -> int:
        """A constant that LiteRT reads as an input and a network holds in its operator."""
        data = np.array(numbers, np.int32)
        self._tensors.append(Tensor(name, data.shape, data.dtype, None, data))
        return len(self._tensors) - 1

    def _pad_v2(self, pad: _PadV2) -> int:
        return self._written(
            BuiltinOperator.PADV2,
            self._version(pad.inputs[0]),
            pad.inputs,
            pad.output,
            BuiltinOptions.PadV2Options,
            0,
            [],
        )

    def _version(self, tensor: int) -> int:
        return 2 if self._tensors[tensor].dtype == np.int8 else 1

    def _operator(self, op: Operator) -> int:
        output, x = op.outputs[0], self._tensors[op.inputs[0]]
        version = _INT8_VERSION.get(op.kind, 2) if x.dtype == np.int8 else 1
        if op.kind is Kind.DEPTHWISE_CONV2D and op.dilation != (1, 1):
            version = max(version, 2)
        name = self._tensors[output].name
        inputs = [*op.inputs, *self._arguments(op, name)]
        options, size, fields = _OPTIONS[op.kind](self._network, op)
        if op.kind is Kind.RESHAPE:
            at = self._numbers(self._shape(op))
            fields = [(ReshapeOptionsField.NEW_SHAPE, "offset", at)]
        return self._written(_CODES[op.kind], version, inputs, output, options, size, fields)

    def _arguments(self, op: Operator, name: str) -> list[int]:
        match op.kind:
            case Kind.PAD:
                return [self._hidden(f"{name}/pads", op.pads)]
            case Kind.MEAN:
                return [self._hidden(f"{name}/axes", op.axes)]
            case Kind.TRANSPOSE:
                return [self._hidden(f"{name}/permutation", op.permutation)]
            case Kind.RESHAPE:
                return [self._hidden(f"{name}/shape", self._shape(op))]
            case Kind.CONV2D if len(op.inputs) == 2:
                return [self._no_bias(op, name)]
            case _:
                return []

    def _no_bias(self, op: Operator, name: str) -> int:
        """Zeros: LiteRT's convolution insists on a bias."""
        x, weight = (self._tensors[i] for i in op.inputs)
        dtype: np.dtype[Any] = np.dtype(np.float32)
        scale = None
        if x.dtype == np.int8 and x.quantization is not None and weight.quantization is not None:
            dtype, scale = np.dtype(np.int32), quantization(x.quantization.scale * weight.quantization.scale, 0)
        zeros = np.zeros(weight.shape[0], dtype)
        self._tensors.append(Tensor(f"{name}/bias", zeros.shape, dtype, scale, zeros))
        return len(self._tensors) - 1

    def _shape(self, op: Operator) -> tuple[int, ...]:
        """The batch stays free where it can, so that LiteRT may resize the model's input."""
        before, after = self._tensors[op.inputs[0]].shape, self._tensors[op.outputs[0]].shape
        return (-1, *after[1:]) if before[:1] == after[:1] == (1,) else after

    def _written(
        self,
        code: int,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: int,
        size: int,
        fields: Sequence[tuple[int, str, Any]],
    ) -> int:
        if (code, version) not in self._codes:
            self._codes.append((code, version))
        parts: list[tuple[int, str, Any]] = [
            (OperatorField.OPCODE_INDEX, "Uint32", self._codes.index((code, version))),
            (OperatorField.INPUTS, "offset", self._numbers(inputs)),
            (OperatorField.OUTPUTS, "offset", self._numbers([output])),
        ]
        if options:
            table = self._table(size, fields)
            parts += [
                (OperatorField.BUILTIN_OPTIONS_TYPE, "Uint8", options),
                (OperatorField.BUILTIN_OPTIONS, "offset", table),
            ]
        return self._table(14, parts)


_Described = tuple[int, int, list[tuple[int, str, Any]]]
"""Type of an operator's options, how many fields their table has, and the fields."""


def _conv(network: Network, op: Operator) -> _Described:
    f = Conv2DOptionsField
    fields = [
        *_window(network, op, f),
        (f.DILATION_W_FACTOR, "Int32", op.dilation[1]),
        (f.DILATION_H_FACTOR, "Int32", op.dilation[0]),
    ]
    return BuiltinOptions.Conv2DOptions, 7, fields


def _depthwise(network: Network, op: Operator) -> _Described:
    f = DepthwiseConv2DOptionsField
    multiplier = network.tensors[op.inputs[1]].shape[3] // network.tensors[op.inputs[0]].shape[3]
    fields = [
        *_window(network, op, f),
        (f.DEPTH_MULTIPLIER, "Int32", multiplier),
        (f.DILATION_W_FACTOR, "Int32", op.dilation[1]),
        (f.DILATION_H_FACTOR, "Int32", op.dilation[0]),
    ]
    return BuiltinOptions.DepthwiseConv2DOptions, 7, fields


def _pool(network: Network, op: Operator) -> _Described:
    f = Pool2DOptionsField
    kernel = [(f.FILTER_WIDTH, "Int32", op.kernel[1]), (f.FILTER_HEIGHT, "Int32", op.kernel[0])]
    return BuiltinOptions.Pool2DOptions, 6, _window(network, op, f) + kernel


def _window(network: Network, op: Operator, f: Any) -> list[tuple[int, str, Any]]:
    mode = padding_mode(network, op)
    assert mode is not None
    return [
        (f.PADDING, "Int8", mode),
        (f.STRIDE_W, "Int32", op.stride[1]),
        (f.STRIDE_H, "Int32", op.stride[0]),
        (f.FUSED_ACTIVATION_FUNCTION, "Int8", _FUSED[op.activation]),
    ]


def _fully_connected(network: Network, op: Operator) -> _Described:
    x, y = network.tensors[op.inputs[0]].shape, network.tensors[op.outputs[0]].shape
    f = FullyConnectedOptionsField
    keep = len(y) == len(x) and len(x) > 2
    fields: list[tuple[int, str, Any]] = [
        (f.FUSED_ACTIVATION_FUNCTION, "Int8", _FUSED[op.activation]),
        (f.KEEP_NUM_DIMS, "Bool", keep),
    ]
    return BuiltinOptions.FullyConnectedOptions, 6, fields


def _add(network: Network, op: Operator) -> _Described:
    return BuiltinOptions.AddOptions, 2, [(AddOptionsField.FUSED_ACTIVATION_FUNCTION, "Int8", _FUSED[op.activation])]


def _concat(network: Network, op: Operator) -> _Described:
    return BuiltinOptions.ConcatenationOptions, 2, [(ConcatenationOptionsField.AXIS, "Int32", op.axis)]


def _mean(network: Network, op: Operator) -> _Described:
    keep = len(network.tensors[op.inputs[0]].shape) == len(network.tensors[op.outputs[0]].shape)
    return BuiltinOptions.ReducerOptions, 1, [(ReducerOptionsField.KEEP_DIMS, "Bool", keep)]


def _softmax(network: Network, op: Operator) -> _Described:
    return BuiltinOptions.SoftmaxOptions, 1, [(SoftmaxOptionsField.BETA, "Float32", op.beta)]


def _empty(options: BuiltinOptions) -> Callable[[Network, Operator], _Described]:
    return lambda network, op: (options, 0, [])


_OPTIONS: dict[Kind, Callable[[Network, Operator], _Described]] = {
    Kind.CONV2D: _conv,
    Kind.DEPTHWISE_CONV2D: _depthwise,
    Kind.FULLY_CONNECTED: _fully_connected,
    Kind.ADD: _add,
    Kind.CONCAT: _concat,
    Kind.PAD: _empty(BuiltinOptions.PadOptions),
    Kind.AVERAGE_POOL: _pool,
    Kind.MAX_POOL: _pool,
    Kind.MEAN: _mean,
    Kind.SOFTMAX: _softmax,
    Kind.RESHAPE: lambda network, op: (BuiltinOptions.ReshapeOptions, 1, []),
    Kind.TRANSPOSE: _empty(BuiltinOptions.TransposeOptions),
    Kind.RELU: _empty(BuiltinOptions.NONE),
    Kind.RELU6: _empty(BuiltinOptions.NONE),
    Kind.QUANTIZE: _empty(BuiltinOptions.QuantizeOptions),
    Kind.DEQUANTIZE: _empty(BuiltinOptions.DequantizeOptions),
}
