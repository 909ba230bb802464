"""How far the result of a step may lie over its input: kernels read and write from the first pixel to the last."""

from __future__ import annotations

import numpy as np

from fedtiny_export.infer.program import Code, Step

_SAMPLE_BYTES = {
    Code.CONV_S8: 1, Code.DEPTHWISE_S8: 1, Code.AVERAGE_POOL_S8: 1, Code.MAX_POOL_S8: 1, Code.SPARSE_CONV_S8: 1,
    Code.CONV_F32: 4, Code.DEPTHWISE_F32: 4, Code.AVERAGE_POOL_F32: 4, Code.MAX_POOL_F32: 4,
}  # fmt: skip
"""Kernels over maps."""


def lead(step: Step) -> int | None:
    """Bytes by which y has to begin before x, so that what is written has been read; None where y may not touch x.

    While a pixel of y is written its own window is read. A dense int8 convolution has copied the windows of two pixels
    before it writes them, a pruned one all of a band's input before it writes the band.
    """
    size = _SAMPLE_BYTES.get(step.code)
    if size is None:
        return None
    n = step.numbers
    rows, cols = np.divmod(np.arange(n["yh"] * n["yw"]), n["yw"])
    top = np.maximum(0, rows * n["sh"] - n.get("top", 0))
    left = np.maximum(0, cols * n["sw"] - n.get("left", 0))
    begins = (top * n["xw"] + left) * n["xc"] * size  # of each pixel's window
    still_read = np.minimum.accumulate(begins[::-1])[::-1]  # by this pixel and all after it
    written = (np.arange(len(rows)) + 1) * n["yc"] * size
    together = {Code.CONV_S8: 2, Code.SPARSE_CONV_S8: 2 * n.get("a", 0) * n["yw"]}.get(step.code)
    if together is None:
        return max(0, int((written - still_read).max()))
    ends = np.arange(together, len(rows), together)  # the first pixels of all batches but the first
    return max(0, int((written[ends - 1] - still_read[ends]).max(initial=0)))
