"""The reference models: size, determinism, and messages."""

from __future__ import annotations

import pytest
import torch

from fedtiny.models import NAMES, NORMS, build, count_parameters, count_weights
from fedtiny_export.errors import ConfigError
from fedtiny_export.flops import macs
from fedtiny_export.graph import OpKind
from fedtiny_export.torch_in import from_torch

SHAPES = {"watch-net": (6, 1, 128), "autoencoder": (1, 5, 128), "resnet18": (3, 32, 32), "vgg11": (3, 32, 32)}
NARROW = {"resnet18": 4, "vgg11": 4}  # no board's size: where size is not the question they take too long


def net(name: str, *, norm: str = "batch", seed: int = 0, own: bool = False) -> torch.nn.Module:
    width = None if own else NARROW.get(name)
    return build(name, input_shape=SHAPES.get(name, (1, 28, 28)), classes=10, width=width, norm=norm, seed=seed)


@pytest.mark.parametrize(
    ("name", "weights", "parameters"),
    [
        ("resnet-mini", 77_072, 77_754),
        ("watch-net", 20_768, 21_098),
        ("lenet-mini", 9_064, 9_098),
        ("ds-cnn-mini", 13_920, 14_826),
        ("resnet8", 77_072, 77_658),
        ("ds-cnn", 21_888, 23_050),
        ("resnet18", 11_164_352, 11_173_962),  # the usual ResNet18 for CIFAR-10
        ("vgg11", 9_222_848, 9_228_362),
        ("autoencoder", 264_192, 267_928),
    ],
)
def test_sizes_are_those_that_the_documents_quote(name: str, weights: int, parameters: int) -> None:
    module = net(name, own=True)
    assert count_weights(module) == weights
    assert count_parameters(module) == parameters


@pytest.mark.parametrize(
    ("name", "shape", "classes", "mega_macs"), [("resnet8", (3, 32, 32), 10, 12.50), ("ds-cnn", (1, 49, 10), 12, 2.66)]
)
def test_the_nets_of_mlperf_tiny_take_the_published_macs(
    name: str, shape: tuple[int, int, int], classes: int, mega_macs: float
) -> None:
    graph = from_torch(build(name, input_shape=shape, classes=classes), shape).graph
    assert sum(macs(graph, None).values()) / 1e6 == pytest.approx(mega_macs, abs=0.005)


def test_an_autoencoder_gives_back_as_many_values_as_it_gets() -> None:
    graph = from_torch(net("autoencoder"), (1, 5, 128)).graph
    assert graph.classes == 640
    assert min(graph.tensors[op.output].size for op in graph.layer_ops) == 8


def test_standardised_convolutions_take_the_place_of_those_with_a_norm() -> None:
    graph = from_torch(net("ds-cnn-mini", norm="standardised"), (1, 28, 28)).graph
    assert not graph.batchnorms
    assert all(op.eps > 0 for op in graph.layer_ops if op.kind is OpKind.CONV2D)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_samples_gives_logits_and_every_parameter_a_gradient(name: str, norm: str) -> None:
    model = net(name, norm=norm)
    x = torch.randn(4, *SHAPES.get(name, (1, 28, 28)), generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(model(x), torch.arange(4))
    loss.backward()
    assert loss.item() < 10
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_group_norm_leaves_no_batch_norm(name: str) -> None:
    kinds = {type(m) for m in net(name, norm="group").modules()}
    assert torch.nn.BatchNorm2d not in kinds
    assert (torch.nn.GroupNorm in kinds) == (name != "lenet-mini")


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    first = net(name, seed=3).state_dict()
    torch.manual_seed(99)
    again, other = net(name, seed=3).state_dict(), net(name, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    net("resnet-mini")
    assert torch.equal(torch.rand(3), expected)


def test_activations_keep_their_scale_at_the_start() -> None:
    x = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("resnet-mini", "ds-cnn-mini"):
            assert 0.05 < float(net(name).train()(x).std()) < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet-mimi"}, "Did you mean 'resnet-mini'"),
        ({"norm": "layer"}, "batch, group"),
        ({"width": 0}, "at least 1"),
        ({"classes": 1}, "at least 2"),
        ({"name": "lenet-mini", "input_shape": (1, 2, 28)}, "H >= 4"),
        ({"name": "watch-net", "input_shape": (6, 1, 4)}, "W >= 8"),
    ],
)
def test_what_cannot_be_built_says_what_can(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"name": "resnet-mini", "input_shape": (1, 28, 28), "classes": 10}
    with pytest.raises(ConfigError, match=message):
        build(**(arguments | change))  # type: ignore[arg-type]
