"""A model that fedtiny trains, as a network: the same logits, and a TFLite file of as few operators as can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedtiny_export import UnsupportedModel, from_torch
from fedtiny_export.infer import simulate
from fedtiny_export.infer.from_graph import from_model
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.quantize import as_float, quantize, quantized_samples
from tests.infer.litert import litert_outputs
from tests.infer.modules import ZOO, make_module


def channels_last(x: torch.Tensor, network: Network) -> Array:
    """Samples (n, C, ...) of torch as the network's input takes them."""
    array = x.numpy() if x.ndim == 2 else x.movedim(1, -1).contiguous().numpy()
    return array.reshape(len(x), *network.tensors[network.inputs[0]].shape)


@pytest.fixture(scope="module", params=list(ZOO))
def imported(request: pytest.FixtureRequest) -> tuple[Network, Array, Array]:
    """The network of a module, samples as it takes them, and torch's logits."""
    module, shape = make_module(request.param)
    network = from_model(from_torch(module, shape))
    x = torch.randn((40, *shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network, channels_last(x, network), module(x).numpy()


def test_logits_are_those_of_torch(imported: tuple[Network, Array, Array]) -> None:
    network, x, logits = imported
    ours = simulate.run(network, [x])[network.outputs[0]][:, 0]
    np.testing.assert_allclose(ours, logits, atol=1e-5 * max(1, np.abs(logits).max()), rtol=1e-4)
    assert not {op.kind for op in network.operators} & {Kind.TRANSPOSE, Kind.RELU, Kind.RELU6}


def test_litert_computes_the_same_from_the_written_file(imported: tuple[Network, Array, Array]) -> None:
    network, x, logits = imported
    theirs = litert_outputs(network, [x[:8]])[:, 0]
    np.testing.assert_allclose(theirs, logits[:8], atol=1e-5 * max(1, np.abs(logits).max()), rtol=1e-4)


def test_int8_is_near_and_has_the_bits_of_litert(imported: tuple[Network, Array, Array]) -> None:
    network, x, logits = imported
    small = quantize(network, [x])
    q = quantized_samples(small, [x])
    ours = simulate.run(small, q)[small.outputs[0]]
    np.testing.assert_array_equal(ours[:8], litert_outputs(small, [q[0][:8]]))
    error = np.abs(as_float(small.tensors[small.outputs[0]], ours)[:, 0] - logits).max()
    # Eight bits for weights and for each map: a handful of roundings of 1/255 of the range each.
    assert error < 0.05 * (logits.max() - logits.min())


def test_weights_have_a_symmetric_scale_per_output_channel(imported: tuple[Network, Array, Array]) -> None:
    network, x, _ = imported
    small = quantize(network, [x])
    weights = [small.tensors[op.inputs[1]] for op in small.operators if len(op.inputs) > 1 and op.kind is not Kind.ADD]
    assert weights
    for weight in weights:
        q, data = weight.quantization, weight.data
        assert q is not None
        assert data is not None
        assert len(q.scale) == weight.shape[q.axis]
        assert not q.zero_point.any()
        assert data.min() >= -127


def test_a_group_norm_is_refused_by_name() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )
    with pytest.raises(UnsupportedModel, match=r"groupnorm 1\.weight is no operator of the engine; use a batch norm"):
        from_model(from_torch(module, (1, 4, 4)))
