"""fedtiny_export: torch -> ONNX -> graph -> `.ftm` blob | ONNX | C. Knows nothing of boards' links or of rounds.

Public names load when first used, so importing the package costs neither torch nor onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtiny_export.blob import Blob, abi_hash, read_blob, write_blob
    from fedtiny_export.errors import BlobError, ExportError, FedtinyError, PlanError, UnsupportedModel
    from fedtiny_export.flops import macs, training_flops
    from fedtiny_export.graph import Graph, Op, OpKind, Param, Role, Tensor
    from fedtiny_export.infer.c_out import to_c
    from fedtiny_export.masks import EncodedMask, Encoding, decode_mask, encode_mask
    from fedtiny_export.model import Model
    from fedtiny_export.onnx_in import from_onnx
    from fedtiny_export.onnx_out import to_onnx
    from fedtiny_export.reference import GraphModule
    from fedtiny_export.runtimes import onnxruntime_logits, parity
    from fedtiny_export.torch_in import from_torch
    from fedtiny_export.values import pack_stats, pack_values, unpack_stats, unpack_values
    from fedtiny_export.ws_conv import WSConv2d, standardised

_MODULES = {
    "blob": ("Blob", "abi_hash", "read_blob", "write_blob"),
    "infer.c_out": ("to_c",),
    "errors": ("BlobError", "ExportError", "FedtinyError", "PlanError", "UnsupportedModel"),
    "flops": ("macs", "training_flops"),
    "graph": ("Graph", "Op", "OpKind", "Param", "Role", "Tensor"),
    "masks": ("EncodedMask", "Encoding", "decode_mask", "encode_mask"),
    "model": ("Model",),
    "onnx_in": ("from_onnx",),
    "onnx_out": ("to_onnx",),
    "reference": ("GraphModule",),
    "runtimes": ("onnxruntime_logits", "parity"),
    "torch_in": ("from_torch",),
    "values": ("pack_stats", "pack_values", "unpack_stats", "unpack_values"),
    "ws_conv": ("WSConv2d", "standardised"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Blob",
    "BlobError",
    "EncodedMask",
    "Encoding",
    "ExportError",
    "FedtinyError",
    "Graph",
    "GraphModule",
    "Model",
    "Op",
    "OpKind",
    "Param",
    "PlanError",
    "Role",
    "Tensor",
    "UnsupportedModel",
    "WSConv2d",
    "abi_hash",
    "decode_mask",
    "encode_mask",
    "from_onnx",
    "from_torch",
    "macs",
    "onnxruntime_logits",
    "pack_stats",
    "pack_values",
    "parity",
    "read_blob",
    "standardised",
    "to_c",
    "to_onnx",
    "training_flops",
    "unpack_stats",
    "unpack_values",
    "write_blob",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
