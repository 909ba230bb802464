"""ONNX models in: what torch and ONNX Runtime write, QDQ, what is refused, and files that are damaged."""

from __future__ import annotations

import io
import random as plain
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from fedtiny_export import UnsupportedModel
from fedtiny_export.errors import DamagedModel
from fedtiny_export.infer import simulate
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.onnx_in import from_onnx
from fedtiny_export.infer.quantize import as_float, quantize, quantized_samples
from fedtiny_export.infer.runtimes import in_engine
from fedtiny_export.infer.tflite_out import to_tflite
from fedtiny_export.infer.torch_in import from_torch
from tests.infer.litert import litert_outputs
from tests.infer.modules import ZOO, Branches, make_module
from tests.infer.onnx_models import channels_last, model, one_node, onnxruntime_outputs

DAMAGED = 300


def _exported(module: torch.nn.Module, x: torch.Tensor, opset: int = 17) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"input": {0: "N"}, "logits": {0: "N"}}
        torch.onnx.export(
            module, (x,), file, dynamo=False, opset_version=opset, input_names=["input"], output_names=["logits"],
            dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue()


def _rms(array: Array) -> float:
    return float(np.sqrt((array**2).mean()))


def _samples(network: Network, x: torch.Tensor) -> list[Array]:
    return [channels_last(x.numpy()).reshape(len(x), *network.tensors[network.inputs[0]].shape)]


@pytest.mark.parametrize("name", list(ZOO))
def test_what_torch_exports_computes_what_torch_computes(name: str) -> None:
    module, shape = make_module(name)
    x = torch.randn((4, *shape), generator=torch.Generator().manual_seed(1))
    network = from_onnx(_exported(module, x, opset=17 if name != "residual" else 20))
    with torch.no_grad():
        logits = module(x).numpy()
    ours = simulate.run(network, _samples(network, x))[network.outputs[0]][:, 0]
    np.testing.assert_allclose(ours, logits, atol=1e-5 * max(1, np.abs(logits).max()), rtol=1e-4)
    assert not {op.kind for op in network.operators} & {Kind.TRANSPOSE, Kind.RELU, Kind.RELU6}
    theirs = litert_outputs(network, _samples(network, x))[:, 0]
    np.testing.assert_allclose(theirs, logits, atol=1e-5 * max(1, np.abs(logits).max()), rtol=1e-4)


def test_the_newer_exporter_of_torch_gives_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    module, shape = make_module("residual")
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, (x[:1],), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    network = from_onnx(program.model_proto)
    with torch.no_grad():
        logits = module(x).numpy()
    ours = simulate.run(network, _samples(network, x))[network.outputs[0]].reshape(2, -1)
    np.testing.assert_allclose(ours, logits, atol=1e-5 * max(1, np.abs(logits).max()), rtol=1e-4)


def test_a_module_that_is_not_trained_here_becomes_a_network() -> None:
    module = Branches().eval()
    network = from_torch(module, (3, 9, 8))
    assert Kind.CONCAT in {op.kind for op in network.operators}
    assert Kind.TRANSPOSE not in {op.kind for op in network.operators}
    x = torch.randn((40, 3, 9, 8), generator=torch.Generator().manual_seed(1))
    small = quantize(network, _samples(network, x))
    q = quantized_samples(small, _samples(network, x))
    ours = simulate.run(small, q)[small.outputs[0]]
    np.testing.assert_array_equal(in_engine(small, q)[small.outputs[0]], ours)
    np.testing.assert_array_equal(litert_outputs(small, q), ours)
    with torch.no_grad():
        error = np.abs(as_float(small.tensors[small.outputs[0]], ours)[:, 0] - module(x).numpy()).max()
    assert error < 0.02  # of probabilities: five steps of 1/256


@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", ["residual", "depthwise", "flattened"])
def test_qdq_models_become_int8_and_stay_near_onnx_runtime(name: str, unsigned: bool, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    module, shape = make_module(name)
    x = torch.randn((16, *shape), generator=torch.Generator().manual_seed(1))

    class Reader(CalibrationDataReader):
        left = iter([{"input": row[None]} for row in x.numpy()])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.left, None)

    (tmp_path / "float.onnx").write_bytes(_exported(module, x))
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    data = (tmp_path / "qdq.onnx").read_bytes()
    network = from_onnx(data)
    computing = [op for op in network.operators if op.kind not in (Kind.QUANTIZE, Kind.DEQUANTIZE)]
    assert all(network.tensors[op.outputs[0]].dtype == np.int8 for op in computing)
    theirs = np.concatenate([onnxruntime_outputs(data, {"input": row[None]})[0] for row in x.numpy()])
    ours = simulate.run(network, _samples(network, x))[network.outputs[0]][:, 0]
    with torch.no_grad():
        logits = module(x).numpy()
    # The two round at different places, so neither is the other's oracle: both are held to the float model.
    assert _rms(ours - logits) < 1.25 * _rms(theirs - logits)
    np.testing.assert_array_equal(litert_outputs(network, _samples(network, x)), ours[:, None])


def test_what_is_behind_a_model_may_stay_float() -> None:
    scale, zero = np.float32(0.05), np.int8(3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    proto = model(nodes, {"x": (1, 7)}, ["y"], {"s": scale, "z": zero})
    x = np.random.default_rng(0).normal(size=(1, 7)).astype(np.float32)
    network = from_onnx(proto)
    ours = simulate.run(network, [x[None]])[network.outputs[0]][0]
    np.testing.assert_array_equal(ours, onnxruntime_outputs(proto, {"x": x})[0])


def test_three_unsupported_operators_are_all_named() -> None:
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"], name="second"),
        helper.make_node("LSTM", ["c", "w", "r"], ["y"], name="third", hidden_size=1),
    ]
    weights = {"w": np.zeros((1, 4, 2), np.float32), "r": np.zeros((1, 4, 1), np.float32)}
    with pytest.raises(UnsupportedModel) as caught:
        from_onnx(model(nodes, {"x": (1, 1, 2)}, ["y"], weights))
    assert list(caught.value.problems) == [
        "Tanh 'first' is no operator of the engine; use ReLU or ReLU6",
        "Sigmoid 'second' is no operator of the engine; use ReLU or ReLU6",
        "LSTM 'third' is no operator of the engine; use convolutions over time",
    ]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Clip", ["x", "low", "high"], ["y"], name="n"), "clips to -1 … 1; the engine has ReLU"),
        (helper.make_node("Softmax", ["x"], ["y"], name="n", axis=9), None),
        (helper.make_node("MaxPool", ["x"], ["y"], name="n", kernel_shape=[2, 2], dilations=[2, 2]), "is dilated"),
        (helper.make_node("Mul", ["x", "x"], ["y"], name="n"), "multiplies or divides one activation by another"),
    ],
    ids=["clip", "softmax", "pool", "mul"],
)  # fmt: skip
def test_what_an_operator_cannot_do_is_said(node: onnx.NodeProto, message: str | None) -> None:
    constants = {"low": np.float32(-1), "high": np.float32(1)} if node.op_type == "Clip" else {}
    try:
        proto = one_node(node, (1, 2, 6, 6), constants)
    except Exception:
        pytest.skip("onnx itself refuses the node")
    if message is None:
        from_onnx(proto)  # an axis that wraps is no reason to fall over
        return
    with pytest.raises(UnsupportedModel, match=message):
        from_onnx(proto)


def test_old_models_are_told_how_to_become_newer() -> None:
    proto = one_node(helper.make_node("Relu", ["x"], ["y"]), (1, 3), {}, opset=11)
    with pytest.raises(UnsupportedModel, match=r"it has opset 11; convert it with onnx\.version_converter"):
        from_onnx(proto)


def test_a_damaged_model_ends_in_one_clear_error() -> None:
    module, shape = make_module("residual")
    data = _exported(module, torch.zeros((1, *shape)))
    random = plain.Random(0)
    refused = 0
    for n in range(DAMAGED):
        changed = bytearray(data[: random.randrange(len(data))] if n % 2 else data)
        for _ in range(0 if n % 2 else random.choice((1, 3, 9))):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        try:
            to_tflite(from_onnx(bytes(changed)))
        except (DamagedModel, UnsupportedModel):
            refused += 1
    assert refused > DAMAGED // 2
