"""The engine in C on this computer: int8 with the bits of LiteRT's reference kernels, float32 within rounding."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.errors import BlobError, CoreError, UnsupportedModel
from fedtiny_export.infer import simulate
from fedtiny_export.infer.building import NetworkBuilder, quantization
from fedtiny_export.infer.engine import run
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.program import Code
from fedtiny_export.infer.sparse import Options
from fedtiny_export.infer.tflite_in import from_tflite

from .litert import litert_outputs
from .mlperf import INT8, model_bytes, random_samples
from .operators import one_operator, samples
from .pruned import pruned, wide_convolution

KERNELS = [(kind, dtype) for dtype in ("int8", "float32") for kind in Kind]
KERNELS.remove((Kind.DEQUANTIZE, "float32"))
ROUNDING = 2e-6
"""float32: another order of additions, relative to the largest result."""


def same(found: Array, wanted: Array) -> bool:
    if found.dtype == np.int8:
        return np.array_equal(found, wanted)
    return bool(np.abs(found - wanted).max() <= ROUNDING * (1 + np.abs(wanted).max()))


def engine(network: Network, x: list[Array], hold: str = "by_cost") -> Array:
    return run(pack(network, Options(hold=hold)), x)[network.outputs[0]]


@pytest.mark.parametrize(("kind", "dtype"), KERNELS, ids=lambda v: v.name if isinstance(v, Kind) else v)
def test_a_kernel_gives_what_litert_gives(kind: Kind, dtype: str) -> None:
    for seed in range(100):
        random = np.random.default_rng([seed, int(kind)])
        network = one_operator(kind, dtype, random)
        x = samples(network, 2, random)
        wanted = litert_outputs(network, x)
        for hold in (
            ("dense", "sparse") if dtype == "int8" and kind in (Kind.CONV2D, Kind.FULLY_CONNECTED) else ("dense",)
        ):
            assert same(engine(network, x, hold).reshape(wanted.shape), wanted), f"network {seed}, held {hold}"


def test_pruned_convolutions_of_any_shape_give_the_bits_of_the_simulation() -> None:
    held = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        network = wide_convolution(random, float(random.choice([0.02, 0.1, 0.5, 1.0])))
        x = samples(network, 1, random)
        program = pack(network, Options(hold="sparse", band_bytes=int(random.choice([500, 3000, 14000]))))
        held.append(program.steps[0].code)
        assert np.array_equal(run(program, x)[network.outputs[0]], simulate.run(network, x)[network.outputs[0]]), seed
        assert np.array_equal(engine(network, x, "dense"), simulate.run(network, x)[network.outputs[0]]), seed
    assert held.count(Code.SPARSE_CONV_S8) > 140


@pytest.mark.parametrize("name", INT8)
def test_every_activation_of_mlperf_tinys_int8_models_has_the_bits_of_the_simulation(name: str) -> None:
    network = from_tflite(model_bytes(name))
    x = random_samples(network, 4)
    for hold in ("dense", "sparse"):
        program = pack(network, Options(hold=hold))
        found = run(program, x, every=True)
        wanted = simulate.run(program.network, x, keep=found)
        assert [program.network.tensors[t].name for t in found if not np.array_equal(found[t], wanted[t])] == []
        assert len(found) > len(network.operators)


def test_a_tenth_of_the_weights_takes_a_quarter_of_the_flash() -> None:
    network = from_tflite(model_bytes("pretrainedResnet_quant"))
    thin = pruned(network, 0.1)
    x = random_samples(thin, 4)
    program = pack(thin)
    assert np.array_equal(run(program, x)[thin.outputs[0]], simulate.run(thin, x)[thin.outputs[0]])
    assert len(program.blob) < len(pack(network).blob) / 4
    assert [step.code for step in program.steps].count(Code.SPARSE_CONV_S8) >= 8


@pytest.mark.parametrize("kind", [Kind.FULLY_CONNECTED, Kind.CONV2D])
def test_channels_without_a_weight_give_the_constant_of_the_simulation(kind: Kind) -> None:
    """Four thousand biases of any size: roundings of a constant differ where a sum's would."""
    random = np.random.default_rng(0)
    channels, scale = 4000, np.float32(0.01)
    b = NetworkBuilder()
    shape: tuple[int, ...] = (1, 3) if kind is Kind.FULLY_CONNECTED else (1, 1, 1, 3)
    x = b.activation("x", shape, np.dtype(np.int8), quantization(scale, 3))
    zeros = np.zeros((channels, *shape[1:]), np.int8)
    w = b.constant("w", zeros, quantization(scale, 0))
    bias = random.integers(-150_000, 150_000, channels).astype(np.int32)
    bias[::7] = random.choice([-(1 << 31), (1 << 31) - 1, 1 << 30], len(bias[::7]))
    biases = b.constant("bias", bias, quantization(scale * scale, 0))
    y = b.activation("y", (*shape[:-1], channels), np.dtype(np.int8), quantization(0.117, -5))
    b.emit(kind, [x, w, biases], y)
    network = b.network([x], [y])
    samples_ = [np.zeros((1, *shape), np.int8)]
    near = np.abs(bias.astype(np.int64)) < 1 << 30  # beyond it LiteRT's own sums may wrap
    wanted = simulate.run(network, samples_)[y].reshape(-1)
    assert np.array_equal(engine(network, samples_).reshape(-1)[near], wanted[near])


