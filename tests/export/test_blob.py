"""The `.ftm` blob: what is written is read, and damaged bytes are refused with BlobError and nothing else."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from fedtiny_export import (
    BlobError,
    OpKind,
    PlanError,
    UnsupportedModel,
    abi_hash,
    from_torch,
    read_blob,
    write_blob,
)
from fedtiny_export.core import NodeConfig, plan

from .conftest import make_net


def random_masks(graph, density, seed=0):
    rng = np.random.default_rng(seed)
    return {graph.params[i].name: rng.random(graph.params[i].shape) < density for i in graph.layers[1:]}


def small_blob(net, density=0.3):
    model = from_torch(net.module, net.input_shape)
    return write_blob(model.graph, model.arrays, random_masks(model.graph, density))


def reseal(blob):
    """The same bytes under a checksum that fits, so that the checks behind it are reached."""
    blob[12:16] = struct.pack("<I", zlib.crc32(blob[16:]))
    return bytes(blob)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
def test_blob_round_trip_keeps_everything_but_tensor_names(net, density):
    model = from_torch(net.module, net.input_shape)
    masks = random_masks(model.graph, density)
    blob = read_blob(write_blob(model.graph, model.arrays, masks))
    assert [t.shape for t in blob.graph.tensors] == [t.shape for t in model.graph.tensors]
    assert replace(blob.graph, tensors=model.graph.tensors) == model.graph
    assert blob.masks.keys() == masks.keys()
    for param in model.graph.params:
        mask = masks.get(param.name, np.ones(param.shape, np.bool_))
        np.testing.assert_array_equal(blob.arrays[param.name], np.where(mask, model.arrays[param.name], 0))
        if param.name in masks:
            np.testing.assert_array_equal(blob.masks[param.name], mask)


def test_the_hash_depends_on_the_graph_but_not_on_masks_or_values(residual):
    model = from_torch(residual.module, residual.input_shape)
    sparse = read_blob(write_blob(model.graph, model.arrays, random_masks(model.graph, 0.1)))
    zeros = {n: np.zeros_like(a) for n, a in model.arrays.items()}
    assert sparse.abi_hash == abi_hash(model.graph) == read_blob(write_blob(model.graph, zeros, {})).abi_hash
    other = replace(
        model.graph, ops=(*model.graph.ops[:2], replace(model.graph.ops[2], stride=(1, 1)), *model.graph.ops[3:])
    )
    assert abi_hash(other) != sparse.abi_hash


def test_names_can_be_left_out(residual):
    model = from_torch(residual.module, residual.input_shape)
    blob = read_blob(write_blob(model.graph, model.arrays, {}, names=False))
    assert blob.abi_hash == abi_hash(model.graph)
    assert len({p.name for p in blob.graph.params}) == len(model.graph.params)


def test_header_fields_lie_where_the_specification_says(residual):
    model = from_torch(residual.module, residual.input_shape)
    data = write_blob(model.graph, model.arrays, {})
    assert data[:8] == b"FTM1\x01\x00\x00\x00"
    assert struct.unpack_from("<I", data, 8) == (len(data),)
    assert struct.unpack_from("<5H", data, 20) == (
        len(model.graph.tensors), len(model.graph.ops), len(model.graph.params), model.graph.input, model.graph.output
    )  # fmt: skip
    tensors_at, ops_at, params_at = struct.unpack_from("<3I", data, 32)
    assert struct.unpack_from("<4H", data, tensors_at) == (*model.graph.tensors[0].shape, 0)
    op = model.graph.ops[0]
    assert data[ops_at] == 1
    assert struct.unpack_from("<H", data, ops_at + 6) == (op.output,)
    assert data[ops_at + 20 : ops_at + 26] == bytes([*op.stride, *op.padding])
    weight = model.arrays[model.graph.params[0].name]
    assert struct.unpack_from("<4H2I", data, params_at + 4) == (*weight.shape, weight.size, weight.size)
    (values_at,) = struct.unpack_from("<I", data, params_at + 28)
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", weight.size, values_at), weight.ravel())


def test_every_flipped_byte_is_noticed(residual):
    data = small_blob(residual)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        with pytest.raises(BlobError):
            read_blob(bytes(damaged))


@pytest.mark.parametrize("pattern", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_under_a_valid_checksum_never_escapes_as_another_error(residual, pattern):
    data = small_blob(residual)
    refused = 0
    for at in range(16, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= pattern
        try:
            read_blob(reseal(damaged))
        except BlobError:
            refused += 1
    assert refused > 500  # all of the tables; only values and names may change freely


def test_random_tables_never_escape_as_another_error(residual):
    data = small_blob(residual)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 6)):
            at = 4 * int(rng.integers(5, len(data) // 8))
            damaged[at : at + 4] = struct.pack(
                "<I", int(rng.choice([0, 1, 4, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFC, len(data)]))
            )
        try:
            read_blob(reseal(damaged))
        except BlobError:
            continue


def test_every_truncation_is_noticed(residual):
    data = small_blob(residual)
    for length in range(len(data)):
        with pytest.raises(BlobError):
            read_blob(data[:length])
        if 64 <= length <= len(data) - 4:  # up to 3 bytes at the end only fill the last word
            short = bytearray(data[:length])
            short[8:12] = struct.pack("<I", length)
            with pytest.raises(BlobError):
                read_blob(reseal(short))


def test_other_versions_and_unknown_flags_are_refused_by_name(residual):
    data = bytearray(small_blob(residual))
    data[4] = 2
    with pytest.raises(BlobError, match="version 2"):
        read_blob(reseal(data))
    data[4], data[6] = 1, 4
    with pytest.raises(BlobError, match="flags 0x0004"):
        read_blob(reseal(data))


def test_a_reader_that_does_not_know_standardised_weights_is_told_to_refuse():
    net = make_net("standardised")
    model = from_torch(net.module, net.input_shape)
    data = bytearray(write_blob(model.graph, model.arrays, {}))
    assert struct.unpack_from("<H", data, 6) == (1,)
    assert [op.eps for op in read_blob(bytes(data)).graph.ops if op.kind is OpKind.CONV2D] == [
        pytest.approx(1e-5),
        pytest.approx(1e-3),
    ]
    data[6] = 0
    with pytest.raises(BlobError, match="standardises weights"):
        read_blob(reseal(data))
    with pytest.raises(PlanError, match="damaged"):
        plan(bytes(data), NodeConfig())


def test_numbers_that_are_not_finite_are_neither_written_nor_read(residual):
    model = from_torch(residual.module, residual.input_shape)
    arrays = model.arrays | {"head.bias": np.array([0, np.nan, 0, 0], np.float32)}
    with pytest.raises(BlobError, match=r"head\.bias holds NaN"):
        write_blob(model.graph, arrays, {})
    good = write_blob(model.graph, model.arrays, {})
    at = good.index(model.arrays["head.bias"].tobytes())
    with pytest.raises(BlobError, match=r"head\.bias holds NaN"):
        read_blob(reseal(bytearray(good[:at] + struct.pack("<f", float("inf")) + good[at + 4 :])))


@pytest.mark.parametrize("name", ["nothing", "head.bias", "norm.weight"])
def test_only_weights_have_masks(residual, name):
    model = from_torch(residual.module, residual.input_shape)
    with pytest.raises(BlobError, match="has no mask"):
        write_blob(model.graph, model.arrays, {name: np.ones(1, np.bool_)})


def test_a_graph_that_breaks_a_rule_is_not_written(residual):
    model = from_torch(residual.module, residual.input_shape)
    graph = replace(model.graph, ops=model.graph.ops[1:])
    with pytest.raises(UnsupportedModel, match="before it is written"):
        write_blob(graph, model.arrays, {})


def test_an_output_that_is_read_on_is_refused(residual):
    model = from_torch(residual.module, residual.input_shape)
    vectors = [i for i, t in enumerate(model.graph.tensors) if t.shape == (8, 1, 1)]
    with pytest.raises(UnsupportedModel, match=r"feeds nothing(.|\n)*is read by an operator"):
        write_blob(replace(model.graph, output=vectors[0]), model.arrays, {})


def test_nothing_that_python_calls_bytes_raises_another_error():
    rng = np.random.default_rng(0)
    for length in (0, 1, 63, 64, 65, 400):
        with pytest.raises(BlobError):
            read_blob(rng.bytes(length))
