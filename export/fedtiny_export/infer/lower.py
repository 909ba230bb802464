"""A network as calls of kernels: what an operator becomes, and which tensors share a buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedtiny_export.errors import UnsupportedModel
from fedtiny_export.infer import fixed, sparse
from fedtiny_export.infer.moves import moves, strides
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Operator, Quantization, Tensor
from fedtiny_export.infer.program import Code, Step
from fedtiny_export.infer.scales import multipliers_of, scalar, softmax_scale
from fedtiny_export.infer.weights import in_pairs, stream_of

DEPTH_MOST = 32767
"""Products that an int8 kernel may add up."""


class Lowering:
    """Steps and buffers of one network. A buffer is a number, `sizes` its bytes; `root` says which one a tensor has."""

    def __init__(self, network: Network, options: sparse.Options) -> None:
        self.network = network
        self.options = options
        self.steps: list[Step] = []
        self.sizes: list[int] = []
        self.root: dict[int, int] = {}
        self.made: dict[int, int] = {}
        self.problems: list[str] = []
        self._at = 0
        self._last = {i: index for index, op in enumerate(network.operators) for i in op.inputs}
        self._last |= {i: len(network.operators) for i in network.outputs}

    def run(self) -> None:
        """Raises UnsupportedModel with everything that the engine lacks."""
        for i in self.network.inputs:
            self.root[i] = self._buffer(self.network.tensors[i].nbytes)
            self.made[i] = -1
        for index, op in enumerate(self.network.operators):
            out = self.network.tensors[op.outputs[0]]
            self._at = index
            try:
                self._lower(op)
            except _Refused as refused:
                self.problems.append(f"operator {index} ({op.kind.name} '{out.name}'): {refused}")
                self.root.setdefault(op.outputs[0], self._buffer(out.nbytes))
            self.made[op.outputs[0]] = len(self.steps) - 1
        for i in self.network.outputs:
            if i not in self.root:
                self._copied(i)
        if self.problems:
            raise UnsupportedModel(self.problems)

    # -- buffers

    def _buffer(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _copied(self, i: int) -> int:
        """A constant where a kernel wants an activation: moved into a buffer."""
        tensor = self.network.tensors[i]
        if tensor.data is None:
            raise _Refused(f"its input '{tensor.name}' is computed by no operator before it")
        buffer = self._buffer(tensor.nbytes)
        flat = (tensor.size,)
        self.steps += moves(tensor.dtype, flat, (1,), (1,), y=buffer, constant=tensor.data)
        self.root[i] = buffer
        self.made[i] = len(self.steps) - 1
        return buffer

    def _in(self, i: int) -> int:
        return self.root[i] if i in self.root else self._copied(i)

    def _out(self, i: int, over: Sequence[int] = ()) -> int:
        """The output's buffer: that of one of the inputs `over` where nobody reads it any more, else its own."""
        tensor = self.network.tensors[i]
        for x in over:
            same = self.network.tensors[x].nbytes == tensor.nbytes and x in self.root
            if same and self._last_use(x):
                self.root[i] = self.root[x]
                return self.root[i]
        self.root[i] = self._buffer(tensor.nbytes)
        return self.root[i]

    def _last_use(self, x: int) -> bool:
        """Whether nothing after the operator at hand reads what lies in x's buffer."""
        return all(self._last.get(t, 0) <= self._at for t, root in self.root.items() if root == self.root[x])

    # -- operators

    def _lower(self, op: Operator) -> None:
        tensors = [self.network.tensors[i] for i in op.inputs]
        if any(t.dtype not in (np.float32, np.int8, np.int32) for t in tensors):
            raise _Refused(f"{tensors[0].dtype} is no type of the engine; float32 and int8 are")
        getattr(self, f"_{op.kind.name.lower()}")(op, *tensors)

    def _tensor(self, op: Operator) -> Tensor:
        return self.network.tensors[op.outputs[0]]

    def _add_step(self, op: Operator, code: Code, **members: object) -> None:
        self.steps.append(Step(code=code, name=self._tensor(op).name, **members))  # type: ignore[arg-type]

    def _weight(self, tensor: Tensor) -> Array:
        if tensor.data is None:
            raise _Refused("its weight is computed by another operator; only constant weights are supported")
        if tensor.quantization is not None and np.any(tensor.quantization.zero_point):
            raise _Refused("its weight has a zero point; quantise weights symmetrically")
        return tensor.data

    def _window(self, op: Operator, x: Tensor, y: Tensor) -> dict[str, int]:
        numbers = dict(zip(("xh", "xw", "xc"), x.shape[-3:], strict=True))
        numbers |= dict(zip(("yh", "yw", "yc"), y.shape[-3:], strict=True))
        numbers |= {"kh": op.kernel[0], "kw": op.kernel[1], "sh": op.stride[0], "sw": op.stride[1]}
        numbers |= {"dh": op.dilation[0], "dw": op.dilation[1], "top": op.padding[0], "left": op.padding[1]}
        for name in ("xh", "xw", "xc", "yh", "yw", "yc"):
            if not 1 <= numbers[name] <= 65535:
                raise _Refused(f"a map with a side of {numbers[name]}; 1 to 65,535 are supported")
        for name in ("kh", "kw", "sh", "sw", "dh", "dw", "top", "left"):
            if not 0 <= numbers[name] <= 255:
                raise _Refused(f"a kernel, stride, dilation or padding of {numbers[name]}; at most 255 is supported")
        return numbers

    def _weighted(self, op: Operator, tensors: tuple[Tensor, ...], y: Tensor) -> dict[str, object]:
        """bias, multiplier, shift and zero points of a layer with weights."""
        x, w = tensors[0], tensors[1]
        bias = tensors[2].data if len(tensors) > 2 else None
        numbers: dict[str, int] = {}
        members: dict[str, object] = {"numbers": numbers}
        if y.dtype != np.int8:
            numbers["a"] = int(op.activation)
            members["bias"] = None if bias is None else bias.astype(np.float32)
            return members
        qx, qw, qy = _q(x), _q(w), _q(y)
        numbers["x_zero"], numbers["y_zero"] = scalar(qx)[1], scalar(qy)[1]
        numbers["low"], numbers["high"] = fixed.limits(op.activation, qy)
        channels = y.shape[-1]
        scales = np.broadcast_to(float(qx.scale[0]) * qw.scale.astype(np.float64) / float(qy.scale[0]), (channels,))
        members["multiplier"], members["shift"] = multipliers_of(scales)
        total = np.zeros(channels, np.int64) if bias is None else bias.astype(np.int64)
        flat = np.abs(np.moveaxis(self._weight(w), -1 if op.kind == Kind.DEPTHWISE_CONV2D else 0, 0).astype(np.int64))
        sums = flat.reshape(channels, -1).sum(axis=1)
        _fix_dead(op.kind, total, sums, members, numbers)
        if np.any(np.abs(total) + 255 * sums >= 1 << 30):
            raise _Refused("sums of 2^30 or more; calibrate the quantisation on real samples")
        if np.any(total):
            members["bias"] = total.astype(np.int32)
        return members

    def _conv2d(self, op: Operator, *tensors: Tensor) -> None:
        x, w, y = tensors[0], tensors[1], self._tensor(op)
        weight = self._weight(w)
        geometry = self._window(op, x, y)
        float_code = x.dtype != np.int8
        members = self._weighted(op, tensors, y)
        numbers = {**geometry, **members.pop("numbers")}  # type: ignore[dict-item]
        source = self._in(op.inputs[0])
        depth = math.prod(weight.shape[1:])
        if weight.shape[3] != x.shape[-1]:
            raise _Refused(
                f"a weight for {weight.shape[3]} input channels over {x.shape[-1]}; groups are not supported"
            )
        if float_code:
            self._add_step(op, Code.CONV_F32, x=source, y=self._out(op.outputs[0]), weight=weight.astype(np.float32),
                           numbers=numbers, **members)  # fmt: skip
            return
        if depth > DEPTH_MOST:
            raise _Refused(f"{depth} products in a sum; at most {DEPTH_MOST:,} are supported")
        bands = sparse.choose(numbers, weight, self.options)
        out = self._out(op.outputs[0])
        if bands is None:
            work = 16 * -(-depth // 4)
            self._add_step(op, Code.CONV_S8, x=source, y=out, work=work, weight=in_pairs(weight), numbers=numbers,
                           **members)  # fmt: skip
            return
        stream, most = stream_of(weight)
        members["bias"] = sparse.bias_without_zero(members.get("bias"), weight, numbers["x_zero"])  # type: ignore[arg-type]
        numbers |= {"a": bands.half, "b": most}
        self._add_step(op, Code.SPARSE_CONV_S8, x=source, y=out, work=sparse.work_bytes(numbers), weight=stream,
                       numbers=numbers, **members)  # fmt: skip

    def _depthwise_conv2d(self, op: Operator, *tensors: Tensor) -> None:
        x, y = tensors[0], self._tensor(op)
        weight = self._weight(tensors[1])
        members = self._weighted(op, tensors, y)
        numbers = {**self._window(op, x, y), **members.pop("numbers")}  # type: ignore[dict-item]
        code = Code.DEPTHWISE_S8 if x.dtype == np.int8 else Code.DEPTHWISE_F32
        weight = weight.reshape(-1).astype(x.dtype)
        self._add_step(op, code, x=self._in(op.inputs[0]), y=self._out(op.outputs[0]), weight=weight, numbers=numbers,
                       **members)  # fmt: skip

    def _fully_connected(self, op: Operator, *tensors: Tensor) -> None:
        x, y = tensors[0], self._tensor(op)
        weight = self._weight(tensors[1])
        out_channels, depth = weight.shape
        members = self._weighted(op, tensors, y)
        numbers: dict[str, int] = {**members.pop("numbers"), "xh": x.size // depth}  # type: ignore[dict-item]
        numbers |= {"xc": depth, "yc": out_channels}
        if max(numbers["xh"], depth, out_channels) > 65535 or (x.dtype == np.int8 and depth > DEPTH_MOST):
            raise _Refused(f"{depth} inputs of {out_channels} outputs; at most {DEPTH_MOST:,} inputs are supported")
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0])
        if x.dtype != np.int8:
            self._add_step(
                op, Code.DENSE_F32, x=source, y=out, weight=weight.astype(np.float32), numbers=numbers, **members
            )
        elif sparse.dense_layer_is_sparse(weight, self.options):
            members["bias"] = sparse.bias_without_zero(members.get("bias"), weight, numbers["x_zero"])  # type: ignore[arg-type]
            self._add_step(
                op, Code.SPARSE_DENSE_S8, x=source, y=out, weight=stream_of(weight)[0], numbers=numbers, **members
            )
        else:
            work = 8 * -(-depth // 4)
            self._add_step(
                op, Code.DENSE_S8, x=source, y=out, work=work, weight=in_pairs(weight), numbers=numbers, **members
            )

    def _add(self, op: Operator, *tensors: Tensor) -> None:
        y = self._tensor(op)
        sources = [self._broadcast(i, y) for i in op.inputs]
        same = [i for i, t in zip(op.inputs, tensors, strict=True) if t.shape == y.shape]
        order = [0, 1]
        if y.dtype != np.int8:
            out = self._out(op.outputs[0], same)
            numbers = {"a": int(op.activation), "b": y.size}
            self._add_step(op, Code.ADD_F32, x=sources[0], x2=sources[1], y=out, numbers=numbers)
            return
        (s0, z0), (s1, z1), (sy, zy) = (scalar(_q(t)) for t in (*tensors, y))
        if s0 > s1:
            order, s0, z0, s1, z1 = [1, 0], s1, z1, s0, z0
        twice = 2 * s1
        multiplier, shift = multipliers_of((s0 / twice, twice / ((1 << fixed.LEFT_SHIFT) * sy)))
        low, high = fixed.limits(op.activation, _q(y))
        numbers = {"x_zero": z0, "x2_zero": z1, "y_zero": zy, "low": low, "high": high, "a": y.size}
        out = self._out(op.outputs[0], same)
        self._add_step(op, Code.ADD_S8, x=sources[order[0]], x2=sources[order[1]], y=out, multiplier=multiplier,
                       shift=shift, numbers=numbers)  # fmt: skip

    def _broadcast(self, i: int, y: Tensor) -> int:
        """The buffer of an input, or one with it repeated to the output's shape."""
        x = self.network.tensors[i]
        if x.shape == y.shape or x.size == y.size:
            return self._in(i)
        shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
        steps = [0 if n == 1 else step for n, step in zip(shape, strides(shape), strict=True)]
        buffer = self._buffer(y.nbytes)
        source = self._in(i)
        self.steps += moves(x.dtype, y.shape, steps, strides(y.shape), x=source, y=buffer)
        return buffer

    def _concat(self, op: Operator, *tensors: Tensor) -> None:
        y = self._tensor(op)
        out = self._out(op.outputs[0])
        axis, at = op.axis % len(y.shape), 0
        for i, x in zip(op.inputs, tensors, strict=True):
            source = self._in(i)
            if x.dtype == np.int8 and scalar(_q(x)) != scalar(_q(y)):
                rescaled = self._buffer(x.nbytes)
                self._rescale(op, _q(x), y, source, rescaled, x.size, (-128, 127))
                source = rescaled
            start = at * strides(y.shape)[axis] * y.dtype.itemsize
            self.steps += moves(x.dtype, x.shape, strides(x.shape), strides(y.shape), x=source, y=out, y_at=start)
            at += x.shape[axis]
        self._activate(op, y, out)

    def _activate(self, op: Operator, y: Tensor, buffer: int) -> None:
        """A fused activation of an operator that has none of its own kernel, in place."""
        if op.activation == Activation.NONE:
            return
        if y.dtype == np.int8:
            self._rescale(op, _q(y), y, buffer, buffer, y.size, fixed.limits(op.activation, _q(y)))
        else:
            self._add_step(op, Code.CLAMP_F32, x=buffer, y=buffer, numbers={"a": int(op.activation), "b": y.size})

    def _pad(self, op: Operator, x: Tensor, *_: Tensor) -> None:
        y = self._tensor(op)
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0])
        start = sum(before * step for (before, _), step in zip(op.pads, strides(y.shape), strict=True))
        fill = scalar(_q(y))[1] if y.dtype == np.int8 else 0
        self.steps += moves(x.dtype, x.shape, strides(x.shape), strides(y.shape), x=source, y=out,
                            y_at=start * y.dtype.itemsize, fill=(y.size, fill))  # fmt: skip

    def _pool(self, op: Operator, x: Tensor, codes: tuple[Code, Code]) -> None:
        y = self._tensor(op)
        numbers = self._window(op, x, y)
        if x.dtype == np.int8:
            numbers["low"], numbers["high"] = fixed.limits(op.activation, _q(y))
            if scalar(_q(x)) != scalar(_q(y)):
                raise _Refused("input and output of a pool have different scales; LiteRT allows one")
        else:
            numbers["a"] = int(op.activation)
        code = codes[0] if x.dtype == np.int8 else codes[1]
        self._add_step(op, code, x=self._in(op.inputs[0]), y=self._out(op.outputs[0]), numbers=numbers)

    def _average_pool(self, op: Operator, x: Tensor) -> None:
        self._pool(op, x, (Code.AVERAGE_POOL_S8, Code.AVERAGE_POOL_F32))

    def _max_pool(self, op: Operator, x: Tensor) -> None:
        self._pool(op, x, (Code.MAX_POOL_S8, Code.MAX_POOL_F32))

    def _mean(self, op: Operator, x: Tensor, *_: Tensor) -> None:
        y = self._tensor(op)
        axes = sorted(axis % len(x.shape) for axis in op.axes)
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        source = self._in(op.inputs[0])
        shape = x.shape
        if axes != list(range(axes[0], axes[-1] + 1)):  # their values side by side first
            order = [*kept, *axes]
            shape = tuple(x.shape[axis] for axis in order)
            moved = self._buffer(x.nbytes)
            steps = [strides(x.shape)[axis] for axis in order]
            self.steps += moves(x.dtype, shape, steps, strides(shape), x=source, y=moved)
            source, axes = moved, list(range(len(kept), len(shape)))
        outer, inner = math.prod(shape[: axes[0]]), math.prod(shape[axes[-1] + 1 :])
        count = math.prod(shape[axis] for axis in axes)
        if max(outer, count, inner) > 65535:
            raise _Refused(f"a mean over {count} values for {outer * inner} results; 65,535 are supported")
        numbers = {"xh": outer, "xw": count, "xc": inner}
        out = self._out(op.outputs[0])
        if x.dtype != np.int8:
            self._add_step(op, Code.MEAN_F32, x=source, y=out, numbers=numbers)
            return
        (sx, zx), (sy, zy) = scalar(_q(x)), scalar(_q(y))
        multiplier, shift = fixed.multiplier(sx / sy)
        more = min(count.bit_length() - 1, 32, 31 + shift)
        numbers |= {"x_zero": zx, "y_zero": zy, "low": -128, "high": 127}
        mean = np.array([(multiplier << more) // count], np.int32)
        self._add_step(op, Code.MEAN_S8, x=source, y=out, multiplier=mean, shift=np.array([shift - more], np.int8),
                       numbers=numbers)  # fmt: skip

    def _softmax(self, op: Operator, x: Tensor) -> None:
        y = self._tensor(op)
        numbers = {"xh": x.size // x.shape[-1], "xc": x.shape[-1]}
        if numbers["xh"] > 65535 or numbers["xc"] > (4095 if x.dtype == np.int8 else 65535):
            raise _Refused(f"softmax over {numbers['xc']} values; at most 4,095 are supported")
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0], op.inputs)
        if x.dtype != np.int8:
            beta = np.array([op.beta], np.float32)
            self._add_step(op, Code.SOFTMAX_F32, x=source, y=out, weight=beta, numbers=numbers)
            return
        if scalar(_q(y)) != (1 / 256, -128):
            raise _Refused("the output of an int8 softmax has scale 1/256 and zero point -128, as LiteRT wants it")
        multiplier, shift, least = softmax_scale(op.beta, scalar(_q(x))[0])
        self._add_step(op, Code.SOFTMAX_S8, x=source, y=out, multiplier=np.array([multiplier], np.int32),
                       shift=np.array([shift], np.int8), numbers={**numbers, "a": max(least, -255)})  # fmt: skip

    def _reshape(self, op: Operator, x: Tensor, *_: Tensor) -> None:
        self.root[op.outputs[0]] = self._in(op.inputs[0])

    def _transpose(self, op: Operator, x: Tensor, *_: Tensor) -> None:
        y = self._tensor(op)
        steps = [strides(x.shape)[axis] for axis in op.permutation]
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0])
        self.steps += moves(x.dtype, y.shape, steps, strides(y.shape), x=source, y=out)

    def _relu(self, op: Operator, x: Tensor) -> None:
        y = self._tensor(op)
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0], op.inputs)
        activation = Activation.RELU if op.kind == Kind.RELU else Activation.RELU6
        if x.dtype == np.int8:
            real = float(np.float32(_q(x).scale[0]) / np.float32(_q(y).scale[0]))  # a float32, as LiteRT has it
            self._rescale(op, _q(x), y, source, out, x.size, fixed.limits(activation, _q(y)), real)
        else:
            self._add_step(op, Code.CLAMP_F32, x=source, y=out, numbers={"a": int(activation), "b": x.size})

    _relu6 = _relu

    def _quantize(self, op: Operator, x: Tensor) -> None:
        y = self._tensor(op)
        source, out = self._in(op.inputs[0]), self._out(op.outputs[0], op.inputs)
        if x.dtype == np.int8:
            self._rescale(op, _q(x), y, source, out, x.size, (-128, 127))
            return
        scale, zero = scalar(_q(y))
        numbers = {"y_zero": zero, "a": x.size}
        self._add_step(op, Code.QUANTIZE_S8, x=source, y=out, weight=np.array([scale], np.float32), numbers=numbers)

    def _dequantize(self, op: Operator, x: Tensor) -> None:
        scale, zero = scalar(_q(x))
        numbers = {"x_zero": zero, "a": x.size}
        self._add_step(op, Code.DEQUANTIZE_S8, x=self._in(op.inputs[0]), y=self._out(op.outputs[0]),
                       weight=np.array([scale], np.float32), numbers=numbers)  # fmt: skip

    def _rescale(
        self, op: Operator, qx: Quantization, y: Tensor, source: int, out: int, size: int, clamp: tuple[int, int],
        real: float | None = None,
    ) -> None:  # fmt: skip
        """`size` values of one scale in another. `real`: the scales' ratio, if it is not what float64 says."""
        (sx, zx), (sy, zy) = scalar(qx), scalar(_q(y))
        multiplier, shift = fixed.multiplier(sx / sy if real is None else real)
        numbers = {"x_zero": zx, "y_zero": zy, "low": clamp[0], "high": clamp[1], "a": size}
        self._add_step(op, Code.RESCALE_S8, x=source, y=out, multiplier=np.array([multiplier], np.int32),
                       shift=np.array([shift], np.int8), numbers=numbers)  # fmt: skip


def _fix_dead(kind: Kind, bias: Array, sums: Array, members: dict[str, object], numbers: dict[str, int]) -> None:
    """Channels without a live weight give a constant. Their biases may be as large as 32 bits allow: they become small
    ones with a multiplier of a quarter."""
    multiplier, shift = members["multiplier"], members["shift"]
    assert isinstance(multiplier, np.ndarray)
    assert isinstance(shift, np.ndarray)
    rescale = fixed.scaled_once if kind is Kind.FULLY_CONNECTED else fixed.scaled
    for c in np.flatnonzero(sums == 0):
        stored = int(rescale(bias[c], int(multiplier[c]), int(shift[c]))) + numbers["y_zero"]
        bias[c] = 4 * (min(max(stored, numbers["low"]), numbers["high"]) - numbers["y_zero"])
        multiplier[c], shift[c] = 1 << 30, -1


class _Refused(Exception):
    """What the engine lacks for the operator at hand."""


def _q(tensor: Tensor) -> Quantization:
    if tensor.quantization is None:
        raise _Refused(f"tensor '{tensor.name}' is int8 and has no scale")
    return tensor.quantization
