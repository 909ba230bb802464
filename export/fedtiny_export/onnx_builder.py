"""The graph while it is built from ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtiny_export.graph import F32, Graph, Op, OpKind, Param, Role, Tensor
from fedtiny_export.model import Model
from fedtiny_export.onnx_values import Activation, Constant, Grouped, Padded, Product, Refused, Value
from fedtiny_export.shapes import Shape, output_shape


class GraphBuilder:
    """Tables of a graph that grow operator by operator. `batch`: the model's fixed batch size, 0 where it is free."""

    def __init__(self) -> None:
        self.batch = 0
        self.tensors: list[Tensor] = []
        self.params: list[Param] = []
        self.ops: list[Op] = []
        self.arrays: dict[str, F32] = {}

    def model(self, source: Activation, target: Activation) -> Model:
        graph = Graph(tuple(self.tensors), tuple(self.params), tuple(self.ops), source.index, target.index)
        return Model(graph, self.arrays)

    def activation(self, value: Value | None) -> Activation:
        """`value` as an operator's input; a matrix product whose bias did not come is emitted here."""
        if isinstance(value, Product):
            if value.emitted is None:
                params = [(Role.WEIGHT, value.weight, value.array)]
                value.emitted = self.emit(value.output, OpKind.LINEAR, [value.source], params)
            return value.emitted
        if isinstance(value, Activation):
            return value
        if isinstance(value, Padded):
            raise Refused(
                "reads a padded map; only a convolution or an average pool can; give the padding to this operator"
            )
        if isinstance(value, Grouped):
            raise Refused(
                "reads a map that was reshaped other than by flattening it, or a group norm without scale and shift"
            )
        raise Refused("works on a constant where it needs an activation")

    def shape(self, activation: Activation) -> Shape:
        return self.tensors[activation.index].shape

    def dims(self, activation: Activation) -> list[int]:
        """The ONNX shape of one sample."""
        c, h, w = self.shape(activation)
        return {2: [c], 3: [c, w], 4: [c, h, w]}[activation.rank]

    def emit(
        self,
        output: str,
        kind: OpKind,
        inputs: Sequence[Activation],
        params: Sequence[tuple[Role, Constant, F32]] = (),
        *,
        rank: int | None = None,
        **fields: Any,
    ) -> Activation:
        """Adds an operator, its parameters and its output. Raises Refused where inputs or parameters do not fit."""
        described = [Param(c.name or f"{output}.{role.name.lower()}", role, array.shape) for role, c, array in params]
        for param in described:
            if param.name in self.arrays:
                raise Refused(f"shares {param.name} with another operator; give each its own")
        op = Op(
            kind=kind,
            inputs=tuple(a.index for a in inputs),
            output=len(self.tensors),
            params=tuple(range(len(self.params), len(self.params) + len(described))),
            **fields,
        )
        try:
            shape = output_shape(op, [self.shape(a) for a in inputs], described)
        except ValueError as error:
            raise Refused(str(error)) from error
        self.tensors.append(Tensor(output, shape))
        self.ops.append(op)
        self.params += described
        for param, (_, _, array) in zip(described, params, strict=True):
            self.arrays[param.name] = np.array(array, np.float32, order="C")
        return Activation(op.output, rank or inputs[0].rank)

    def view(self, output: str, source: Activation, dims: list[int]) -> Activation | None:
        """`source` with another ONNX shape of one sample: nothing to do, or a flatten; None when the node cannot."""
        c, h, w = self.shape(source)
        if dims == [c * h * w]:
            return source if source.rank == 2 else self.emit(output, OpKind.FLATTEN, [source], rank=2)
        if dims == [c, h, w] or (h == 1 and dims == [c, w]):
            return Activation(source.index, len(dims) + 1)
        return None

    def placeholder(self, name: str, dims: Sequence[int]) -> Activation:
        """A tensor of the given ONNX shape that no operator writes."""
        sample = tuple(dims[1:])
        shape: Shape = (
            (sample[0], 1, 1) if len(sample) == 1 else (sample[0], sample[1] if len(sample) == 3 else 1, sample[-1])
        )
        self.tensors.append(Tensor(name, shape))
        return Activation(len(self.tensors) - 1, len(dims))

    def drop(self, output: str, source: Activation, axes: list[int]) -> Activation:
        """`source` without the given axes of size 1, counted with the batch as axis 0."""
        dims = self.dims(source)
        if not axes or min(axes) < 1 or any(dims[a - 1] != 1 for a in axes):
            raise Refused(f"removes the axes {axes or 'that happen to be 1'} of {dims}; name height or width of size 1")
        seen = self.view(output, source, [d for a, d in enumerate(dims, start=1) if a not in axes])
        if seen is None:
            raise Refused(f"removes the axes {axes} of {dims}; the node keeps (N, C, H, W), (N, C, W) or (N, C)")
        return seen
