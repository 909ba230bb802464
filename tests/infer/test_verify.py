"""Verification is red where a runtime computes something else, and says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtiny.verify import Comparison, verify
from fedtiny_export import from_torch
from fedtiny_export.errors import ExportError
from fedtiny_export.infer import runtimes
from fedtiny_export.infer.from_graph import from_model
from fedtiny_export.infer.load import Loaded, as_inputs
from fedtiny_export.infer.network import Array
from tests.infer.modules import make_module


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    module, shape = make_module("residual")
    model = from_torch(module, shape)
    return Loaded(from_model(model), Path("model.ftm"), b"", channels_first=True, training=model)


@pytest.fixture(scope="module")
def samples(loaded: Loaded) -> list[Array]:
    x = torch.randn((8, 2, 9, 11), generator=torch.Generator().manual_seed(1)).numpy()
    return as_inputs(loaded.network, x, first=True)


def _row(rows: list[Comparison], precision: str, runtime: str) -> Comparison:
    (row,) = (row for row in rows if (row.precision, row.runtime) == (precision, runtime))
    return row


def test_a_sound_model_is_green(loaded: Loaded, samples: list[Array]) -> None:
    found = verify(loaded, samples, calibration=samples)
    assert found.good
    assert _row(found.comparisons, "float32", "C here").against == "PyTorch"
    assert _row(found.comparisons, "int8", "C here").bits


def test_a_network_that_is_not_the_torch_model_is_red(loaded: Loaded, samples: list[Array]) -> None:
    tensors = list(loaded.network.tensors)
    head = loaded.network.operators[-1].inputs[1]
    data = tensors[head].data
    assert data is not None
    tensors[head] = replace(tensors[head], data=data * np.float32(1.5))
    wrong = replace(loaded, network=replace(loaded.network, tensors=tuple(tensors)))
    found = verify(wrong, samples)
    assert not found.good
    assert not _row(found.comparisons, "float32", "numpy").near
    assert _row(found.comparisons, "float32", "C here").parts_at is None  # it computes the network that it was given


def test_a_wrong_kernel_is_red_and_named(loaded: Loaded, samples: list[Array], monkeypatch: pytest.MonkeyPatch) -> None:
    right, second = runtimes.in_engine, loaded.network.tensors[loaded.network.operators[1].outputs[0]].name

    def wrong(network, x, *, every=False):  # type: ignore[no-untyped-def]
        results = right(network, x, every=every)
        for index in results:
            if network.tensors[index].name == second or index in network.outputs:
                results[index] = results[index] + results[index].dtype.type(1)
        return results

    monkeypatch.setattr(runtimes, "in_engine", wrong)
    found = verify(loaded, samples, calibration=samples)
    assert not found.good
    for precision in ("float32", "int8"):
        row = _row(found.comparisons, precision, "C here")
        assert row.parts_at is not None
        assert row.parts_at.endswith(second)


def test_an_engine_that_does_not_run_is_red_and_litert_is_an_extra(
    loaded: Loaded, samples: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(network, x, *, every=False, file=None):  # type: ignore[no-untyped-def]
        raise ExportError("it is not there")

    monkeypatch.setattr(runtimes, "in_litert", missing)
    assert verify(loaded, samples).good
    monkeypatch.setattr(runtimes, "in_engine", missing)
    found = verify(loaded, samples)
    assert not found.good
    assert _row(found.comparisons, "float32", "C here").missing == "it is not there"
