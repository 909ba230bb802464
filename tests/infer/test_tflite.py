"""TFLite files in and out: the models of MLPerf Tiny, what is refused, and files that are damaged."""

from __future__ import annotations

import random as plain
from collections.abc import Callable
from enum import IntEnum

import numpy as np
import pytest

from fedtiny.boards import load_board
from fedtiny.emulation import missing_packages
from fedtiny.infer_boards import run_on_board
from fedtiny_export.errors import DamagedModel, ExportError, UnsupportedModel
from fedtiny_export.infer import simulate, tflite_schema
from fedtiny_export.infer.building import NetworkBuilder
from fedtiny_export.infer.network import Kind, Network
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.runtimes import in_engine
from fedtiny_export.infer.tflite_in import from_tflite
from fedtiny_export.infer.tflite_out import to_tflite
from tests.infer.litert import litert_outputs
from tests.infer.mlperf import FLOAT, HYBRID, INT8, golden, model_bytes, random_samples
from tests.infer.operators import one_operator, samples

COUNT = 200  # samples of each int8 model
SOME = 20  # of these for what is slower
DAMAGED = 300  # of each kind


@pytest.mark.parametrize("name", INT8)
def test_int8_models_of_mlperf_tiny_have_the_bits_of_litert(name: str) -> None:
    network = from_tflite(model_bytes(name))
    x = random_samples(network, COUNT)
    theirs = litert_outputs(model_bytes(name), x)
    assert (in_engine(network, x)[network.outputs[0]] != theirs).sum() == 0
    few = [x[0][:SOME]]
    np.testing.assert_array_equal(simulate.run(network, few)[network.outputs[0]], theirs[:SOME])
    np.testing.assert_array_equal(litert_outputs(network, few), theirs[:SOME])  # the file that we write


@pytest.mark.parametrize("name", INT8)
def test_int8_models_of_mlperf_tiny_have_these_bits_on_a_cortex_m4(name: str) -> None:
    board = load_board("qemu-mps2-an386")
    if missing_packages(board):
        pytest.skip("the compiler or the emulator of a Cortex-M is not installed: make tools")
    network = from_tflite(model_bytes(name))
    x = random_samples(network, COUNT)
    if name == "pretrainedResnet_quant":  # real ones are at hand
        x = [(golden()[0].astype(np.int16) - 128).astype(np.int8)[:, None]]
    done = run_on_board(pack(network), x, board).outputs[network.outputs[0]]
    np.testing.assert_array_equal(done, litert_outputs(model_bytes(name), x))


@pytest.mark.parametrize("name", FLOAT)
def test_float_models_of_mlperf_tiny_compute_what_litert_computes(name: str) -> None:
    network = from_tflite(model_bytes(name))
    x = random_samples(network, 20)
    ours, theirs = simulate.run(network, x)[network.outputs[0]], litert_outputs(model_bytes(name), x)
    # float32 sums in another order through up to 31 layers.
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))
    np.testing.assert_array_equal(litert_outputs(network, x), theirs)


def test_a_model_with_int8_weights_and_float_maps_computes_in_float() -> None:
    network = from_tflite(model_bytes(HYBRID))
    x = random_samples(network, 20)
    ours, theirs = simulate.run(network, x)[network.outputs[0]], litert_outputs(model_bytes(HYBRID), x)
    # LiteRT rounds each map to 8 bits before it multiplies; probabilities then differ by about a hundredth.
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    assert not network.int8


def test_resnet8_int8_recognises_what_the_reference_kernels_recognise() -> None:
    network = from_tflite(model_bytes("pretrainedResnet_quant"))
    images, labels = golden()
    x = (images.astype(np.int16) - 128).astype(np.int8)[:, None]
    found = in_engine(network, [x])[network.outputs[0]].reshape(len(x), -1).argmax(axis=1)
    # 87.5 %. The 174 that were published with these images are of LiteRT's default kernels, which round otherwise.
    assert (found == labels).sum() == 175


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_what_is_written_is_read_back_as_it_was(kind: Kind) -> None:
    random = np.random.default_rng(100 + kind)
    for _ in range(20):
        network = one_operator(kind, np.int8, random)
        again = from_tflite(to_tflite(network))
        x = samples(network, 2, random)
        before, after = (simulate.run(n, x)[n.outputs[0]] for n in (network, again))
        np.testing.assert_array_equal(before, after)
        assert [t.name for t in again.tensors if t.data is None][-1] == "y"


