"""The same model in two runtimes: how far ONNX Runtime and torch are apart."""

from __future__ import annotations

import numpy as np
import onnx

from fedtiny_export.graph import F32
from fedtiny_export.model import Model


def onnxruntime_logits(proto: onnx.ModelProto, x: F32) -> F32:
    """x (n, C, H, W), or any shape of as many elements -> logits (n, classes) of ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    sample = [d for d in source.shape[1:] if isinstance(d, int)]
    logits = session.run(None, {source.name: x.reshape(len(x), *sample)})[0]
    return np.asarray(logits, np.float32)


def torch_logits(model: Model, x: F32) -> F32:
    """x (n, C, H, W) -> logits (n, classes) of the reference execution with the stored statistics."""
    import torch

    from fedtiny_export.reference import GraphModule

    with torch.no_grad():
        logits = GraphModule(model.graph, model.arrays).eval()(torch.from_numpy(x))
    return np.asarray(logits.numpy(), np.float32)


def parity(model: Model, x: F32) -> dict[str, float]:
    """`onnxruntime_max_abs`: largest difference of any logit between ONNX Runtime and torch over x (n, C, H, W)."""
    from fedtiny_export.onnx_out import to_onnx

    difference = np.abs(onnxruntime_logits(to_onnx(model), x) - torch_logits(model, x))
    return {"onnxruntime_max_abs": float(difference.max(initial=0.0))}
