"""A model that the node cannot run is refused on the host, with everything that stands in the way named at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fedtiny_export import ExportError, UnsupportedModel, from_onnx, from_torch


class Functional(nn.Module):
    """A convolution, then `function`, then the mean of the map."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x)).mean((2, 3))


def refusal(module: nn.Module, input_shape: tuple[int, ...] = (1, 12, 12)) -> UnsupportedModel:
    with pytest.raises(UnsupportedModel) as caught:
        from_torch(module, input_shape)
    return caught.value


def test_three_unsupported_operators_are_all_named():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Sigmoid(),
        nn.Conv2d(4, 4, 3),
        nn.Upsample(scale_factor=2),
        nn.Flatten(),
        nn.Linear(1024, 3),
        nn.Softmax(1),
    )
    error = refusal(module, (1, 12, 12))
    assert len(error.problems) == 3
    for name in ("Sigmoid '/1/Sigmoid'", "Resize '/3/Resize'", "Softmax '/6/Softmax'"):
        assert name in str(error)
    assert "use ReLU" in str(error)


def test_operators_and_attributes_are_collected_together():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Hardtanh(-1, 1),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    error = refusal(module, (1, 9, 9))
    assert [p.split()[0] for p in error.problems] == ["Conv", "MaxPool", "Clip"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Functional(lambda x: x * 2), "Mul '/Mul'"),
        (Functional(lambda x: x + 1), "adds a constant"),
        (Functional(lambda x: x[:, :, :5]), "Slice"),
        (Functional(lambda x: x.transpose(1, 2)), "Transpose"),
        (Functional(lambda x: torch.cat([x, x], 1)), "residual addition"),
        (Functional(lambda x: nn.functional.pad(torch.relu(x), (1, 1, 1, 1))), "padded map"),
        (Functional(lambda x: x.reshape(x.size(0), 2, 10, 20)), "only flattens"),
        (Functional(lambda x: nn.functional.group_norm(x, 2)), "affine=True"),
        (Functional(nn.BatchNorm2d(4, affine=False)), "affine=True"),
        (Functional(nn.LayerNorm([4, 10, 10])), "GroupNorm"),
        (nn.Sequential(nn.Conv2d(1, 3, 3, stride=300, padding=300), nn.Flatten(), nn.Linear(27, 2)), "at most 255"),
        (nn.Sequential(nn.Conv3d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2)), "only the batch may be free"),
        (Functional(nn.Sequential(nn.Conv2d(4, 810, 1), nn.Conv2d(810, 2, 1))), "function.1.weight reads 81000 padded"),
    ],
)  # fmt: skip
def test_what_a_node_lacks_is_refused_by_name(module, words):
    shape = (1, 1, 1, 1) if "batch" in words else (1, 12, 12)
    assert words in str(refusal(module, shape))


def test_a_shared_layer_is_refused():
    conv = nn.Conv2d(1, 1, 3)
    error = refusal(nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(64, 2)))
    assert "shares 0.weight" in str(error)


def test_a_module_that_fails_on_the_input_says_to_check_its_shape():
    with pytest.raises(ExportError, match="Check input_shape"):
        from_torch(nn.Linear(3, 2), (4,))


def test_a_module_whose_graph_depends_on_the_data_is_caught_by_the_comparison():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.one(x) if len(x) == 2 else self.two(x)

    with pytest.raises(ExportError, match="differ by"):
        from_torch(Fickle(), (3,))


def one_node(kind: str, inputs: list[str], shape: list[int | str], constants: dict[str, np.ndarray], **attributes):
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], name="it", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_weights_that_are_computed_are_refused():
    with pytest.raises(UnsupportedModel, match="MatMul 'it' computes its weight at run time"):
        from_onnx(one_node("MatMul", ["x", "x"], ["N", 3], {}))


def test_double_precision_is_refused():
    with pytest.raises(UnsupportedModel, match="float32"):
        from_onnx(one_node("MatMul", ["x", "w"], ["N", 3], {"w": np.ones((3, 2))}))


@pytest.mark.parametrize("shape", [["N", "C", 4, 4], ["N", 1, "H", 4]])
def test_only_the_batch_may_be_free(shape):
    with pytest.raises(UnsupportedModel, match="only the batch may be free"):
        from_onnx(one_node("Relu", ["x"], shape, {}))


def test_several_inputs_are_refused():
    model = one_node("Add", ["x", "z"], ["N", 3], {})
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]))
    with pytest.raises(UnsupportedModel, match="2 inputs"):
        from_onnx(model)


def test_a_matrix_product_with_a_bias_behind_it_is_a_linear_layer():
    weight, bias = np.random.default_rng(0).normal(size=(3, 2)).astype("f"), np.array([1, -1], "f")
    model = one_node("MatMul", ["x", "w"], ["N", 3], {"w": weight, "b": bias})
    model.graph.node.append(helper.make_node("Add", ["b", "y"], ["z"]))
    model.graph.output[0].name = "z"
    imported = from_onnx(model)
    assert [op.kind.name for op in imported.graph.ops] == ["LINEAR"]
    np.testing.assert_array_equal(imported.arrays["w"], weight.T)
    np.testing.assert_array_equal(imported.arrays["b"], bias)


def test_a_model_whose_last_operator_is_a_bare_matrix_product_works():
    imported = from_onnx(one_node("MatMul", ["x", "w"], ["N", 3], {"w": np.ones((3, 2), "f")}))
    assert imported.graph.classes == 2


def test_same_padding_is_resolved():
    weight = np.ones((2, 1, 2, 2), "f")
    model = one_node("Conv", ["x", "w"], ["N", 1, 5, 5], {"w": weight}, auto_pad="SAME_UPPER", strides=[2, 2])
    model.graph.node.append(helper.make_node("Flatten", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    imported = from_onnx(model)
    assert imported.graph.ops[0].padding == (0, 0, 1, 1)
    assert imported.graph.classes == 18
