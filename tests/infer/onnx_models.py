"""ONNX and its oracle, ONNX Runtime, for tests of import."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedtiny_export.infer.network import Array, Network


def one_node(
    node: onnx.NodeProto, shape: Sequence[int], constants: dict[str, Array], opset: int = 17
) -> onnx.ModelProto:
    """A model of one node with the input `x` of float32 and the output `y`."""
    return model([node], {"x": shape}, ["y"], constants, opset)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: dict[str, Array],
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def channels_last(x: Array) -> Array:
    """(n, C, ...) -> (n, ..., C): how a network takes and gives what ONNX has channels first."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim > 2 else x


def onnxruntime_outputs(proto: onnx.ModelProto | bytes, inputs: dict[str, Array]) -> list[Array]:
    """All outputs for one set of inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def as_samples(network: Network, arrays: Sequence[Array]) -> list[Array]:
    """One sample, channels first, as the network's inputs take it."""
    return [channels_last(a).reshape(1, *network.tensors[i].shape) for i, a in zip(network.inputs, arrays, strict=True)]