def test_the_schema_is_that_of_litert() -> None:
    theirs = pytest.importorskip("ai_edge_litert.schema_py_generated")
    checked = 0
    for name, table in vars(tflite_schema).items():
        if not (isinstance(table, type) and issubclass(table, IntEnum) and table is not IntEnum):
            continue
        if name.endswith("Field"):
            # A generated ...Add function says the number of its field; the object API has the names in order.
            fields = [f for f in dir(theirs) if f.startswith(f"{name.removesuffix('Field')}Add")]
            words = {f.removeprefix(f"{name.removesuffix('Field')}Add").lower(): f for f in fields}
            for member in table:
                source = getattr(theirs, words[member.name.replace("_", "").lower()])
                assert member.value in source.__code__.co_consts, f"{name}.{member.name}"
                checked += 1
        else:
            for member in table:
                assert getattr(getattr(theirs, name), member.name) == member.value, f"{name}.{member.name}"
                checked += 1
    assert checked > 100
    for number, name in tflite_schema.OPERATOR_NAMES.items():
        assert getattr(theirs.BuiltinOperator, name) == number


def _model() -> bytes:
    """A small int8 model with several operators, constants and options."""
    return to_tflite(one_operator(Kind.CONV2D, np.int8, np.random.default_rng(3)))


def _read(data: bytes) -> Network | None:
    """None where it is refused; anything else that is raised fails the test."""
    try:
        return from_tflite(data)
    except (DamagedModel, UnsupportedModel):
        return None


def _truncated(data: bytes, random: plain.Random) -> bytes:
    return data[: random.randrange(len(data))]


def _flipped(data: bytes, random: plain.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwritten(data: bytes, random: plain.Random) -> bytes:
    changed = bytearray(data)
    at = random.randrange(len(changed) - 4)
    changed[at : at + 4] = random.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", bytes(4)))
    return bytes(changed)


@pytest.mark.parametrize("damage", [_truncated, _flipped, _overwritten], ids=lambda f: f.__name__.strip("_"))
def test_a_damaged_file_ends_in_one_clear_error(damage: Callable[[bytes, plain.Random], bytes]) -> None:
    whole = [_model(), to_tflite(one_operator(Kind.CONCAT, np.float32, np.random.default_rng(4)))]
    random = plain.Random(0)
    refused = sum(_read(damage(whole[n % 2], random)) is None for n in range(DAMAGED))
    assert refused > DAMAGED // 10
    assert damage is not _truncated or refused >= DAMAGED * 0.9  # what is cut off may be the padding at the end


def test_bytes_of_something_else_are_no_tflite_file() -> None:
    with pytest.raises(DamagedModel, match=r"these 11 bytes are no \.tflite file"):
        from_tflite(b"hello world")


def test_three_unsupported_operators_are_all_named() -> None:
    theirs = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    b = NetworkBuilder()
    x = b.activation("x", (1, 4))
    for name in ("first", "second", "third"):
        x = b.emit(Kind.RELU, [x], b.activation(name, (1, 4)))
    model = theirs.ModelT.InitFromObj(theirs.Model.GetRootAs(to_tflite(b.network([0], [x])), 0))
    model.operatorCodes = []
    for number, code in enumerate(
        (theirs.BuiltinOperator.TANH, theirs.BuiltinOperator.MUL, theirs.BuiltinOperator.CUSTOM)
    ):
        made = theirs.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.customCode = "MyOwn" if number == 2 else None
        model.operatorCodes.append(made)
        model.subgraphs[0].operators[number].opcodeIndex = number
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(UnsupportedModel) as caught:
        from_tflite(bytes(builder.Output()))
    assert list(caught.value.problems) == [
        "TANH 'first' is no operator of the engine; use ReLU or ReLU6",
        "MUL 'second' is no operator of the engine; scale the data before it reaches the model, or use a batch norm",
        "custom operator 'MyOwn' 'third' is no operator of the engine",
    ]


def test_an_average_pool_that_tflite_cannot_pad_is_refused() -> None:
    b = NetworkBuilder()
    x, y = b.activation("x", (1, 8, 8, 2)), b.activation("pooled", (1, 4, 4, 2))
    b.emit(Kind.AVERAGE_POOL, [x], y, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    with pytest.raises(ExportError, match="AVERAGE_POOL 'pooled' pads"):
        to_tflite(b.network([x], [y]))
