"""The `.ftm` blob: writing, and reading with every offset, length and index checked (firmware/BLOB.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedtiny_export.errors import BlobError, UnsupportedModel
from fedtiny_export.graph import F32, Bits, Graph, Op, OpKind, Param, Role, Tensor
from fedtiny_export.limits import check_node_limits, check_structure
from fedtiny_export.masks import EncodedMask, Encoding, decode_mask, encode_mask
from fedtiny_export.model import Model

MAGIC = b"FTM1"
VERSION = 1
NONE = 0xFFFF
_DENSE = 0
_COUNTS_PADDING = 1
_STANDARDISES = 1

_HEADER = struct.Struct("<4sHHIII5HH3I2I3I")
_TENSOR = struct.Struct("<4H")
_OP = struct.Struct("<BB2HH4H2H2B4BHf")
_PARAM_KIND = struct.Struct("<BBBB4HI")
_PARAM = struct.Struct("<BBBB4HIIIII")
assert (_HEADER.size, _TENSOR.size, _OP.size, _PARAM_KIND.size, _PARAM.size) == (64, 8, 32, 16, 32)


@dataclass(frozen=True, eq=False)
class Blob:
    """What a blob holds: dense arrays (0 where masked), masks of its sparse layers (shaped as the weight) by name."""

    graph: Graph
    arrays: dict[str, F32]
    masks: dict[str, Bits]
    abi_hash: int

    @property
    def model(self) -> Model:
        return Model(self.graph, self.arrays)


def abi_hash(graph: Graph) -> int:
    """Equal hashes: values, masks and moments of the two graphs are interchangeable."""
    kinds = b"".join(_pack_param_kind(p, _DENSE) for p in graph.params)
    return zlib.crc32(_pack_tensors(graph) + _pack_ops(graph) + kinds)


def write_blob(graph: Graph, arrays: Mapping[str, F32], masks: Mapping[str, Bits], *, names: bool = True) -> bytes:
    """Packs a model; a layer named in `masks` is stored sparse and its mask can change later, others are dense.

    Raises UnsupportedModel where the graph exceeds what a node holds, BlobError for arrays or masks that do not fit it.
    """
    problems = check_structure(graph) or check_node_limits(graph)
    if problems:
        raise UnsupportedModel(problems)
    _check_masks(graph, masks)
    tensors, ops = _pack_tensors(graph), _pack_ops(graph)
    tensors_at = _HEADER.size
    ops_at = tensors_at + len(tensors)
    params_at = ops_at + len(ops)
    body_at = params_at + len(graph.params) * _PARAM.size
    table, body = bytearray(), bytearray()
    for param in graph.params:
        values = _values_of(param, arrays)
        mask = masks.get(param.name)
        storage, mask_at, mask_bytes = _DENSE, 0, 0
        if mask is not None:
            encoded = encode_mask(mask)
            values = values[mask.reshape(-1)]
            storage, mask_at, mask_bytes = int(encoded.encoding), body_at + len(body), len(encoded.data)
            body += _padded(encoded.data)
        table += _pack_param_kind(param, storage)
        table += struct.pack("<4I", values.size, mask_at, mask_bytes, body_at + len(body))
        body += values.astype("<f4").tobytes()
    name_bytes = b"".join(bytes([len(n)]) + n for n in (p.name.encode() for p in graph.params)) if names else b""
    names_at = body_at + len(body) if name_bytes else 0
    body += _padded(name_bytes)
    total = body_at + len(body)
    counts = (len(graph.tensors), len(graph.ops), len(graph.params), graph.input, graph.output)
    header = _HEADER.pack(
        MAGIC, VERSION, _incompat_flags(graph), total, 0, abi_hash(graph), *counts, 0,
        tensors_at, ops_at, params_at, names_at, len(name_bytes), 0, 0, 0,
    )  # fmt: skip
    blob = bytearray(header) + tensors + ops + table + body
    struct.pack_into("<I", blob, 12, zlib.crc32(memoryview(blob)[16:]))
    return bytes(blob)


def read_blob(data: bytes) -> Blob:
    """The model in `data`. Raises BlobError, and nothing else, for bytes that break a rule of the format."""
    reader = _Reader(bytes(data))
    _need(len(data) >= _HEADER.size, f"it has {len(data)} bytes, a header takes {_HEADER.size}")
    header = _HEADER.unpack_from(data)
    magic, version, flags, total, crc, stored_hash = header[:6]
    tensor_count, op_count, param_count, input_index, output_index, zero = header[6:12]
    tensors_at, ops_at, params_at, names_at, names_bytes, *zeros = header[12:]
    _need(magic == MAGIC, "it does not start with FTM1")
    _need(version == VERSION, f"it has version {version}, this reader knows {VERSION}")
    _need(flags & ~_STANDARDISES == 0, f"it has unknown incompat flags 0x{flags:04x}")
    _need(total == len(data), f"its header says {total} bytes, it has {len(data)}")
    _need(crc == zlib.crc32(memoryview(data)[16:]), "its checksum is wrong")
    _need(not any((zero, *zeros)), "reserved header fields are not 0")
    tensors = tuple(_read_tensor(i, f) for i, f in enumerate(reader.table(_TENSOR, tensors_at, tensor_count)))
    ops = tuple(_read_op(i, f) for i, f in enumerate(reader.table(_OP, ops_at, op_count)))
    rows = reader.table(_PARAM, params_at, param_count)
    names = reader.names(names_at, names_bytes, param_count)
    params = tuple(_read_param(i, f, names) for i, f in enumerate(rows))
    graph = Graph(tensors, params, ops, input_index, output_index)
    problems = check_structure(graph) or check_node_limits(graph)
    if problems:
        raise BlobError("not a valid blob: " + "; ".join(problems) + ". Export the model again.")
    _need(not _incompat_flags(graph) & ~flags, "it standardises weights and its header does not say so")
    _need(stored_hash == abi_hash(graph), "its ABI hash is not that of its tables")
    arrays: dict[str, F32] = {}
    masks: dict[str, Bits] = {}
    for param, row in zip(params, rows, strict=True):
        arrays[param.name], mask = reader.array(param, row)
        if mask is not None:
            masks[param.name] = mask
    return Blob(graph, arrays, masks, stored_hash)


class _Reader:
    """Checked access to a blob's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def section(self, at: int, size: int, what: str) -> bytes:
        _need(at % 4 == 0 and at >= _HEADER.size, f"{what} starts at byte {at}")
        _need(at + size <= len(self._data), f"{what} ends at byte {at + size} of {len(self._data)}")
        return self._data[at : at + size]

    def table(self, row: struct.Struct, at: int, count: int) -> list[tuple[int | float, ...]]:
        return list(row.iter_unpack(self.section(at, row.size * count, "a table")))

    def names(self, at: int, size: int, count: int) -> list[str] | None:
        if (at, size) == (0, 0):
            return None
        raw = self.section(at, size, "the names section")
        names = []
        position = 0
        for _ in range(count):
            _need(position < size and position + 1 + raw[position] <= size, "a name runs over its section")
            end = position + 1 + raw[position]
            try:
                names.append(raw[position + 1 : end].decode())
            except UnicodeDecodeError as error:
                raise BlobError(
                    f"not a valid blob: a name is not UTF-8 ({error.reason}). Export the model again."
                ) from error
            position = end
        _need(position == size, "the names section has bytes left over")
        return names

    def array(self, param: Param, row: tuple[int | float, ...]) -> tuple[F32, Bits | None]:
        storage, live, mask_at, mask_bytes, values_at = (int(row[i]) for i in (1, 9, 10, 11, 12))
        values = np.frombuffer(self.section(values_at, 4 * live, f"{param.name}'s values"), "<f4").astype(np.float32)
        _need(bool(np.isfinite(values).all()), f"{param.name} holds NaN or infinity")
        if storage == _DENSE:
            _need((live, mask_at, mask_bytes) == (param.size, 0, 0), f"{param.name} is dense and does not look it")
            return values.reshape(param.shape), None
        _need(param.role is Role.WEIGHT, f"{param.name} is sparse and no weight")
        _need(storage in (Encoding.BITMAP, Encoding.DELTAS), f"{param.name} has the unknown storage {storage}")
        encoded = EncodedMask(Encoding(storage), self.section(mask_at, mask_bytes, f"{param.name}'s mask"))
        try:
            mask = decode_mask(encoded, param.size)
        except ValueError as error:
            raise BlobError(f"not a valid blob: {param.name}'s mask: {error}. Export the model again.") from error
        _need(int(np.count_nonzero(mask)) == live, f"{param.name} has a mask for another number of values")
        dense = np.zeros(param.size, np.float32)
        dense[mask] = values
        return dense.reshape(param.shape), mask.reshape(param.shape)


