"""Network -> ONNX, float or QDQ: what the network says, with transposes around what ONNX computes channels first.

Inputs and outputs of the model are channels first, (N, C, H, W) with N free where the network allows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedtiny_export.infer.building import sound
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Operator, Quantization, Tensor
from fedtiny_export.infer.passes.layout import channels_first, channels_last

OPSET = 17
IR_VERSION = 8
_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int8): TensorProto.INT8}
_NAMES = {Kind.ADD: "Add", Kind.MAX_POOL: "MaxPool", Kind.AVERAGE_POOL: "AveragePool", Kind.RELU: "Relu"}


def to_onnx(network: Network) -> onnx.ModelProto:
    """A checked ONNX model of opset 17. int8 tensors are written as QuantizeLinear and DequantizeLinear pairs, which
    runtimes fuse; an int8 input or output stays int8.

    Raises UnsupportedModel for a network that is not sound.
    """
    proto = _Writer(sound(network)).model()
    onnx.checker.check_model(proto, full_check=True)
    return proto


def traced_onnx(network: Network) -> tuple[onnx.ModelProto, dict[int, str]]:
    """The model with every activation among its outputs, and their names by tensor: float32, channels first."""
    writer = _Writer(sound(network))
    proto = writer.model()
    names = {i: name for i, name in writer.held().items() if network.tensors[i].data is None}
    given = {o.name for o in (*proto.graph.output, *proto.graph.input)}
    for name in dict.fromkeys(names.values()):
        if name not in given:
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto, names


class _Writer:
    """Names: an activation is held channels first, as float32. `_float[t]`: what holds tensor t so."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._names = _distinct(network)
        self._float: dict[int, str] = {}
        self._fresh = 0

    def model(self) -> onnx.ModelProto:
        network = self._network
        inputs = [self._input(i) for i in network.inputs]
        for op in network.operators:
            self._operator(op)
        outputs = [self._output(i) for i in network.outputs]
        graph = helper.make_graph(
            self._nodes,
            network.name or "model",
            inputs,
            outputs,
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        made = helper.make_model(
            graph, producer_name="fedtiny", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        return onnx.shape_inference.infer_shapes(made)

    def held(self) -> dict[int, str]:
        """What holds each tensor, once the model is written."""
        return dict(self._float)

    # Values

    def _tensor(self, index: int) -> Tensor:
        return self._network.tensors[index]

    def _node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        self._fresh += 1
        output = output or f"{inputs[0]}/{kind}{self._fresh}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}/{kind}", **attributes))
        return output

    def _constant(self, name: str, array: Any) -> str:
        while name in self._constants:
            self._fresh += 1
            name = f"{name}.{self._fresh}"
        self._constants[name] = np.asarray(array)
        return name

    def _info(self, index: int, name: str) -> onnx.ValueInfoProto:
        tensor = self._tensor(index)
        shape: list[int | str] = [tensor.shape[i] for i in channels_first(len(tensor.shape))]
        if self._free and shape and shape[0] == 1:
            shape[0] = "N"
        return helper.make_tensor_value_info(name, _TYPES[tensor.dtype], shape)

    @property
    def _free(self) -> bool:
        """Whether the batch can be left free: every activation has one sample, and no operator works across samples."""
        tensors = [self._tensor(i) for op in self._network.operators for i in (*op.inputs, *op.outputs)]
        whole = all(t.shape[:1] == (1,) for t in tensors if t.data is None)
        across = any(
            0 in op.axes or (op.permutation and op.permutation[0] != 0) or (op.kind is Kind.CONCAT and op.axis == 0)
            for op in self._network.operators
        )
        padded = any(op.pads and any(op.pads[0]) for op in self._network.operators)
        return whole and not across and not padded

    def _input(self, index: int) -> onnx.ValueInfoProto:
        name = self._names[index]
        if self._tensor(index).dtype == np.int8:
            self._float[index] = self._dequantized(name, self._q(index))
        else:
            self._float[index] = name
        return self._info(index, name)

    def _output(self, index: int) -> onnx.ValueInfoProto:
        name = self._names[index]
        held = self._value(index)
        if self._tensor(index).dtype == np.int8:
            # what is held is the DequantizeLinear of the very integers
            self._node("QuantizeLinear", [held, *self._scale(self._q(index))], name)
        elif held != name:
            self._node("Identity", [held], name)
        return self._info(index, name)

    def _value(self, index: int) -> str:
        """The name of an activation or constant as float32, channels first."""
        if index not in self._float:
            tensor = self._tensor(index)
            assert tensor.data is not None
            first = tensor.data.transpose(channels_first(tensor.data.ndim))
            self._float[index] = self._stored(self._names[index], first, tensor)
        return self._float[index]

    def _stored(self, name: str, array: Array, tensor: Tensor) -> str:
        """A constant as float32: as it is, or integers and a DequantizeLinear; output channels come first in ONNX."""
        stored = self._constant(name, np.ascontiguousarray(array))
        if tensor.dtype == np.float32 or tensor.quantization is None:
            return stored
        return self._node("DequantizeLinear", [stored, *self._scale(tensor.quantization, array.dtype)], axis=0)

    def _q(self, index: int) -> Quantization:
        q = self._tensor(index).quantization
        assert q is not None
        return q

    def _scale(self, q: Quantization, dtype: Any = np.int8) -> tuple[str, str]:
        scale, zero = q.scale, q.zero_point.astype(dtype)
        if len(scale) == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        return self._constant("scale", scale), self._constant("zero", zero)

    def _dequantized(self, name: str, q: Quantization) -> str:
        return self._node("DequantizeLinear", [name, *self._scale(q)])

    def _finish(self, op: Operator, value: str) -> None:
        """The output of an operator: activated, and through int8 and back where it is int8."""
        if op.activation is Activation.RELU or op.kind is Kind.RELU:
            value = self._node("Relu", [value])
        elif op.activation is Activation.RELU6 or op.kind is Kind.RELU6:
            low, high = (self._constant("bound", np.float32(bound)) for bound in (0, 6))
            value = self._node("Clip", [value, low, high])
        output = op.outputs[0]
        if self._tensor(output).dtype == np.int8 and op.kind is not Kind.DEQUANTIZE:
            q = self._q(output)
            value = self._dequantized(self._node("QuantizeLinear", [value, *self._scale(q)]), q)
        self._float[output] = value

    # Operators

    def _operator(self, op: Operator) -> None:
        x = self._value(op.inputs[0])
        self._finish(op, _WRITERS[op.kind](self, op, x))

    def weighted(self, op: Operator, x: str) -> str:
        tensors = [self._tensor(i) for i in op.inputs]
        weight = tensors[1]
        assert weight.data is not None
        name = self._names[op.inputs[1]]
        if op.kind is Kind.FULLY_CONNECTED:
            return self._matrix(op, x, weight, name)
        window = _window(op) | {"dilations": list(op.dilation)}
        if op.kind is Kind.CONV2D:
            array = weight.data.transpose(0, 3, 1, 2)
        else:
            array = weight.data.transpose(3, 0, 1, 2)
            window["group"] = tensors[0].shape[3]
        operands = [x, self._stored(name, array, weight), *self._bias(op)]
        return self._node("Conv", operands, **window)

    def _matrix(self, op: Operator, x: str, weight: Tensor, name: str) -> str:
        source, output = self._tensor(op.inputs[0]), self._tensor(op.outputs[0])
        assert weight.data is not None
        if len(source.shape) > 2:
            x = self._moved(x, channels_last(len(source.shape)))
        if source.shape != (math.prod(source.shape) // weight.shape[1], weight.shape[1]):
            x = self._reshaped(x, (-1, weight.shape[1]))
        product = self._node("Gemm", [x, self._stored(name, weight.data, weight), *self._bias(op)], transB=1)
        if len(output.shape) == 2:
            return product
        shaped = self._reshaped(product, (-1, *output.shape[1:]))
        return self._moved(shaped, channels_first(len(output.shape)))

    def _bias(self, op: Operator) -> list[str]:
        if len(op.inputs) < 3:
            return []
        bias = self._tensor(op.inputs[2])
        assert bias.data is not None
        return [self._stored(self._names[op.inputs[2]], bias.data, bias)]

    def _moved(self, x: str, permutation: Sequence[int]) -> str:
        if list(permutation) == list(range(len(permutation))):
            return x
        return self._node("Transpose", [x], perm=list(permutation))

    def _reshaped(self, x: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", [x, self._constant("shape", np.array(shape, np.int64))])

    def plain(self, op: Operator, x: str) -> str:
        return x

    def add(self, op: Operator, x: str) -> str:
        return self._node("Add", [x, self._value(op.inputs[1])])

    def pool(self, op: Operator, x: str) -> str:
        return self._node(_NAMES[op.kind], [x], **_window(op), kernel_shape=list(op.kernel))

    def concat(self, op: Operator, x: str) -> str:
        rank = len(self._tensor(op.inputs[0]).shape)
        return self._node("Concat", [self._value(i) for i in op.inputs], axis=channels_first(rank).index(op.axis))

    def pad(self, op: Operator, x: str) -> str:
        pads = [op.pads[i] for i in channels_first(len(op.pads))]
        amounts = [before for before, _ in pads] + [after for _, after in pads]
        return self._node("Pad", [x, self._constant("pads", np.array(amounts, np.int64))])

    def mean(self, op: Operator, x: str) -> str:
        source, output = self._tensor(op.inputs[0]).shape, self._tensor(op.outputs[0]).shape
        order = channels_first(len(source))
        axes = sorted(order.index(a) for a in op.axes)
        if len(source) == len(output):
            return self._node("ReduceMean", [x], axes=axes, keepdims=1)
        left = [a for a in order if a not in op.axes]  # the axes of the result, by their places in the source
        reduced = self._node("ReduceMean", [x], axes=axes, keepdims=0)
        wanted = [sorted(left)[i] for i in channels_first(len(left))]
        return self._moved(reduced, [left.index(a) for a in wanted])

    def softmax(self, op: Operator, x: str) -> str:
        rank = len(self._tensor(op.inputs[0]).shape)
        if op.beta != 1.0:
            x = self._node("Mul", [x, self._constant("beta", np.float32(op.beta))])
        return self._node("Softmax", [x], axis=channels_first(rank).index(rank - 1))

    def reshape(self, op: Operator, x: str) -> str:
        source, output = self._tensor(op.inputs[0]).shape, self._tensor(op.outputs[0]).shape
        last = self._moved(x, channels_last(len(source)))
        shape = (-1, *output[1:]) if source[:1] == output[:1] == (1,) else output
        return self._moved(self._reshaped(last, shape), channels_first(len(output)))

    def transpose(self, op: Operator, x: str) -> str:
        rank = len(op.permutation)
        first = channels_first(rank)
        # channels first -> channels last, the permutation, channels last -> channels first, in one
        whole = [channels_last(rank)[op.permutation[i]] for i in first]
        return self._moved(x, whole)


def _window(op: Operator) -> dict[str, Any]:
    return {"strides": list(op.stride), "pads": list(op.padding)}


def _distinct(network: Network) -> list[str]:
    """A name of its own for every tensor; the first of equal names stays."""
    seen: set[str] = set()
    names = []
    for number, tensor in enumerate(network.tensors):
        name = tensor.name if tensor.name and tensor.name not in seen else f"{tensor.name}.{number}"
        seen.add(name)
        names.append(name)
    return names


_WRITERS: dict[Kind, Callable[[_Writer, Operator, str], str]] = {
    Kind.CONV2D: _Writer.weighted,
    Kind.DEPTHWISE_CONV2D: _Writer.weighted,
    Kind.FULLY_CONNECTED: _Writer.weighted,
    Kind.ADD: _Writer.add,
    Kind.CONCAT: _Writer.concat,
    Kind.PAD: _Writer.pad,
    Kind.AVERAGE_POOL: _Writer.pool,
    Kind.MAX_POOL: _Writer.pool,
    Kind.MEAN: _Writer.mean,
    Kind.SOFTMAX: _Writer.softmax,
    Kind.RESHAPE: _Writer.reshape,
    Kind.TRANSPOSE: _Writer.transpose,
    Kind.RELU: _Writer.plain,
    Kind.RELU6: _Writer.plain,
    Kind.QUANTIZE: _Writer.plain,
    Kind.DEQUANTIZE: _Writer.plain,
}