def test_a_layer_is_held_pruned_where_that_is_less_work() -> None:
    """Over 40 shapes: small ones gain even with all of their weights."""

    def pruned_layers(density: float) -> int:
        codes = [pack(wide_convolution(np.random.default_rng(seed), density)).steps[0].code for seed in range(40)]
        return codes.count(Code.SPARSE_CONV_S8)

    assert pruned_layers(1.0) < 25 < 35 < pruned_layers(0.2) <= pruned_layers(0.05)


def test_what_the_engine_lacks_is_named_all_at_once() -> None:
    b = NetworkBuilder()
    q = quantization(0.1, 0)
    x = b.activation("x", (1, 1, 1, 2), np.dtype(np.int8), q)
    w = b.constant("w", np.ones((5000, 1, 1, 2), np.int8), quantization(0.1, 0))
    huge = b.constant("bias", np.full(5000, 1 << 30, np.int32), quantization(0.01, 0))
    first = b.activation("first", (1, 1, 1, 5000), np.dtype(np.int8), q)
    second = b.activation("second", (1, 1, 1, 5000), np.dtype(np.int8), quantization(1 / 256, -128))
    b.emit(Kind.CONV2D, [x, w, huge], first, kernel=(1, 1))
    b.emit(Kind.SOFTMAX, [first], second)
    with pytest.raises(UnsupportedModel, match=r"'first'.*sums of 2\^30.*\n.*'second'.*at most 4,095") as refused:
        pack(b.network([x], [second]))
    assert len(refused.value.problems) == 2


def test_a_damaged_program_and_a_wrong_input_are_refused_in_one_line() -> None:
    random = np.random.default_rng(0)
    network = one_operator(Kind.ADD, "int8", random)
    x, program = samples(network, 2, random), pack(network)
    for at in range(0, len(program.blob), 3):
        damaged = bytearray(program.blob)
        damaged[at] ^= 1
        object.__setattr__(program, "blob", bytes(damaged))
        with pytest.raises(BlobError, match="refused the program"):
            run(program, x)
        damaged[at] ^= 1
        object.__setattr__(program, "blob", bytes(damaged))
    with pytest.raises(CoreError, match="takes int8 of shape"):
        run(program, [x[0].astype(np.float32), x[1]])
    with pytest.raises(CoreError, match="2 inputs, not 1"):
        run(program, x[:1])


def test_resnet8_and_ds_cnn_fit_the_ram_that_is_promised() -> None:
    network = from_tflite(model_bytes("pretrainedResnet_quant"))
    assert pack(network).arena_bytes <= 36 * 1024  # three maps of 16 KB meet at a shortcut; two are held
    assert pack(from_tflite(model_bytes("kws_ref_model"))).arena_bytes <= 10_000  # one map takes 8,000