def _read_tensor(index: int, row: tuple[int | float, ...]) -> Tensor:
    c, h, w, zero = (int(v) for v in row)
    _need(zero == 0, f"tensor {index} has a reserved field that is not 0")
    return Tensor(f"t{index}", (c, h, w))


def _read_op(index: int, row: tuple[int | float, ...]) -> Op:
    kind, flags, in0, in1, output, p0, p1, p2, p3, kh, kw, sh, sw, *padding, groups = (int(v) for v in row[:-1])
    _need(kind in list(OpKind), f"operator {index} has the unknown kind {kind}")
    _need(flags & ~_COUNTS_PADDING == 0, f"operator {index} has unknown flags 0x{flags:02x}")
    top, left, bottom, right = padding
    return Op(
        kind=OpKind(kind),
        inputs=_indices((in0, in1), f"operator {index}"),
        output=output,
        params=_indices((p0, p1, p2, p3), f"operator {index}"),
        kernel=(kh, kw),
        stride=(sh, sw),
        padding=(top, left, bottom, right),
        groups=groups,
        eps=float(row[-1]),
        count_include_pad=bool(flags & _COUNTS_PADDING),
    )


def _read_param(index: int, row: tuple[int | float, ...], names: list[str] | None) -> Param:
    role, _, ndim, zero, d0, d1, d2, d3, elements = (int(v) for v in row[:9])
    _need(role in list(Role), f"parameter {index} has the unknown role {role}")
    dims = (d0, d1, d2, d3)
    _need(1 <= ndim <= 4 and zero == 0, f"parameter {index} has {ndim} dimensions")
    _need(all(d == 1 for d in dims[ndim:]), f"parameter {index} has dimensions beyond its {ndim}")
    name = names[index] if names is not None else f"{Role(role).name.lower()}{index}"
    param = Param(name, Role(role), dims[:ndim])
    _need(param.size == elements, f"parameter {index} has {elements} elements and the shape {param.shape}")
    return param


