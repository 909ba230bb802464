"""Graph -> ONNX, in inference form: batch norms stay batch norms, standardised weights are stored as they are applied,
pruned weights are zeros, names are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from fedtiny_export.graph import F32, Graph, Op, OpKind
from fedtiny_export.model import Model

_OPSET = 17
_OPSET_WITH_GROUPNORM = 21  # the first with a scale per channel
_IR = {_OPSET: 8, _OPSET_WITH_GROUPNORM: 10}


def to_onnx(model: Model) -> onnx.ModelProto:
    """A checked ONNX model: input (N, C, H, W), output (N, classes), N free; parameters named as in the graph."""
    graph = model.graph
    writer = _Writer(graph)
    for op in graph.ops:
        writer.write(op)
    opset = _OPSET_WITH_GROUPNORM if any(op.kind is OpKind.GROUPNORM for op in graph.ops) else _OPSET
    source, target = graph.tensors[graph.input], graph.tensors[graph.output]
    dims = {2: [source.shape[0]], 4: list(source.shape)}[writer.rank[graph.input]]
    proto = helper.make_model(
        helper.make_graph(
            writer.nodes,
            "fedtiny",
            [helper.make_tensor_value_info(source.name, TensorProto.FLOAT, ["N", *dims])],
            [helper.make_tensor_value_info(writer.finish(graph.output), TensorProto.FLOAT, ["N", target.shape[0]])],
            [numpy_helper.from_array(array, name) for name, array in _folded(model).items()],
        ),
        producer_name="fedtiny",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=_IR[opset],
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _folded(model: Model) -> dict[str, F32]:
    """Parameters as inference reads them: ONNX has no convolution that standardises its weight."""
    arrays = {p.name: model.arrays[p.name] for p in model.graph.params}
    for op in model.graph.ops:
        if op.kind is OpKind.CONV2D and op.eps:
            import torch

            from fedtiny_export.ws_conv import standardised

            name = model.graph.params[op.params[0]].name
            arrays[name] = standardised(torch.from_numpy(arrays[name]), op.eps).numpy()
    return arrays


class _Writer:
    """ONNX tells (N, C) from (N, C, 1, 1); a graph does not. `rank` holds which of the two each tensor is."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._views: dict[tuple[int, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        into_linear = any(op.kind is OpKind.LINEAR and graph.input in op.inputs for op in graph.ops)
        self.rank = {graph.input: 2 if into_linear else 4}

    def write(self, op: Op) -> None:
        name = self._graph.tensors[op.output].name
        params = [self._graph.params[i].name for i in op.params]
        rank = self.rank[op.inputs[0]]
        match op.kind:
            case OpKind.CONV2D:
                rank = 4
                self._node("Conv", op, rank, params, **_window(op), group=op.groups)
            case OpKind.LINEAR:
                rank = 2
                self._node("Gemm", op, rank, params, transB=1)
            case OpKind.BATCHNORM:
                self._node("BatchNormalization", op, rank, params, epsilon=op.eps)
            case OpKind.GROUPNORM:
                rank = 4
                self._node("GroupNormalization", op, rank, params, epsilon=op.eps, num_groups=op.groups)
            case OpKind.RELU:
                self._node("Relu", op, rank)
            case OpKind.RELU6:
                bounds = [f"{name}.min", f"{name}.max"]
                for bound, value in zip(bounds, (0.0, 6.0), strict=True):
                    tensor = helper.make_tensor(bound, TensorProto.FLOAT, [], [value])
                    self.nodes.append(helper.make_node("Constant", [], [bound], value=tensor))
                self._node("Clip", op, rank, bounds)
            case OpKind.MAXPOOL:
                rank = 4
                self._node("MaxPool", op, rank, (), **_window(op))
            case OpKind.AVGPOOL:
                rank = 4
                self._node("AveragePool", op, rank, (), **_window(op), count_include_pad=int(op.count_include_pad))
            case OpKind.ADD:
                self._node("Add", op, rank)
            case OpKind.FLATTEN:
                self._node("Flatten", op, rank, axis=1)
                rank = 2
        self.rank[op.output] = rank

    def finish(self, output: int) -> str:
        return self._seen(output, 2)

    def _node(self, kind: str, op: Op, rank: int, params: Sequence[str] = (), **attributes: Any) -> None:
        inputs = [self._seen(i, rank) for i in op.inputs] + [*params]
        output = self._graph.tensors[op.output].name
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))

    def _seen(self, tensor: int, rank: int) -> str:
        """The name of a tensor with `rank` dimensions; turns (N, C) and (N, C, 1, 1) into each other where needed."""
        name = self._graph.tensors[tensor].name
        if self.rank[tensor] == rank:
            return name
        if (tensor, rank) not in self._views:
            view = self._views[tensor, rank] = f"{name}.rank{rank}"
            if rank == 2:
                self.nodes.append(helper.make_node("Flatten", [name], [view], name=f"{view}/Flatten", axis=1))
            else:
                axes = helper.make_tensor(f"{view}.axes", TensorProto.INT64, [2], [2, 3])
                self.nodes.append(helper.make_node("Constant", [], [f"{view}.axes"], value=axes))
                self.nodes.append(
                    helper.make_node("Unsqueeze", [name, f"{view}.axes"], [view], name=f"{view}/Unsqueeze")
                )
        return self._views[tensor, rank]


def _window(op: Op) -> dict[str, list[int]]:
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": list(op.padding)}
