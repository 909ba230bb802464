"""Networks out as ONNX: checked, run in ONNX Runtime, and read back."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.infer import simulate
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.onnx_in import from_onnx
from fedtiny_export.infer.onnx_out import to_onnx
from fedtiny_export.infer.tflite_in import from_tflite
from tests.infer.mlperf import FLOAT, INT8, model_bytes, random_samples
from tests.infer.onnx_models import channels_last, onnxruntime_outputs
from tests.infer.operators import one_operator, samples


def in_onnxruntime(network: Network, x: list[Array]) -> Array:
    """The first output (n, *shape) of n samples, through the ONNX model of a network."""
    data = to_onnx(network).SerializeToString()
    names = [network.tensors[i].name for i in network.inputs]
    results = []
    for sample in zip(*x, strict=True):
        feeds = {
            name: np.ascontiguousarray(np.moveaxis(value, -1, 1)) if value.ndim > 2 else value
            for name, value in zip(names, sample, strict=True)
        }
        results.append(channels_last(onnxruntime_outputs(data, feeds)[0]))
    return np.stack(results)


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.QUANTIZE], ids=lambda kind: kind.name)
def test_every_operator_computes_the_same_in_onnx_runtime(kind: Kind) -> None:
    random = np.random.default_rng(kind)
    for _ in range(20):
        network = one_operator(kind, np.float32, random)
        x = samples(network, 1, random)
        ours, theirs = simulate.run(network, x)[network.outputs[0]], in_onnxruntime(network, x)
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=2e-6 * max(1.0, float(np.abs(ours).max())))


@pytest.mark.parametrize("name", FLOAT)
def test_models_of_mlperf_tiny_go_to_onnx_and_back(name: str) -> None:
    network = from_tflite(model_bytes(name))
    x = random_samples(network, 3)
    ours = simulate.run(network, x)[network.outputs[0]]
    theirs = in_onnxruntime(network, x)
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * max(1.0, float(np.abs(ours).max())))
    again = from_onnx(to_onnx(network).SerializeToString())
    assert [op.kind for op in again.operators if op.kind is not Kind.RESHAPE] == [
        op.kind for op in network.operators if op.kind is not Kind.RESHAPE
    ]
    np.testing.assert_allclose(simulate.run(again, x)[again.outputs[0]], ours, atol=1e-5)


@pytest.mark.parametrize("name", INT8)
def test_int8_models_go_to_qdq_and_come_back_with_the_same_bits(name: str) -> None:
    network = from_tflite(model_bytes(name))
    x = random_samples(network, 6)
    ours = simulate.run(network, x)[network.outputs[0]]
    again = from_onnx(to_onnx(network).SerializeToString())
    assert not {op.kind for op in again.operators} & {Kind.QUANTIZE, Kind.DEQUANTIZE}
    np.testing.assert_array_equal(simulate.run(again, x)[again.outputs[0]], ours)
    theirs = in_onnxruntime(network, x)
    # ONNX Runtime sums in float and rounds halves to even: its classes agree, its last bits need not.
    assert (theirs.reshape(6, -1).argmax(axis=1) == ours.reshape(6, -1).argmax(axis=1)).mean() > 0.6


def test_an_input_of_any_number_of_samples_is_taken() -> None:
    network = from_tflite(model_bytes("pretrainedResnet"))
    x = random_samples(network, 5)[0][:, 0]
    data = to_onnx(network).SerializeToString()
    name = network.tensors[network.inputs[0]].name
    (together,) = onnxruntime_outputs(data, {name: np.ascontiguousarray(np.moveaxis(x, -1, 1))})
    np.testing.assert_allclose(together, simulate.run(network, [x[:, None]])[network.outputs[0]][:, 0], atol=1e-5)
