""".tflite -> network. What fedtiny lacks is collected and named at once; a damaged file is refused with one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fedtiny_export.errors import DamagedModel, UnsupportedModel
from fedtiny_export.infer.building import NetworkBuilder, quantization, same_padding, sound
from fedtiny_export.infer.check import MAX_ELEMENTS
from fedtiny_export.infer.fixed import dequantized
from fedtiny_export.infer.flat import Flat, Table
from fedtiny_export.infer.hints import hint
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Quantization, Tensor
from fedtiny_export.infer.passes import tidy
from fedtiny_export.infer.tflite_schema import (
    DTYPES,
    IDENTIFIER,
    OPERATOR_NAMES,
    VERSION,
    ActivationFunctionType,
    AddOptionsField,
    BufferField,
    BuiltinOperator,
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
    SoftmaxOptionsField,
    SubGraphField,
    TensorField,
    TensorType,
)

CUSTOM = 32
LOWEST: dict[Any, float] = {np.dtype(np.int8): -128.0, np.dtype(np.float32): float(np.finfo(np.float32).min)}


class Refused(Exception):
    """Why one operator cannot be imported; the importer adds which."""


def from_tflite(data: bytes, name: str = "model") -> Network:
    """The network of a `.tflite` file, float or int8, of one subgraph and batch 1.

    Raises DamagedModel for bytes that are no such file and UnsupportedModel naming everything that the engine lacks.
    """
    with np.errstate(all="ignore"):  # damaged numbers become what is not finite, and that is refused
        return sound(tidy(sound(_Importer(data, name).run())))


class _Importer:
    def __init__(self, data: bytes, name: str) -> None:
        flat = Flat(data, IDENTIFIER, ".tflite")
        model = flat.root
        if model.scalar(ModelField.VERSION, "I", 0) != VERSION:
            raise DamagedModel(f"this .tflite file does not have version {VERSION} of the format. Convert it anew.")
        subgraphs = model.tables(ModelField.SUBGRAPHS)
        if len(subgraphs) != 1:
            raise UnsupportedModel([f"it has {len(subgraphs)} subgraphs; convert a model without control flow"])
        self._broken = flat.broken
        self._graph = subgraphs[0]
        self._buffers = model.tables(ModelField.BUFFERS)
        self._codes = [_code(table) for table in model.tables(ModelField.OPERATOR_CODES)]
        self._name = name
        self._problems: list[str] = []
        self.builder = NetworkBuilder()
        self._alias: dict[int, int] = {}
        self._lowest: dict[int, tuple[int, Array]] = {}  # maps padded with the lowest value, for a max pool to take up

    def run(self) -> Network:
        tables = self._graph.tables(SubGraphField.TENSORS)
        for number, table in enumerate(tables):
            self.builder.add(self._tensor(table, number))
        operators = self._graph.tables(SubGraphField.OPERATORS)
        for number, table in enumerate(operators):
            self._visit(table, number)
        inputs, outputs = (
            self._numbers(self._graph.array(field, np.int32)) for field in (SubGraphField.INPUTS, SubGraphField.OUTPUTS)
        )
        if self._problems:
            raise UnsupportedModel(list(dict.fromkeys(self._problems)))
        return self.builder.network(inputs, outputs, self._name)

    def _tensor(self, table: Table, number: int) -> Tensor:
        name = table.text(TensorField.NAME) or f"tensor{number}"
        kind = table.scalar(TensorField.TYPE, "b", 0)
        dtype = DTYPES.get(kind)
        shape = tuple(int(d) for d in table.array(TensorField.SHAPE, np.int32))
        if dtype is None:
            # Whether it matters is known when an operator reads it: a check of types names it.
            return Tensor(f"{name} ({_type_name(kind)})", shape, np.dtype(np.void))
        if any(d < 0 for d in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise DamagedModel(f"tensor {name} of this .tflite file has the shape {shape}. Get the file anew.")
        if table.table(TensorField.SPARSITY) is not None:
            self._problems.append(
                f"tensor {name} is stored sparse; store it dense, with zeros: fedtiny packs zeros itself"
            )
        data = self._data(table, name, dtype, shape)
        if dtype == np.float16 and data is not None:
            dtype, data = np.dtype(np.float32), data.astype(np.float32)
        return Tensor(name, shape, dtype, self._quantization(table, name), data)

    def _data(self, table: Table, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
        number = table.scalar(TensorField.BUFFER, "I", 0)
        if number >= len(self._buffers):
            raise DamagedModel(f"tensor {name} of this .tflite file names a buffer that does not exist. Get it anew.")
        buffer = self._buffers[number]
        if buffer.scalar(BufferField.OFFSET, "Q", 0) > 1:
            self._problems.append(f"tensor {name} lies outside of the FlatBuffer; convert the model to less than 2 GB")
        data = buffer.array(BufferField.DATA, np.uint8)
        if not len(data):
            return None
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise DamagedModel(
                f"tensor {name} of this .tflite file has {len(data):,} bytes for the shape {shape}. Get the file anew."
            )
        return np.asarray(data.view(dtype.newbyteorder("<")), dtype).reshape(shape)

    def _quantization(self, table: Table, name: str) -> Quantization | None:
        q = table.table(TensorField.QUANTIZATION)
        scale = q.array(QuantizationParametersField.SCALE, np.float32) if q else np.zeros(0, np.float32)
        if q is None or not len(scale):
            return None
        if q.scalar(QuantizationParametersField.DETAILS_TYPE, "B", 0):
            self._problems.append(
                f"tensor {name} is quantised in a way of its own; quantise it with scale and zero point"
            )
        zeros = q.array(QuantizationParametersField.ZERO_POINT, np.int64)
        zeros = np.zeros(len(scale), np.int64) if not len(zeros) else zeros
        if len(zeros) not in (1, len(scale)) or (np.abs(zeros) > 1 << 30).any():
            raise DamagedModel(
                f"tensor {name} of this .tflite file has scales and zero points that do not fit. Get it anew."
            )
        return quantization(scale, zeros, q.scalar(QuantizationParametersField.QUANTIZED_DIMENSION, "i", 0))

    def _numbers(self, array: Array) -> list[int]:
        numbers = [int(i) for i in array]
        if any(not 0 <= i < len(self.builder.tensors) for i in numbers):
            raise DamagedModel("this .tflite file names a tensor that does not exist. Get it anew.")
        return [self._alias.get(i, i) for i in numbers]

    def _visit(self, table: Table, number: int) -> None:
        code = table.scalar(OperatorField.OPCODE_INDEX, "I", 0)
        if code >= len(self._codes):
            raise DamagedModel("this .tflite file names an operator that does not exist. Get it anew.")
        kind, word = self._codes[code]
        given = table.array(OperatorField.INPUTS, np.int32)
        while len(given) and given[-1] == -1:
            given = given[:-1]
        outputs = self._numbers(table.array(OperatorField.OUTPUTS, np.int32))
        what = f"{word} '{self.builder.tensors[outputs[0]].name if outputs else number}'"
        handler = HANDLERS.get(kind)
        if handler is None:
            self._problems.append(f"{what} is no operator of the engine{hint(word)}")
            return
        if (given == -1).any():
            self._problems.append(f"{what} lacks an input in the middle; give it a bias or none")
            return
        inputs = self._numbers(given)
        if not inputs or len(outputs) != 1:
            raise DamagedModel(f"{what} of this .tflite file has {len(inputs)} inputs and {len(outputs)} outputs.")
        strange = [
            self.builder.tensors[i].name for i in (*inputs, *outputs) if self.builder.tensors[i].dtype == np.void
        ]
        if strange:
            self._problems.append(f"{what} works on {', '.join(strange)}; convert the model to float32 or int8")
            return
        early = [i for i in inputs if i in self._lowest]
        if early and kind != BuiltinOperator.MAX_POOL_2D:
            self._problems.append(f"{what} reads a map that was padded with the lowest value; only a max pool can")
            return
        try:
            handler(self, inputs, outputs[0], _Options(table.table(OperatorField.BUILTIN_OPTIONS)))
        except Refused as refused:
            self._problems.append(f"{what} {refused}")

    # What operators become. `o` holds the builtin options.

    def conv(self, inputs: list[int], output: int, o: _Options) -> None:
        f = Conv2DOptionsField
        stride, dilation = o.pair(f.STRIDE_H, f.STRIDE_W), o.pair(f.DILATION_H_FACTOR, f.DILATION_W_FACTOR)
        self.windowed(
            Kind.CONV2D, inputs, output, o.number(f.PADDING), o.number(f.FUSED_ACTIVATION_FUNCTION), stride, dilation
        )

    def depthwise(self, inputs: list[int], output: int, o: _Options) -> None:
        f = DepthwiseConv2DOptionsField
        stride, dilation = o.pair(f.STRIDE_H, f.STRIDE_W), o.pair(f.DILATION_H_FACTOR, f.DILATION_W_FACTOR)
        self.windowed(
            Kind.DEPTHWISE_CONV2D,
            inputs,
            output,
            o.number(f.PADDING),
            o.number(f.FUSED_ACTIVATION_FUNCTION),
            stride,
            dilation,
        )

    def windowed(
        self,
        kind: Kind,
        inputs: list[int],
        output: int,
        padding: int,
        activation: int,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        kernel: tuple[int, int] | None = None,
    ) -> None:
        x = self.builder.tensors[inputs[0]]
        if kernel is None:
            weight = self.builder.tensors[inputs[1]] if len(inputs) > 1 else None
            if weight is None or weight.data is None or len(weight.shape) != 4:
                raise Refused("computes its weight at run time, or has one that is no (O, KH, KW, I)")
            kernel = (weight.shape[1], weight.shape[2])
        if len(x.shape) != 4 or min(*kernel, *stride, *dilation) < 1:
            raise Refused(
                f"has the kernel {kernel} and stride {stride} over {x.shape}; it takes (1, height, width, channels)"
            )
        sizes = (x.shape[1], x.shape[2])
        around = same_padding(sizes, kernel, stride, dilation) if padding == Padding.SAME else (0, 0, 0, 0)
        if inputs[0] in self._lowest and kind is Kind.MAX_POOL and not any(around):
            inner, pads = self._lowest[inputs[0]]
            if pads[[0, 3]].any():
                raise Refused("reads a map that is padded along batch or channels")
            inputs, around = [inner], (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1]))
        fields: dict[str, Any] = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": around}
        self.builder.emit(kind, self.weights(inputs), output, activation=_activation(activation), **fields)

    def fully_connected(self, inputs: list[int], output: int, o: _Options) -> None:
        if o.number(FullyConnectedOptionsField.WEIGHTS_FORMAT):
            raise Refused("has shuffled weights; convert the model without them")
        if len(inputs) < 2 or self.builder.tensors[inputs[1]].data is None:
            raise Refused("computes its weight at run time; it must be stored")
        activation = _activation(o.number(FullyConnectedOptionsField.FUSED_ACTIVATION_FUNCTION))
        self.builder.emit(Kind.FULLY_CONNECTED, self.weights(inputs), output, activation=activation)

    def weights(self, inputs: list[int]) -> list[int]:
        """Inputs of a weighted operator; int8 weights of a float one ("dynamic range") become float32."""
        weight = self.builder.tensors[inputs[1]] if len(inputs) > 1 else None
        if weight is None or weight.data is None or weight.quantization is None:
            return inputs
        if weight.dtype != np.int8 or self.builder.tensors[inputs[0]].dtype != np.float32:
            return inputs
        q = weight.quantization
        if len(q.scale) > 1 and (not 0 <= q.axis < weight.data.ndim or weight.shape[q.axis] != len(q.scale)):
            raise Refused("has a weight whose scales do not fit its shape")
        return [inputs[0], self.builder.constant(weight.name, dequantized(weight.data, q)), *inputs[2:]]

    def add(self, inputs: list[int], output: int, o: _Options) -> None:
        if len(inputs) != 2:
            raise Refused(f"has {len(inputs)} inputs")
        inputs = [self._spread(i, self.builder.tensors[output].shape) for i in inputs]
        self.builder.emit(
            Kind.ADD, inputs, output, activation=_activation(o.number(AddOptionsField.FUSED_ACTIVATION_FUNCTION))
        )

    def _spread(self, index: int, shape: tuple[int, ...]) -> int:
        """A constant in full where LiteRT would broadcast it."""
        tensor = self.builder.tensors[index]
        if tensor.data is None or tensor.shape == shape:
            return index
        try:
            data = np.broadcast_to(tensor.data, shape)
        except ValueError:
            raise Refused(f"adds {tensor.shape} to {shape}") from None
        return self.builder.constant(tensor.name, data, tensor.quantization)

    def concat(self, inputs: list[int], output: int, o: _Options) -> None:
        if o.number(ConcatenationOptionsField.FUSED_ACTIVATION_FUNCTION):
            raise Refused("has a fused activation")
        axis = o.number(ConcatenationOptionsField.AXIS, "i")
        rank = len(self.builder.tensors[inputs[0]].shape)
        self.builder.emit(Kind.CONCAT, inputs, output, axis=axis + rank if axis < 0 else axis)

    def pad(self, inputs: list[int], output: int, o: _Options) -> None:
        pads = self._constant(inputs, 1, "padding").reshape(-1, 2)
        if len(inputs) > 2 and not self._is_zero(inputs[2]):
            fill = self.builder.tensors[inputs[2]].data
            if fill is None or fill.size != 1 or fill.item() > LOWEST.get(fill.dtype, -math.inf) or len(pads) != 4:
                raise Refused("pads with something else than 0")
            self._lowest[output] = (inputs[0], pads)
            return
        self.builder.emit(Kind.PAD, inputs[:1], output, pads=tuple((int(a), int(b)) for a, b in pads))

    def _is_zero(self, index: int) -> bool:
        tensor = self.builder.tensors[index]
        zero = tensor.quantization.zero_point[0] if tensor.quantization else 0
        return tensor.data is not None and tensor.data.size == 1 and tensor.data.item() == zero

    def mean(self, inputs: list[int], output: int, o: _Options) -> None:
        rank = len(self.builder.tensors[inputs[0]].shape)
        axes = sorted({int(a) % rank if rank else 0 for a in self._constant(inputs, 1, "axes").reshape(-1)})
        self.builder.emit(Kind.MEAN, inputs[:1], output, axes=tuple(axes))

    def softmax(self, inputs: list[int], output: int, o: _Options) -> None:
        beta = o.number(SoftmaxOptionsField.BETA, "f")
        if not 0 < beta < 1e6:
            raise Refused(f"has the beta {beta:g}")
        self.builder.emit(Kind.SOFTMAX, inputs, output, beta=float(beta))

    def transpose(self, inputs: list[int], output: int, o: _Options) -> None:
        permutation = tuple(int(p) for p in self._constant(inputs, 1, "permutation").reshape(-1))
        self.builder.emit(Kind.TRANSPOSE, inputs[:1], output, permutation=permutation)

    def dequantize(self, inputs: list[int], output: int, o: _Options) -> None:
        x = self.builder.tensors[inputs[0]]
        if x.data is not None and x.dtype == np.float32:
            self._alias[output] = inputs[0]  # it was float16 in the file
        else:
            self.builder.emit(Kind.DEQUANTIZE, inputs, output)

    def _constant(self, inputs: list[int], at: int, what: str) -> Array:
        tensor = self.builder.tensors[inputs[at]] if len(inputs) > at else None
        if tensor is None or tensor.data is None or tensor.dtype not in (np.int32, np.int64):
            raise Refused(f"computes its {what} at run time; it must be stored")
        if what == "padding" and (tensor.data.size % 2 or (np.abs(tensor.data) > MAX_ELEMENTS).any()):
            raise Refused("has a padding that is no list of pairs")
        return tensor.data


class _Options:
    """Builtin options, or their absence: then every field has its default."""

    def __init__(self, table: Table | None) -> None:
        self._table = table

    def number(self, field: int, code: str = "b", default: Any = 0) -> Any:
        return self._table.scalar(field, code, default) if self._table else default

    def pair(self, first: int, second: int, default: int = 1) -> tuple[int, int]:
        return (self.number(first, "i", default), self.number(second, "i", default))


def _activation(number: int) -> Activation:
    known = {
        ActivationFunctionType.NONE: Activation.NONE,
        ActivationFunctionType.RELU: Activation.RELU,
        ActivationFunctionType.RELU6: Activation.RELU6,
    }
    if number not in known:
        raise Refused("has a fused activation that is neither ReLU nor ReLU6; use one of these")
    return known[ActivationFunctionType(number)]


def _code(table: Table) -> tuple[int, str]:
    """Number and name of an operator code. Files before 2.4 hold the number in a byte that is now deprecated."""
    code = max(
        table.scalar(OperatorCodeField.BUILTIN_CODE, "i", 0),
        table.scalar(OperatorCodeField.DEPRECATED_BUILTIN_CODE, "b", 0),
    )
    if code == CUSTOM:
        return code, f"custom operator {table.text(OperatorCodeField.CUSTOM_CODE)!r}"
    if code in set(BuiltinOperator):
        return code, BuiltinOperator(code).name
    return code, OPERATOR_NAMES.get(code, f"operator number {code}")


def _type_name(kind: int) -> str:
    return TensorType(kind).name.lower() if kind in set(TensorType) else f"of the unknown type {kind}"


_Handler = Callable[[_Importer, list[int], int, _Options], None]


def _pool(kind: Kind) -> _Handler:
    def pool(importer: _Importer, inputs: list[int], output: int, o: _Options) -> None:
        f = Pool2DOptionsField
        importer.windowed(
            kind,
            inputs,
            output,
            o.number(f.PADDING),
            o.number(f.FUSED_ACTIVATION_FUNCTION),
            o.pair(f.STRIDE_H, f.STRIDE_W),
            (1, 1),
            o.pair(f.FILTER_HEIGHT, f.FILTER_WIDTH, 0),
        )

    return pool


def _plain(kind: Kind) -> _Handler:
    def emit(importer: _Importer, inputs: list[int], output: int, o: _Options) -> None:
        importer.builder.emit(kind, inputs[:1], output)

    return emit


HANDLERS: dict[int, _Handler] = {
    BuiltinOperator.ADD: _Importer.add,
    BuiltinOperator.AVERAGE_POOL_2D: _pool(Kind.AVERAGE_POOL),
    BuiltinOperator.CONCATENATION: _Importer.concat,
    BuiltinOperator.CONV_2D: _Importer.conv,
    BuiltinOperator.DEPTHWISE_CONV_2D: _Importer.depthwise,
    BuiltinOperator.DEQUANTIZE: _Importer.dequantize,
    BuiltinOperator.EXPAND_DIMS: _plain(Kind.RESHAPE),
    BuiltinOperator.FULLY_CONNECTED: _Importer.fully_connected,
    BuiltinOperator.MAX_POOL_2D: _pool(Kind.MAX_POOL),
    BuiltinOperator.MEAN: _Importer.mean,
    BuiltinOperator.PAD: _Importer.pad,
    BuiltinOperator.PADV2: _Importer.pad,
    BuiltinOperator.QUANTIZE: _plain(Kind.QUANTIZE),
    BuiltinOperator.RELU: _plain(Kind.RELU),
    BuiltinOperator.RELU6: _plain(Kind.RELU6),
    BuiltinOperator.RESHAPE: _plain(Kind.RESHAPE),
    BuiltinOperator.SOFTMAX: _Importer.softmax,
    BuiltinOperator.SQUEEZE: _plain(Kind.RESHAPE),
    BuiltinOperator.TRANSPOSE: _Importer.transpose,
}
