"""Masks on the wire, and the vectors of values and statistics that travel beside a blob."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export import decode_mask, encode_mask, from_torch, pack_stats, pack_values, unpack_stats, unpack_values
from fedtiny_export.masks import EncodedMask, Encoding, encode_rice, encode_smallest, entropy_bytes
from fedtiny_export.values import stat_count, value_count


def literal_decode(encoded: EncodedMask, size: int) -> list[bool]:
    """The specification's words, one byte at a time."""
    mask = [False] * size
    if encoded.encoding is Encoding.BITMAP:
        return [bool(encoded.data[i // 8] >> (i % 8) & 1) for i in range(size)]
    if encoded.encoding is Encoding.RICE:
        return literal_rice(encoded, size)
    previous, gap = -1, 0
    for byte in encoded.data:
        gap += byte
        if byte != 255:
            previous += gap + 1
            mask[previous] = True
            gap = 0
    return mask


def literal_rice(encoded: EncodedMask, size: int) -> list[bool]:
    bits = [byte >> i & 1 for byte in encoded.data for i in range(8)]
    mask, previous = [False] * size, -1
    while 0 in bits:
        ones = bits.index(0)
        low = bits[ones + 1 : ones + 1 + encoded.rice]
        previous += 1 + (ones << encoded.rice) + sum(bit << i for i, bit in enumerate(low))
        mask[previous] = True
        bits = bits[ones + 1 + encoded.rice :]
    assert len(bits) < 8
    return mask


def random_mask(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.choice([1, 7, 8, 9, 255, 256, 257, 511, 1000, 5000]))
    density = float(rng.choice([0, 0.001, 0.003, 0.01, 0.05, 0.12, 0.5, 1]))
    return rng.random(size) < density


def test_masks_of_all_sizes_and_densities_survive_and_match_the_specification():
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = random_mask(rng)
        encoded = encode_mask(mask)
        np.testing.assert_array_equal(decode_mask(encoded, mask.size), mask)
        assert literal_decode(encoded, mask.size) == mask.tolist()
        assert len(encoded.data) <= (mask.size + 7) // 8


def test_golomb_rice_masks_survive_and_match_the_specification():
    rng = np.random.default_rng(1)
    for _ in range(300):
        mask = random_mask(rng)
        encoded = encode_rice(mask)
        assert literal_decode(encoded, mask.size) == mask.tolist()
        smallest = encode_smallest(mask)
        assert len(smallest.data) <= min(len(encoded.data), len(encode_mask(mask).data))
        np.testing.assert_array_equal(decode_mask(smallest, mask.size), mask)


@pytest.mark.parametrize("density", [0.01, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_sparse_mask_takes_little_more_than_its_entropy(density):
    """Golomb-Rice of geometric gaps stays within 5 % of the entropy; the rest is rounding to bytes."""
    mask = np.random.default_rng(2).random(20_000) < density
    bound = entropy_bytes(mask.size, int(mask.sum()))
    assert bound < len(encode_smallest(mask).data) <= 1.05 * bound + 1


def test_the_entropy_of_a_mask_is_the_logarithm_of_the_choices():
    assert entropy_bytes(10, 3) == pytest.approx(np.log2(120) / 8)
    assert entropy_bytes(7, 7) == 0


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 765, 3000])
def test_gaps_around_multiples_of_255_survive(gap):
    mask = np.zeros(20_000, np.bool_)
    mask[[gap, 2 * gap + 1]] = True
    encoded = encode_mask(mask)
    assert encoded.encoding is Encoding.DELTAS
    assert len(encoded.data) == 2 * (gap // 255 + 1)
    np.testing.assert_array_equal(decode_mask(encoded, mask.size), mask)
    assert literal_decode(encoded, mask.size) == mask.tolist()


@pytest.mark.parametrize(
    ("encoding", "data", "size"),
    [
        (Encoding.BITMAP, b"\x01", 9),
        (Encoding.BITMAP, b"\x01\x00\x00", 9),
        (Encoding.BITMAP, b"\x01\x02", 9),
        (Encoding.DELTAS, b"\x09", 9),
        (Encoding.DELTAS, b"\x03\x05", 9),
        (Encoding.DELTAS, b"\x03\xff", 900),
        (Encoding.DELTAS, b"\xff\xff\x00", 510),
        (Encoding.RICE, b"\xff\xfd", 9),
        (Encoding.RICE, b"\xfe\xff\xff", 9),
        (Encoding.RICE, b"\xfe\xff", 10),
    ],
)
def test_malformed_masks_are_refused(encoding, data, size):
    with pytest.raises(ValueError, match=r"bitmap|deltas|gap|spare"):
        decode_mask(EncodedMask(encoding, data), size)


def test_values_survive_and_masked_ones_come_back_as_zero(net):
    model = from_torch(net.module, net.input_shape)
    rng = np.random.default_rng(1)
    masks = {n: rng.random(model.arrays[n].shape) < 0.4 for n in model.graph.layer_names[1:]}
    values = pack_values(model.graph, model.arrays, masks)
    assert values.dtype == np.float32
    assert values.size == value_count(model.graph, masks)
    arrays = unpack_values(model.graph, values, masks)
    assert set(arrays) == {model.graph.params[i].name for i in model.graph.trained}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, model.arrays[name] * masks.get(name, True))
    np.testing.assert_array_equal(pack_values(model.graph, arrays, masks), values)


def test_values_lie_in_table_order_with_ascending_indices(residual):
    model = from_torch(residual.module, residual.input_shape)
    masks = {"conv.weight": np.arange(model.arrays["conv.weight"].size).reshape(8, 4, 3, 3) % 5 == 0}
    values = pack_values(model.graph, model.arrays, masks)
    at = model.arrays["stem.weight"].size
    np.testing.assert_array_equal(values[:at], model.arrays["stem.weight"].ravel())
    np.testing.assert_array_equal(values[at : at + 58], model.arrays["conv.weight"].ravel()[::5])
    np.testing.assert_array_equal(values[-4:], model.arrays["head.bias"])


def test_statistics_are_mean_then_variance_of_each_batch_norm(residual):
    model = from_torch(residual.module, residual.input_shape)
    stats = pack_stats(model.graph, model.arrays)
    assert stats.size == stat_count(model.graph) == 32
    names = ["norm.running_mean", "norm.running_var", "shortcut.1.running_mean", "shortcut.1.running_var"]
    np.testing.assert_array_equal(stats, np.concatenate([model.arrays[n] for n in names]))
    arrays = unpack_stats(model.graph, stats)
    assert list(arrays) == names
    assert all(np.array_equal(arrays[n], model.arrays[n]) for n in names)


def test_unpacked_arrays_do_not_share_memory_with_the_vector(residual):
    model = from_torch(residual.module, residual.input_shape)
    values, stats = pack_values(model.graph, model.arrays, {}), pack_stats(model.graph, model.arrays)
    for array in (*unpack_values(model.graph, values, {}).values(), *unpack_stats(model.graph, stats).values()):
        assert not np.shares_memory(array, values)
        assert not np.shares_memory(array, stats)


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_vector_of_another_length_is_refused(residual, extra):
    model = from_torch(residual.module, residual.input_shape)
    with pytest.raises(ValueError, match="values have the shape"):
        unpack_values(model.graph, np.zeros(value_count(model.graph, {}) + extra, np.float32), {})
    with pytest.raises(ValueError, match="statistics have the shape"):
        unpack_stats(model.graph, np.zeros(stat_count(model.graph) + extra, np.float32))
