"""The same network in several runtimes, all activations at once, for comparison.

Each takes one array (n, *shape) per input, in the input's own type, and gives activations (n, *shape) by tensor: the
outputs', or with `every` all that the runtime can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtiny_export.errors import ExportError
from fedtiny_export.infer import fixed, simulate
from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.passes.layout import channels_first, channels_last

LITERT_MISSING = "ai-edge-litert is not installed: pip install 'fedtiny[tflite]'"


def in_numpy(network: Network, samples: Sequence[Array], *, every: bool = False) -> dict[int, Array]:
    """The simulation: the definition of the network."""
    return simulate.run(network, samples, range(len(network.tensors)) if every else None)


def in_engine(network: Network, samples: Sequence[Array], *, every: bool = False) -> dict[int, Array]:
    """The C engine on this computer."""
    from fedtiny_export.infer import engine
    from fedtiny_export.infer.pack import pack

    program = pack(network)
    return named(program.network, network, engine.run(program, samples, every=every))


def named(packed: Network, network: Network, found: dict[int, Array]) -> dict[int, Array]:
    """Activations of a packed network, whose tensors may have other numbers, by the tensors of the network itself."""
    number = {tensor.name: i for i, tensor in enumerate(network.tensors) if tensor.data is None}
    outputs = dict(zip(packed.outputs, network.outputs, strict=True))
    result = {}
    for i, values in found.items():
        at = outputs.get(i, number.get(packed.tensors[i].name))
        if at is not None and network.tensors[at].size == values[0].size:
            result[at] = values.reshape(len(values), *network.tensors[at].shape)
    return result


def in_litert(
    network: Network, samples: Sequence[Array], *, every: bool = False, file: bytes | None = None
) -> dict[int, Array]:
    """LiteRT's reference kernels on the `.tflite` file that the network becomes, or on the `file` that it came from;
    of that the outputs only.

    Raises ExportError where ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise ExportError(LITERT_MISSING) from None
    from fedtiny_export.infer.tflite_out import to_tflite

    file = None if every else file
    machine = Interpreter(
        model_content=file or to_tflite(network),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=every,
    )
    machine.allocate_tensors()
    feeds = [place["index"] for place in machine.get_input_details()]
    reads = dict(zip(network.outputs, (place["index"] for place in machine.get_output_details()), strict=True))
    if every:  # tensors keep their numbers in the file that we write
        reads = {i: i for op in network.operators for i in op.outputs}
    found: dict[int, list[Array]] = {i: [] for i in reads}
    for sample in zip(*samples, strict=True):
        for place, value in zip(feeds, sample, strict=True):
            machine.set_tensor(place, value)
        machine.invoke()
        for i, place in reads.items():
            found[i].append(machine.get_tensor(place).reshape(network.tensors[i].shape).copy())
    return {i: np.stack(values) for i, values in found.items()}


def in_onnxruntime(
    network: Network, samples: Sequence[Array], *, every: bool = False, file: bytes | None = None
) -> dict[int, Array]:
    """ONNX Runtime on the ONNX model that the network becomes, int8 by way of QDQ, or on the `file` that it came from;
    of that the outputs only."""
    import onnxruntime

    from fedtiny_export.infer.onnx_out import to_onnx, traced_onnx

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if every:
        # fused nodes would hide what lies between them
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        proto, names = traced_onnx(network)
        data = proto.SerializeToString()
    else:
        data = file or to_onnx(network).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds = [i.name for i in session.get_inputs()]
    if not every:
        names = {i: o.name for i, o in zip(network.outputs, session.get_outputs(), strict=True)}
    names = {i: name for i, name in names.items() if name not in feeds}
    if all(i.shape and not isinstance(i.shape[0], int) for i in session.get_inputs()):  # the batch is free
        given = {
            n: _moved(x.reshape(-1, *x.shape[2:]), channels_first(x.ndim - 1))
            for n, x in zip(feeds, samples, strict=True)
        }
        results = session.run(list(names.values()), given)
        return {i: _as_tensor(network, i, value, len(samples[0])) for i, value in zip(names, results, strict=True)}
    found: dict[int, list[Array]] = {i: [] for i in names}
    for sample in zip(*samples, strict=True):
        given = {name: _moved(value, channels_first(value.ndim)) for name, value in zip(feeds, sample, strict=True)}
        for i, value in zip(names, session.run(list(names.values()), given), strict=True):
            found[i].append(_as_tensor(network, i, value, 1)[0])
    return {i: np.stack(values) for i, values in found.items()}


def _as_tensor(network: Network, index: int, value: Any, count: int) -> Array:
    """What ONNX Runtime gives for `count` samples, channels last and in the tensor's own type: (count, *shape)."""
    tensor = network.tensors[index]
    last = _moved(np.asarray(value), channels_last(len(tensor.shape))).reshape(count, *tensor.shape)
    if tensor.dtype == np.int8 and last.dtype == np.float32 and tensor.quantization is not None:
        return fixed.quantized(last, tensor.quantization)
    return last


def _moved(value: Array, permutation: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(value.transpose(permutation))
