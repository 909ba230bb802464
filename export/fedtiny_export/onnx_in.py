"""ONNX -> graph. Everything that the node lacks is collected and named at once."""

from __future__ import annotations

from collections import Counter

import onnx

from fedtiny_export.errors import UnsupportedModel
from fedtiny_export.graph import STANDARDISE
from fedtiny_export.limits import check_node_limits, check_structure
from fedtiny_export.model import Model
from fedtiny_export.onnx_builder import GraphBuilder
from fedtiny_export.onnx_nodes import HANDLERS, HINTS, standardised_weight
from fedtiny_export.onnx_values import Activation, Constant, Refused, Unknown, Value, fold


def from_onnx(model: onnx.ModelProto) -> Model:
    """Graph and parameters of an ONNX model of one input (N, C, H, W), (N, C, W) or (N, F), one output (N, classes).

    Parameters keep the names of their initializers. A one-dimensional map becomes one of height 1. Raises
    UnsupportedModel naming every operator and attribute that a node lacks.
    """
    importer = _Importer(model)
    imported = importer.run()
    problems = check_structure(imported.graph) or check_node_limits(imported.graph)
    if problems:
        raise UnsupportedModel(problems)
    return imported


class _Importer:
    """Walks the nodes of one model. A value name stands for an activation, a constant, or part of a pattern."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._proto = model.graph
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 17)
        self._shapes = _inferred_shapes(model)
        self._uses = Counter(name for node in self._proto.node for name in node.input)
        self._uses.update(o.name for o in self._proto.output)
        self._values: dict[str, Value] = {}
        self._builder = GraphBuilder()
        self._problems: list[str] = []

    def run(self) -> Model:
        for initializer in self._proto.initializer:
            self._values[initializer.name] = Constant(onnx.numpy_helper.to_array(initializer), initializer.name)
        source = self._input()
        for node in self._proto.node:
            self._visit(node)
        target = source
        try:
            target = self._builder.activation(self._values.get(self._proto.output[0].name))
        except Refused as refused:
            if not self._problems:
                self._problems.append(f"output {self._proto.output[0].name} {refused}")
        if self._problems:
            raise UnsupportedModel(self._problems)
        return self._builder.model(source, target)

    def _input(self) -> Activation:
        """The one input. Raises UnsupportedModel at once where there is none to go on from."""
        inputs = [i for i in self._proto.input if i.name not in self._values]
        if self._proto.sparse_initializer:
            self._problems.append("it has sparse initializers; store the weights dense, with zeros")
        if len(inputs) != 1 or len(self._proto.output) != 1:
            counts = f"{len(inputs)} inputs and {len(self._proto.output)} outputs"
            raise UnsupportedModel([*self._problems, f"it has {counts}; a node takes one input and gives one output"])
        tensor_type = inputs[0].type.tensor_type
        dims = [d.dim_value for d in tensor_type.shape.dim]
        if tensor_type.elem_type != onnx.TensorProto.FLOAT:
            self._problems.append(f"input {inputs[0].name} is not float32")
        if len(dims) not in (2, 3, 4) or min(dims[1:]) < 1:
            complaint = f"input {inputs[0].name} has the shape {dims} (0 = free); only the batch may be free: "
            raise UnsupportedModel([*self._problems, complaint + "(N, C, H, W), (N, C, W) or (N, F)"])
        source = self._builder.placeholder(inputs[0].name, dims)
        self._builder.batch = dims[0]
        self._values[inputs[0].name] = source
        return source

    def _visit(self, node: onnx.NodeProto) -> None:
        inputs = [self._values.get(name, Unknown()) if name else None for name in node.input]
        given = [v for v in inputs if v is not None]
        try:
            if (node.domain, node.op_type) == STANDARDISE:
                self._values[node.output[0]] = standardised_weight(node, inputs)
                return
            if node.domain not in ("", "ai.onnx"):
                raise Refused(f"belongs to the domain {node.domain}, which the node does not know")
            if all(isinstance(v, Constant) for v in given) and not node.op_type.startswith("Random"):
                constants = [v if isinstance(v, Constant) else None for v in inputs]
                self._values.update(zip(node.output, fold(node, constants, self._opset), strict=True))
                return
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                hint = HINTS.get(node.op_type)
                raise Refused("is no operator of the node" + (f"; {hint}" if hint else ""))
            if any(isinstance(v, Unknown) for v in given):
                self._values[node.output[0]] = Unknown()
                return
            if any(self._uses[name] for name in node.output[1:]):
                raise Refused("has a second output in use")
            self._values[node.output[0]] = handler(self._builder, node, inputs)
        except Refused as refused:
            self._problems.append(f"{node.op_type} '{node.name or node.output[0]}' {refused}")
            self._recover(node)

    def _recover(self, node: onnx.NodeProto) -> None:
        """Goes on behind a refused node with the shape that ONNX infers, to find further problems."""
        for name in node.output:
            dims = self._shapes.get(name, [])
            known = len(dims) in (2, 3, 4) and min(dims[1:]) > 0
            self._values[name] = self._builder.placeholder(name, dims) if known else Unknown()


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """ONNX shapes by value name where inference finds them; 0 for a dimension that varies."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # only used to go on behind an unsupported operator
        graph = model.graph
    infos = [*graph.input, *graph.value_info, *graph.output]
    return {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in infos if i.type.HasField("tensor_type")
    }
