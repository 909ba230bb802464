"""The numpy definition of inference against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.infer import simulate
from fedtiny_export.infer.network import Kind
from tests.infer.litert import litert_outputs
from tests.infer.operators import one_operator, samples

NETWORKS = 60  # of each kind
INT8 = [kind for kind in Kind if kind is not Kind.DEQUANTIZE]


@pytest.mark.parametrize("kind", INT8, ids=lambda kind: kind.name)
def test_int8_has_the_bits_of_litert(kind: Kind) -> None:
    random = np.random.default_rng(kind)
    for number in range(NETWORKS):
        network = one_operator(kind, np.int8, random)
        x = samples(network, 4, random)
        ours = simulate.run(network, x)[network.outputs[0]]
        wrong = int((ours != litert_outputs(network, x)).sum())
        assert wrong == 0, f"{wrong} of {ours.size} values differ in network {number}: {network.operators[0]}"


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_float_is_that_of_litert(kind: Kind) -> None:
    random = np.random.default_rng(kind)
    for _ in range(NETWORKS):
        network = one_operator(kind, np.float32, random)
        x = samples(network, 2, random)
        ours, theirs = simulate.run(network, x)[network.outputs[0]], litert_outputs(network, x)
        # Sums of up to 200 products of normal numbers in another order: a few units of the last place of the largest.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6 * max(1.0, float(np.abs(theirs).max())))
