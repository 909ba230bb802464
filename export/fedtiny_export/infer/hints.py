"""What would help where an operator is not among the engine's."""

from __future__ import annotations

_SMOOTH = "use ReLU or ReLU6"
_RECURRENT = "use convolutions over time"
_RESIZE = "the engine only keeps or shrinks a map"
_SCALE = "scale the data before it reaches the model, or use a batch norm"
_END = "leave it to the program that reads the output"

_WORDS = {
    _SMOOTH: "sigmoid logistic tanh leakyrelu elu gelu erf prelu hardswish hardsigmoid softplus mish relun1to1 silu "
    "swish selu celu thresholdedrelu exp pow",
    _RECURRENT: "lstm gru rnn unidirectionalsequencelstm svdf scan loop",
    _RESIZE: "resize upsample convtranspose transposeconv resizebilinear resizenearestneighbor depthtospace",
    _SCALE: "mul sub div",
    _END: "argmax topk topkv2 nonmaxsuppression logsoftmax",
    "feed the parts as they are needed": "gather slice split splitv stridedslice unpack",
    "use a batch norm": "layernormalization instancenormalization groupnormalization",
    "use an average or max pool": "reducemax globalmaxpool lppool globallppool reducesum",
    "multiply by a stored matrix": "matmul batchmatmul einsum attention",
}
_HINTS = {word: text for text, words in _WORDS.items() for word in words.split()}


def hint(operator: str) -> str:
    """ "; use ..." for an operator of ONNX or LiteRT, or nothing where nothing is known."""
    found = _HINTS.get(operator.replace("_", "").lower())
    return f"; {found}" if found else ""
