"""ONNX's own tests of single nodes, for all operators that the importer takes."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from fedtiny_export import UnsupportedModel
from fedtiny_export.infer.network import Array
from fedtiny_export.infer.onnx_in import from_onnx
from fedtiny_export.infer.onnx_ops import HANDLERS
from fedtiny_export.infer.runtimes import in_engine
from tests.infer.onnx_models import as_samples, channels_last

JOINING = ("Add", "Sum", "Concat")
"""Operators of which all inputs are activations; of the others the first is, and the rest are stored in a model."""

TAKEN = 127  # tests that must run


TYPES = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8)
OTHER = ("Cast", "Shape")  # taken only where they change nothing or work on shapes


def _cases() -> list[TestCase]:
    """Tests of one node of a supported operator whose activations are float32, int8 or uint8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the cases of other operators
        cases = load_model_tests(kind="node")
    return [case for case in cases if case.model is not None and _concerns(case.model.graph)]


def _concerns(graph: onnx.GraphProto) -> bool:
    node = graph.node[0]
    if len(graph.node) != 1 or node.op_type not in HANDLERS or node.domain or node.op_type in OTHER:
        return False
    active = [i for i in graph.input if node.op_type in JOINING or i.name == node.input[0]]
    return all(v.type.tensor_type.elem_type in TYPES for v in (*active, *graph.output))


def _stored(proto: onnx.ModelProto, inputs: list[Array]) -> tuple[onnx.ModelProto, list[Array]]:
    """The model with what is no activation as initializers, and the activations."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    node = made.graph.node[0]
    kept, active = [], []
    for value, array in zip(made.graph.input, inputs, strict=True):
        if node.op_type in JOINING or value.name == node.input[0]:
            kept.append(value)
            active.append(array)
        else:
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del made.graph.input[:]
    made.graph.input.extend(kept)
    return made, active


def test_nodes_compute_what_onnx_says(capsys: pytest.CaptureFixture[str]) -> None:
    refused: Counter[str] = Counter()
    passed, wrong, cases = 0, [], _cases()
    for case in cases:
        ((inputs, outputs), *_) = case.data_sets
        try:
            proto, active = _stored(case.model, [np.asarray(a) for a in inputs])
            network = from_onnx(proto)
            x = as_samples(network, [a.view(np.int8) ^ np.int8(-128) if a.dtype == np.uint8 else a for a in active])
            (result,) = (in_engine(network, x)[i][0] for i in network.outputs)
        except UnsupportedModel as error:
            refused[str(error.problems[0]).split("'", 2)[-1].strip() or str(error.problems[0])] += 1
            continue
        wanted = np.asarray(outputs[0])
        if wanted.dtype == np.uint8:
            wanted = wanted.view(np.int8) ^ np.int8(-128)
        if not np.allclose(result, channels_last(wanted), rtol=max(case.rtol, 1e-5), atol=max(case.atol, 1e-6)):
            wrong.append(case.name)
        passed += 1
    with capsys.disabled():
        refusals = ", ".join(f"{count} {why}" for why, count in refused.most_common())
        print(f"\n{passed} of {len(cases)} backend tests of ONNX run; refused: {refusals}")
    assert not wrong, ", ".join(wrong)
    assert passed >= TAKEN
