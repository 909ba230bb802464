"""How far the result of a step may lie over its input: kernels read and write from the first row to the last."""

from __future__ import annotations

from fedtiny_export.infer.program import Code, Step

_BY_ROWS = {
    Code.CONV_S8: 1, Code.DEPTHWISE_S8: 1, Code.AVERAGE_POOL_S8: 1, Code.MAX_POOL_S8: 1, Code.SPARSE_CONV_S8: 1,
    Code.CONV_F32: 4, Code.DEPTHWISE_F32: 4, Code.AVERAGE_POOL_F32: 4, Code.MAX_POOL_F32: 4,
}  # fmt: skip
"""Kernels over maps, and bytes of a sample."""


def row_lead(step: Step) -> int | None:
    """Bytes by which y has to begin before x, so that what is written has been read; None where y may not touch x.

    While a row of y is written its own rows of x are read, and none before them. A pruned convolution has read all of a
    band's input when it writes the band.
    """
    size = _BY_ROWS.get(step.code)
    if size is None:
        return None
    n = step.numbers
    x_row, y_row = (size * n[w] * n[c] for w, c in (("xw", "xc"), ("yw", "yc")))
    height, stride, top = n["yh"], n["sh"], n.get("top", 0)
    if step.code is Code.SPARSE_CONV_S8:
        written = range(2 * n["a"], height, 2 * n["a"])
        return max((0, *(row * y_row - max(0, row * stride - top) * x_row for row in written)))
    return max(0, *((row + 1) * y_row - max(0, row * stride - top) * x_row for row in range(height)))
