"""A node in several pieces of RAM: where its parts lie, and that it works there as in one."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest

from fedtiny_export.blob import write_blob
from fedtiny_export.core import PARTS, CoreNode, NodeConfig, _Bank, _library, plan_banks
from fedtiny_export.errors import CoreError

from .nets import ALL_MODES, make, random_masks, random_samples

PLENTY = 1 << 20
CONFIG = NodeConfig(micro_batch=4, modes=ALL_MODES, topk_max=20, score_tile_bytes=200)
BUSIEST_FIRST = ("work", "weights", "indices", "gradients", "topk", "momentum", "node", "statistics")


@pytest.fixture(scope="module")
def blob() -> bytes:
    _, model = make("residual")
    return write_blob(model.graph, model.arrays, random_masks(model, 0.3))


def bytes_of(bank: int, where: dict[str, int], parts: dict[str, int]) -> int:
    """What a bank must have where training takes the most work: behind it lie gradients and momentum, or top-K."""
    here = {part: parts[part] if where[part] == bank else 0 for part in PARTS}
    lasting = sum(here[part] for part in ("node", "weights", "indices", "statistics", "work"))
    return lasting + max(here["gradients"] + here["momentum"], here["topk"])


def test_the_busiest_parts_lie_in_the_first_bank_that_leaves_the_others_a_place(blob: bytes) -> None:
    """Against every spreading there is, in order: the first that fits is found, and none where none fits."""
    _, one = plan_banks(blob, CONFIG, [PLENTY])
    planning = plan_banks(blob, CONFIG, [8])[1].parts["node"]
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(60):
        lots = rng.integers(0, 2, size=(rng.integers(2, 4), len(PARTS)))  # a bank has room for some of the parts
        sizes = [int(lot @ list(one.parts.values())) // 8 * 8 + 8 for lot in lots]
        sizes[-1] = max(sizes[-1], planning)
        choices = itertools.product(range(len(sizes)), repeat=len(PARTS))
        ways = (dict(zip(BUSIEST_FIRST, banks, strict=True)) for banks in choices)
        fits = (way for way in ways if all(bytes_of(b, way, one.parts) <= size for b, size in enumerate(sizes)))
        spread = plan_banks(blob, CONFIG, sizes)[1]
        assert spread.banks == next(fits, {})
        found.add(tuple(spread.banks.values()))
    assert len(found) > 5  # the sizes are such that much depends on them


def test_what_finds_no_place_is_named_with_its_bytes(blob: bytes) -> None:
    _, one = plan_banks(blob, CONFIG, [PLENTY])
    short = [one.parts["work"] - 8, one.parts["work"] - 8]
    assert plan_banks(blob, CONFIG, short)[1].missing == "work"
    # the work has a place, but then the weights find none, though the three have more bytes than both take
    full = [one.parts["work"], one.parts["weights"] - 8, one.parts["weights"] - 8]
    spread = plan_banks(blob, CONFIG, full)[1]
    assert (spread.missing, spread.parts["weights"]) == ("weights", one.parts["weights"])
    nothing = plan_banks(blob, CONFIG, [8, 16])[1]
    assert nothing.missing == "node"
    assert nothing.parts["node"] > one.parts["node"]  # what planning takes
    with pytest.raises(CoreError, match=rf"{one.parts['weights']} contiguous bytes left for weights"):
        CoreNode(blob, CONFIG, banks=full)


@pytest.mark.parametrize("at_a_time", [1, 2, 3])
def test_a_node_works_in_banks_as_in_one_arena(at_a_time: int, blob: bytes) -> None:
    _, one = plan_banks(blob, CONFIG, [PLENTY])
    apart = [one.parts[part] + 8 for part in ("indices", "weights", "work")][-at_a_time:]
    nodes = [CoreNode(blob, CONFIG), CoreNode(blob, CONFIG, banks=[*apart, PLENTY])]
    x, y = random_samples(9, 4)
    answers = []
    for node in nodes:
        node.set_samples(x, y, 5)
        tally, moments = node.train(epochs=2, lr=0.05, momentum=0.9, weight_decay=1e-3, seed=0)
        rows, gradients = node.score(1, 20, batches=2, seed=0)
        answers.append((node.values(), moments, tally, rows, gradients, node.gradient(0, 4)[0], node.infer(x)))
    assert nodes[1].spread is not None
    assert set(nodes[1].spread.banks.values()) == set(range(at_a_time + 1))
    for here, there in zip(*answers, strict=True):
        np.testing.assert_array_equal(here, there)


def test_banks_that_are_none_or_not_aligned_are_refused(blob: bytes) -> None:
    memory = np.zeros(PLENTY // 8, np.uint64)

    def load(*banks: tuple[int | None, int]) -> int:
        array = (_Bank * max(1, len(banks)))(*(_Bank(at, size) for at, size in banks))
        handle = ctypes.c_void_p()
        return int(_library().ft_load_banks(array, len(banks), blob, len(blob), CONFIG._struct(), handle, None))

    at, argument = memory.ctypes.data, 6
    assert load((at, PLENTY)) == 0
    assert load() == argument
    assert load((at + 4, PLENTY - 8)) == argument
    assert load((at, PLENTY), (None, 8)) == argument
    assert load(*[(at, PLENTY)] * 5) == argument
