"""What a graph must satisfy before a node can run it."""

from __future__ import annotations

from collections import Counter

from fedtiny_export.graph import Graph, Op, OpKind
from fedtiny_export.shapes import output_shape

U8_MAX = 0xFF
U16_MAX = 0xFFFF
CONV_REACH_MAX = U16_MAX  # positions in one group's padded input and counts of a row's weights are u16
MAX_OPS = 1024  # keeps the node's checks, which compare operators pairwise, short
MAX_ELEMENTS = 1 << 24
"""Elements of one parameter or activation: keeps every byte count of a node below 2^32."""
MAX_PARAMETER_ELEMENTS = 1 << 26
"""Elements of all parameters: far above any microcontroller; bounds what a damaged blob can allocate."""


def describe_op(graph: Graph, op: Op) -> str:
    """An operator as a message names it: by its first parameter, else by its output tensor."""
    name = graph.params[op.params[0]].name if op.params else graph.tensors[op.output].name
    return f"{op.kind.name.lower()} {name}"


def check_structure(graph: Graph) -> list[str]:
    """Problems of a graph that breaks a rule of firmware/BLOB.md: order, indices, roles, shapes. Empty when sound."""
    problems: list[str] = []
    tensors, params = len(graph.tensors), len(graph.params)
    if not (0 <= graph.input < tensors and 0 <= graph.output < tensors):
        return ["the input or output tensor does not exist"]
    names = Counter(p.name for p in graph.params)
    problems += [f"{count} parameters are called {name}" for name, count in names.items() if count > 1]
    written = {graph.input}
    owned: set[int] = set()
    for number, op in enumerate(graph.ops):
        if not all(0 <= i < tensors for i in (*op.inputs, op.output)) or not all(0 <= i < params for i in op.params):
            problems.append(f"operator {number} uses a tensor or parameter that does not exist")
            continue
        what = describe_op(graph, op)
        if not set(op.inputs) <= written:
            problems.append(f"{what} reads a tensor before it is written")
        if op.output in written:
            problems.append(f"{what} writes a tensor that is already written")
        shared = owned.intersection(op.params) or (len(set(op.params)) != len(op.params))
        if shared:
            problems.append(f"{what} shares a parameter with another operator; give each its own")
        written.add(op.output)
        owned.update(op.params)
        try:
            shape = output_shape(op, [graph.tensors[i].shape for i in op.inputs], [graph.params[i] for i in op.params])
        except ValueError as error:
            problems.append(f"{what} {error}")
            continue
        if shape != graph.tensors[op.output].shape:
            problems.append(f"{what} gives the shape {shape}, its tensor has {graph.tensors[op.output].shape}")
    problems += [f"tensor {t.name} is never written" for i, t in enumerate(graph.tensors) if i not in written]
    problems += [f"parameter {p.name} belongs to no operator" for i, p in enumerate(graph.params) if i not in owned]
    read = {i for op in graph.ops for i in op.inputs}
    problems += [
        f"tensor {t.name} feeds nothing; remove what computes it"
        for i, t in enumerate(graph.tensors)
        if i not in read and i != graph.output
    ]
    if graph.output in read:
        problems.append(f"the output {graph.tensors[graph.output].name} is read by an operator; it must be the end")
    if graph.output == graph.input:
        problems.append("the output is the input")
    if graph.tensors[graph.output].shape[1:] != (1, 1):
        problems.append(
            f"the output has the shape {graph.tensors[graph.output].shape}; flatten it to a vector of classes"
        )
    return problems


def check_node_limits(graph: Graph) -> list[str]:
    """Problems of a sound graph that the node's number widths cannot hold. Empty when it fits."""
    problems: list[str] = []
    for what, count in (("tensors", graph.tensors), ("operators", graph.ops), ("parameters", graph.params)):
        if len(count) >= U16_MAX:
            problems.append(f"{len(count)} {what}; a blob holds {U16_MAX - 1}")
    if len(graph.ops) > MAX_OPS:
        problems.append(f"{len(graph.ops)} operators; a node runs at most {MAX_OPS}")
    for tensor in graph.tensors:
        if not all(1 <= d <= U16_MAX for d in tensor.shape):
            problems.append(
                f"tensor {tensor.name} of the shape {tensor.shape}: a dimension lies outside 1 to {U16_MAX}"
            )
    for param in graph.params:
        if not all(1 <= d <= U16_MAX for d in param.shape):
            problems.append(
                f"parameter {param.name} of the shape {param.shape}: a dimension lies outside 1 to {U16_MAX}"
            )
        if len(param.name.encode()) > U8_MAX:
            problems.append(f"parameter {param.name[:40]}…: its name is longer than {U8_MAX} bytes")
    for what, size in [(p.name, p.size) for p in graph.params] + [(t.name, t.size) for t in graph.tensors]:
        if size > MAX_ELEMENTS:
            problems.append(f"{what} has {size} elements; at most {MAX_ELEMENTS} are allowed")
    elements = sum(p.size for p in graph.params)
    if elements > MAX_PARAMETER_ELEMENTS:
        problems.append(f"{elements} parameter elements in all; at most {MAX_PARAMETER_ELEMENTS} are allowed")
    for op in graph.ops:
        what = describe_op(graph, op)
        if max(*op.stride, *op.padding) > U8_MAX:
            problems.append(f"{what} has stride {op.stride} and padding {op.padding}; each is at most {U8_MAX}")
        if max(*op.kernel, op.groups) > U16_MAX:
            problems.append(f"{what} has kernel {op.kernel} and {op.groups} groups; each is at most {U16_MAX}")
        if op.kind is OpKind.CONV2D and (reach := conv_reach(graph, op)) > CONV_REACH_MAX:
            problems.append(
                f"{what} reads {reach} padded input elements per group; the node addresses {CONV_REACH_MAX}: "
                "use fewer channels, a smaller map or more groups"
            )
    return problems


def conv_reach(graph: Graph, op: Op) -> int:
    """Elements of one group's padded input as the node lays it out: one plane per phase of the stride."""
    channels = graph.params[op.params[0]].shape[1]
    _, h, w = graph.tensors[op.output].shape
    (kh, kw), (sh, sw) = op.kernel, op.stride
    return channels * min(sh, kh) * min(sw, kw) * (h + (kh - 1) // sh) * (w + (kw - 1) // sw)
