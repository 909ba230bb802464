"""TFLite Micro, where it is installed (pip install tflite-micro): the same integers, one rounding apart."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.infer import fixed, simulate
from fedtiny_export.infer.engine import run
from fedtiny_export.infer.network import Kind
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.tflite_in import from_tflite

from .mlperf import INT8, model_bytes, random_samples

runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="tflite-micro is not installed")
SAMPLES = 20


def tflite_micro_outputs(model: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = runtime.Interpreter.from_bytes(model)
    found = []
    for sample in x:
        interpreter.set_input(sample, 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0).copy())
    return np.stack(found)


@pytest.mark.parametrize("name", INT8)
def test_with_fully_connected_layers_rounded_twice_the_bits_are_tflite_micros(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_bytes(name)
    network = from_tflite(model)
    (x,) = random_samples(network, SAMPLES)
    theirs = tflite_micro_outputs(model, x)
    ours = run(pack(network), [x])[network.outputs[0]].reshape(theirs.shape)
    fully = sum(op.kind is Kind.FULLY_CONNECTED for op in network.operators)
    print(
        f"{name}: {np.mean(ours != theirs):.2%} of values differ, {fully} fully connected of {len(network.operators)}"
    )
    monkeypatch.setattr(fixed, "scaled_once", fixed.scaled)
    twice = simulate.run(network, [x])[network.outputs[0]].reshape(theirs.shape)
    assert np.array_equal(twice, theirs)