def _indices(slots: tuple[int, ...], what: str) -> tuple[int, ...]:
    used = tuple(i for i in slots if i != NONE)
    _need(slots[: len(used)] == used, f"{what} has a gap in its inputs or parameters")
    return used


def _need(holds: bool, complaint: str) -> None:
    if not holds:
        raise BlobError(f"not a valid blob: {complaint}. Export the model again or fetch the file anew.")


def _incompat_flags(graph: Graph) -> int:
    """What a reader must know of to read this graph right."""
    return _STANDARDISES if any(op.kind is OpKind.CONV2D and op.eps for op in graph.ops) else 0


def _pack_tensors(graph: Graph) -> bytes:
    return b"".join(_TENSOR.pack(*t.shape, 0) for t in graph.tensors)


def _pack_ops(graph: Graph) -> bytes:
    return b"".join(
        _OP.pack(
            op.kind,
            _COUNTS_PADDING if op.count_include_pad else 0,
            *_slots(op.inputs, 2),
            op.output,
            *_slots(op.params, 4),
            *op.kernel,
            *op.stride,
            *op.padding,
            op.groups,
            op.eps,
        )
        for op in graph.ops
    )


def _pack_param_kind(param: Param, storage: int) -> bytes:
    dims = param.shape + (1,) * (4 - len(param.shape))
    return _PARAM_KIND.pack(param.role, storage, len(param.shape), 0, *dims, param.size)


def _slots(indices: tuple[int, ...], count: int) -> tuple[int, ...]:
    return indices + (NONE,) * (count - len(indices))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _values_of(param: Param, arrays: Mapping[str, F32]) -> F32:
    array = arrays.get(param.name)
    if array is None or array.shape != param.shape:
        found = "no array" if array is None else f"an array of the shape {array.shape}"
        raise BlobError(f"{param.name} has {found}, its graph says {param.shape}. Pass the arrays of the same model.")
    if not np.isfinite(array).all():
        raise BlobError(f"{param.name} holds NaN or infinity. Lower the learning rate or go back to an earlier round.")
    return array.reshape(-1)


def _check_masks(graph: Graph, masks: Mapping[str, Bits]) -> None:
    shapes = {graph.params[i].name: graph.params[i].shape for i in graph.layers}
    for name, mask in masks.items():
        if name not in shapes:
            raise BlobError(f"{name} is no weight of this model, so it has no mask. Its weights: {', '.join(shapes)}.")
        if mask.dtype != np.bool_ or mask.shape != shapes[name]:
            raise BlobError(f"the mask of {name} is {mask.dtype}{mask.shape}; it must be bool{shapes[name]}.")
