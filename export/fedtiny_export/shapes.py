"""Shapes of operators: which inputs and parameters fit an operator and what comes out."""

from __future__ import annotations

from collections.abc import Sequence

from fedtiny_export.graph import Op, OpKind, Param, Role

Shape = tuple[int, int, int]

ROLES: dict[OpKind, tuple[Role, ...]] = {
    OpKind.CONV2D: (Role.WEIGHT, Role.BIAS),
    OpKind.LINEAR: (Role.WEIGHT, Role.BIAS),
    OpKind.BATCHNORM: (Role.GAMMA, Role.BETA, Role.MEAN, Role.VAR),
    OpKind.GROUPNORM: (Role.GAMMA, Role.BETA),
}
"""Parameters of an operator in order; only the bias may be missing."""

POOLS = (OpKind.MAXPOOL, OpKind.AVGPOOL)
NORMS = (OpKind.BATCHNORM, OpKind.GROUPNORM)
WINDOWED = (OpKind.CONV2D, *POOLS)


def output_shape(op: Op, inputs: Sequence[Shape], params: Sequence[Param]) -> Shape:
    """Shape of one sample of `op`'s output. Raises ValueError where something does not fit."""
    _check_fields(op)
    _check_roles(op, params)
    expected = 2 if op.kind is OpKind.ADD else 1
    if len(inputs) != expected:
        raise ValueError(f"has {len(inputs)} inputs instead of {expected}")
    c, h, w = inputs[0]
    match op.kind:
        case OpKind.CONV2D:
            return _conv(op, inputs[0], params)
        case OpKind.LINEAR:
            return _linear(inputs[0], params)
        case OpKind.MAXPOOL | OpKind.AVGPOOL:
            return _pool(op, inputs[0])
        case OpKind.FLATTEN:
            return (c * h * w, 1, 1)
        case OpKind.ADD:
            if inputs[0] != inputs[1]:
                raise ValueError(f"adds the shapes {inputs[0]} and {inputs[1]}; they must be equal")
        case OpKind.BATCHNORM | OpKind.GROUPNORM:
            _same_length(params, c)
            if op.kind is OpKind.GROUPNORM and (op.groups < 1 or c % op.groups):
                raise ValueError(f"splits {c} channels into {op.groups} groups")
        case _:
            pass
    return inputs[0]


def padded_size(size: int, before: int, after: int, kernel: int, stride: int) -> int:
    """Output size of a window along one axis."""
    room = size + before + after - kernel
    if room < 0:
        raise ValueError(f"has a kernel of {kernel} over {size + before + after} padded elements")
    return room // stride + 1


def _window(op: Op, h: int, w: int) -> tuple[int, int]:
    top, left, bottom, right = op.padding
    return (
        padded_size(h, top, bottom, op.kernel[0], op.stride[0]),
        padded_size(w, left, right, op.kernel[1], op.stride[1]),
    )


def _conv(op: Op, shape: Shape, params: Sequence[Param]) -> Shape:
    c, h, w = shape
    weight = params[0].shape
    if len(weight) != 4:
        raise ValueError(f"has a weight of {len(weight)} dimensions instead of 4")
    if op.groups < 1 or c % op.groups or weight[0] % op.groups:
        raise ValueError(f"splits {c} input and {weight[0]} output channels into {op.groups} groups")
    if weight[1] != c // op.groups or weight[2:] != op.kernel:
        raise ValueError(f"has the weight {weight} for {c} channels, {op.groups} groups and the kernel {op.kernel}")
    _same_length(params[1:], weight[0])
    return (weight[0], *_window(op, h, w))


def _linear(shape: Shape, params: Sequence[Param]) -> Shape:
    weight = params[0].shape
    if shape[1:] != (1, 1):
        raise ValueError(f"reads a map of the shape {shape}; flatten it first")
    if len(weight) != 2 or weight[1] != shape[0]:
        raise ValueError(f"has the weight {weight} for {shape[0]} features")
    _same_length(params[1:], weight[0])
    return (weight[0], 1, 1)


def _pool(op: Op, shape: Shape) -> Shape:
    c, h, w = shape
    top, left, bottom, right = op.padding
    if max(top, bottom) >= op.kernel[0] or max(left, right) >= op.kernel[1]:
        raise ValueError(f"has padding {op.padding} as large as its kernel {op.kernel}: a window would see nothing")
    return (c, *_window(op, h, w))


def _same_length(params: Sequence[Param], length: int) -> None:
    for param in params:
        if param.shape != (length,):
            raise ValueError(f"has {param.name} of the shape {param.shape} instead of ({length},)")


def _check_roles(op: Op, params: Sequence[Param]) -> None:
    allowed = ROLES.get(op.kind, ())
    needed = allowed[:1] if op.kind in (OpKind.CONV2D, OpKind.LINEAR) else allowed
    roles = tuple(p.role for p in params)
    if roles not in (allowed, needed):
        raise ValueError(f"has parameters in the roles {[r.name.lower() for r in roles]}")


def _check_fields(op: Op) -> None:
    """Fields that do not concern an operator hold their defaults, so that equal graphs have equal hashes."""
    if min(*op.kernel, *op.stride) < 1 or min(op.padding) < 0:
        raise ValueError(f"has the kernel {op.kernel}, stride {op.stride} and padding {op.padding}")
    if op.kind not in WINDOWED and (op.kernel, op.stride, op.padding) != ((1, 1), (1, 1), (0, 0, 0, 0)):
        raise ValueError("has a window, which its kind does not take")
    if op.kind not in (OpKind.CONV2D, OpKind.GROUPNORM) and op.groups != 1:
        raise ValueError(f"has {op.groups} groups, which its kind does not take")
    standardises = op.kind is OpKind.CONV2D and op.eps != 0.0
    if not (0.0 < op.eps <= 1.0 if op.kind in NORMS or standardises else op.eps == 0.0):
        raise ValueError(
            f"has the epsilon {op.eps:g}; of a norm or of a standardised weight it lies in (0, 1], elsewhere it is 0"
        )
    if op.count_include_pad and op.kind is not OpKind.AVGPOOL:
        raise ValueError("counts padding, which only an average pool does")
