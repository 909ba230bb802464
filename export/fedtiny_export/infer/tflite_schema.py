"""What fedtiny reads and writes of LiteRT's schema: numbers of fields, operators and types.

A test holds them against the schema that ships with ai-edge-litert.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

IDENTIFIER = b"TFL3"
VERSION = 3


class ModelField(IntEnum):
    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    DESCRIPTION = 3
    BUFFERS = 4


class SubGraphField(IntEnum):
    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3
    NAME = 4


class TensorField(IntEnum):
    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    QUANTIZATION = 4
    IS_VARIABLE = 5
    SPARSITY = 6


class BufferField(IntEnum):
    DATA = 0
    OFFSET = 1


class OperatorCodeField(IntEnum):
    DEPRECATED_BUILTIN_CODE = 0
    CUSTOM_CODE = 1
    VERSION = 2
    BUILTIN_CODE = 3


class OperatorField(IntEnum):
    OPCODE_INDEX = 0
    INPUTS = 1
    OUTPUTS = 2
    BUILTIN_OPTIONS_TYPE = 3
    BUILTIN_OPTIONS = 4


class QuantizationParametersField(IntEnum):
    SCALE = 2
    ZERO_POINT = 3
    DETAILS_TYPE = 4
    QUANTIZED_DIMENSION = 6


class Conv2DOptionsField(IntEnum):
    PADDING = 0
    STRIDE_W = 1
    STRIDE_H = 2
    FUSED_ACTIVATION_FUNCTION = 3
    DILATION_W_FACTOR = 4
    DILATION_H_FACTOR = 5


class DepthwiseConv2DOptionsField(IntEnum):
    PADDING = 0
    STRIDE_W = 1
    STRIDE_H = 2
    DEPTH_MULTIPLIER = 3
    FUSED_ACTIVATION_FUNCTION = 4
    DILATION_W_FACTOR = 5
    DILATION_H_FACTOR = 6


class FullyConnectedOptionsField(IntEnum):
    FUSED_ACTIVATION_FUNCTION = 0
    WEIGHTS_FORMAT = 1
    KEEP_NUM_DIMS = 2


class AddOptionsField(IntEnum):
    FUSED_ACTIVATION_FUNCTION = 0


class ConcatenationOptionsField(IntEnum):
    AXIS = 0
    FUSED_ACTIVATION_FUNCTION = 1


class Pool2DOptionsField(IntEnum):
    PADDING = 0
    STRIDE_W = 1
    STRIDE_H = 2
    FILTER_WIDTH = 3
    FILTER_HEIGHT = 4
    FUSED_ACTIVATION_FUNCTION = 5


class ReducerOptionsField(IntEnum):
    KEEP_DIMS = 0


class SoftmaxOptionsField(IntEnum):
    BETA = 0


class ReshapeOptionsField(IntEnum):
    NEW_SHAPE = 0


class BuiltinOperator(IntEnum):
    """Those that fedtiny knows. TensorType, Padding and so on: whole, or as far as used."""

    ADD = 0
    AVERAGE_POOL_2D = 1
    CONCATENATION = 2
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    DEQUANTIZE = 6
    FULLY_CONNECTED = 9
    MAX_POOL_2D = 17
    RELU = 19
    RELU6 = 21
    RESHAPE = 22
    SOFTMAX = 25
    PAD = 34
    TRANSPOSE = 39
    MEAN = 40
    SQUEEZE = 43
    PADV2 = 60
    EXPAND_DIMS = 70
    QUANTIZE = 114


class BuiltinOptions(IntEnum):
    NONE = 0
    Conv2DOptions = 1
    DepthwiseConv2DOptions = 2
    Pool2DOptions = 5
    FullyConnectedOptions = 8
    SoftmaxOptions = 9
    ConcatenationOptions = 10
    AddOptions = 11
    ReshapeOptions = 17
    PadOptions = 22
    TransposeOptions = 26
    ReducerOptions = 27
    DequantizeOptions = 38
    PadV2Options = 43
    QuantizeOptions = 89


class TensorType(IntEnum):
    FLOAT32 = 0
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    STRING = 5
    BOOL = 6
    INT16 = 7
    COMPLEX64 = 8
    INT8 = 9
    FLOAT64 = 10


class Padding(IntEnum):
    SAME = 0
    VALID = 1


class ActivationFunctionType(IntEnum):
    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4
    SIGN_BIT = 5


DTYPES: dict[int, np.dtype[Any]] = {
    TensorType.FLOAT32: np.dtype(np.float32),
    TensorType.FLOAT16: np.dtype(np.float16),
    TensorType.INT32: np.dtype(np.int32),
    TensorType.INT64: np.dtype(np.int64),
    TensorType.INT8: np.dtype(np.int8),
}

OPERATOR_NAMES = {
    5: "DEPTH_TO_SPACE", 7: "EMBEDDING_LOOKUP", 8: "FLOOR", 11: "L2_NORMALIZATION", 12: "L2_POOL_2D",
    14: "LOGISTIC", 16: "LSTM", 18: "MUL", 20: "RELU_N1_TO_1", 23: "RESIZE_BILINEAR", 24: "RNN", 26: "SPACE_TO_DEPTH",
    27: "SVDF", 28: "TANH", 32: "CUSTOM", 36: "GATHER", 37: "BATCH_TO_SPACE_ND", 38: "SPACE_TO_BATCH_ND", 41: "SUB",
    42: "DIV", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 45: "STRIDED_SLICE", 47: "EXP", 48: "TOPK_V2", 49: "SPLIT",
    50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 59: "NEG", 65: "SLICE",
    67: "TRANSPOSE_CONV", 74: "SUM", 76: "RSQRT", 77: "SHAPE", 78: "POW", 81: "REDUCE_PROD", 82: "REDUCE_MAX",
    83: "PACK", 88: "UNPACK", 92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE",
    101: "ABS", 102: "SPLIT_V", 111: "ELU", 117: "HARD_SWISH", 126: "BATCH_MATMUL", 150: "GELU",
}  # fmt: skip
"""Names of operators that fedtiny lacks, for messages."""
