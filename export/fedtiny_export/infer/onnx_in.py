"""ONNX -> network, float and QDQ. What the engine lacks is collected and named at once.

Nodes are translated as they stand, channels first, with transposes around what LiteRT computes channels last; the
layout pass then takes these away (passes/layout.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from fedtiny_export.errors import DamagedModel, UnsupportedModel
from fedtiny_export.infer.building import NetworkBuilder, sound
from fedtiny_export.infer.check import MAX_ELEMENTS, MAX_RANK
from fedtiny_export.infer.hints import hint
from fedtiny_export.infer.network import Network
from fedtiny_export.infer.onnx_ops import HANDLERS, Importer, Stored
from fedtiny_export.infer.passes import tidy
from fedtiny_export.infer.passes.layout import channels_first, channels_last
from fedtiny_export.infer.passes.qdq import to_integers
from fedtiny_export.onnx_values import Refused, fold

LEAST_OPSET = 13
_TYPES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.INT8: np.int8,
    onnx.TensorProto.UINT8: np.int8,  # of a zero point that is 128 less
}
_HINTS = {
    "QLinearConv": "; quantise the model in QDQ format",
    "QLinearMatMul": "; quantise the model in QDQ format",
    "ConvInteger": "; quantise the model in QDQ format",
    "MatMulInteger": "; quantise the model in QDQ format",
}


def from_onnx(model: onnx.ModelProto | bytes, name: str = "model") -> Network:
    """The network of an ONNX model, opset 13 and up, of batch 1; what has three and more dimensions enters and leaves
    it channels last: (1, C, H, W) becomes (1, H, W, C). A free batch becomes 1.

    QuantizeLinear and DequantizeLinear make it int8 between them. Raises DamagedModel for bytes that are no ONNX model
    and UnsupportedModel naming everything that the engine lacks.
    """
    proto = read_onnx(model) if isinstance(model, bytes) else model
    with np.errstate(all="ignore"):  # damaged numbers become what is not finite, and that is refused
        network = to_integers(tidy(sound(_OnnxImporter(proto, name).run())))
        return sound(tidy(network))


def read_onnx(data: bytes) -> onnx.ModelProto:
    """The model in `data`. Raises DamagedModel for what onnx cannot parse or finds wrong."""
    try:
        proto = onnx.load_from_string(data)
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker each have their own
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DamagedModel(f"these {len(data):,} bytes are no sound ONNX model: {reason}. Export it anew.") from None
    return proto


class _OnnxImporter(Importer):
    """Walks the nodes of one model."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        super().__init__(NetworkBuilder())
        self._proto = model.graph
        self._name = name
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self._problems: list[str] = []
        self._unknown: set[str] = set()
        self.used.update(n for node in self._proto.node for n in node.input)
        self.used.update(o.name for o in self._proto.output)

    def run(self) -> Network:
        if self._opset < LEAST_OPSET:
            advice = f"convert it with onnx.version_converter to {LEAST_OPSET} or more (17 to 20 are tested)"
            raise UnsupportedModel([f"it has opset {self._opset}; {advice}"])
        for initializer in self._proto.initializer:
            self.values[initializer.name] = Stored(self._array(initializer), initializer.name)
        if self._proto.sparse_initializer:
            self._problems.append("it has sparse initializers; store the weights dense, with zeros")
        inputs = [self._input(i) for i in self._proto.input if i.name not in self.values]
        for node in self._proto.node:
            self._visit(node)
        outputs = [self._output(o.name) for o in self._proto.output]
        if self._problems:
            raise UnsupportedModel(list(dict.fromkeys(self._problems)))
        return self.b.network(inputs, outputs, self._name)

    def _array(self, initializer: onnx.TensorProto) -> Any:
        if np.prod([int(d) for d in initializer.dims], dtype=np.float64) > MAX_ELEMENTS:
            self._problems.append(f"{initializer.name} has the shape {list(initializer.dims)}; that is too large")
            return np.zeros(0, np.float32)
        try:
            return onnx.numpy_helper.to_array(initializer)
        except Exception as error:  # lengths that do not fit, types that numpy lacks, files beside the model
            raise DamagedModel(
                f"{initializer.name} of this ONNX model cannot be read: {error}. Export it anew."
            ) from None

    def _input(self, value: onnx.ValueInfoProto) -> int:
        tensor_type = value.type.tensor_type
        dims = [d.dim_value for d in tensor_type.shape.dim]
        free = [n for n, d in enumerate(dims) if d < 1]
        dtype = _TYPES.get(tensor_type.elem_type)
        if dtype is None:
            self._problems.append(f"input {value.name} is neither float32 nor int8; convert it")
        if free not in ([], [0]) or len(dims) > MAX_RANK or np.prod(dims, dtype=np.float64) > MAX_ELEMENTS:
            self._problems.append(
                f"input {value.name} has the shape {dims} (0 = free); at most {MAX_RANK} dimensions, and only the "
                "batch may be free"
            )
            dims = [1] * min(len(dims), MAX_RANK)
        shape = tuple(max(d, 1) for d in dims)
        order = channels_last(len(shape))
        source = self.b.activation(value.name, [shape[i] for i in order], dtype or np.float32)
        if tensor_type.elem_type == onnx.TensorProto.UINT8:
            self.unsigned.add(source)
        self.values[value.name] = source
        if len(shape) > 2:
            self.values[value.name] = self.transpose(source, channels_first(len(shape)), f"{value.name}/first")
        return source

    def _output(self, name: str) -> int:
        if name in self._unknown or name not in self.values:
            if not self._problems:
                self._problems.append(f"output {name} is computed by no node")
            return 0
        value = self.values[name]
        if not isinstance(value, int):
            self._problems.append(f"output {name} is a constant; leave it out")
            return 0
        rank = len(self.b.tensors[value].shape)
        return self.transpose(value, channels_last(rank), name) if rank > 2 else value

    def _visit(self, node: onnx.NodeProto) -> None:
        what = f"{node.op_type} '{node.name or (node.output[0] if node.output else '')}'"
        inputs = [self.values.get(name) if name else None for name in node.input]
        try:
            if node.domain not in ("", "ai.onnx"):
                raise Refused(f"belongs to the domain {node.domain}, which the engine does not know")
            if any(name in self._unknown for name in node.input) and node.op_type in HANDLERS:
                self._unknown.update(node.output)
                return
            given = [v for n, v in zip(node.input, inputs, strict=True) if n]
            if all(isinstance(v, Stored) for v in given) and node.op_type != "DequantizeLinear":
                self._fold(node, inputs)
                return
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                raise Refused("is no operator of the engine" + (_HINTS.get(node.op_type) or hint(node.op_type)))
            if any(v is None for v in given):
                raise Refused("reads a value that no node computes")
            if any(name in self.used for name in node.output[1:]):
                raise Refused("has a second output in use")
            self.values[node.output[0]] = handler(self, node, inputs)
        except Refused as refused:
            self._problems.append(f"{what} {refused}")
            self._unknown.update(node.output)
        except (IndexError, ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
            # A node whose inputs or attributes contradict its operator: the checker does not look that deep.
            self._problems.append(f"{what} does not fit its inputs ({error or type(error).__name__}); export it anew")
            self._unknown.update(node.output)

    def _fold(self, node: onnx.NodeProto, inputs: list[Any]) -> None:
        if node.op_type.startswith("Random"):
            raise Refused("draws random numbers")
        if _grown(node.op_type, [v.array for v in inputs if isinstance(v, Stored)]) > MAX_ELEMENTS:
            raise Refused("makes a constant that is too large")
        results = fold(node, inputs, self._opset)
        for name, result in zip(node.output, results, strict=False):
            if result.array.size > MAX_ELEMENTS:
                raise Refused("makes a constant that is too large")
            self.values[name] = Stored(result.array, result.name or name)


def _grown(kind: str, arrays: list[Any]) -> float:
    """Elements that an operator makes of constants where a few numbers say how many; 0 where the arrays do."""
    last = arrays[-1].astype(np.float64).reshape(-1) if arrays and arrays[-1].dtype.kind in "iuf" else np.zeros(0)
    if kind in ("ConstantOfShape", "Expand"):
        return float(np.prod(last))
    if kind == "Tile":
        return float(arrays[0].size * np.prod(last))
    if kind == "Range" and len(arrays) == 3:
        start, limit, step = (float(array.reshape(-1)[0]) if array.size else 0.0 for array in arrays)
        return abs(limit - start) / abs(step) if step else float("inf")
    return 0.0
