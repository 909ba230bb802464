"""LiteRT's reference kernels: the oracle of int8 inference, where ai-edge-litert is installed."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.tflite_out import to_tflite


def litert_outputs(model: bytes | Network, samples: list[Array]) -> Array:
    """The first output (n, *shape) of n samples; `samples` holds one array (n, *shape) per input."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install 'fedtiny[tflite]'")
    reference = interpreter.OpResolverType.BUILTIN_REF
    content = to_tflite(model) if isinstance(model, Network) else model
    machine = interpreter.Interpreter(model_content=content, experimental_op_resolver_type=reference)
    machine.allocate_tensors()
    inputs, (output, *_) = machine.get_input_details(), machine.get_output_details()
    results = []
    for sample in zip(*samples, strict=True):
        for place, value in zip(inputs, sample, strict=True):
            machine.set_tensor(place["index"], value)
        machine.invoke()
        results.append(machine.get_tensor(output["index"]).copy())
    return np.stack(results)
