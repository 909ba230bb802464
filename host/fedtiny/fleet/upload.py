"""Values as they go up from a node: the rounding of every fleet."""

from __future__ import annotations

import numpy as np

from fedtiny.federation.tasks import F32, Upload

F16_LARGEST = 65504.0


def uploaded(values: F32, upload: Upload) -> F32:
    """What the server gets: with f16 rounded to nearest even, a finite float that does not fit to the largest half."""
    if upload == "f32":
        return values
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16).astype(np.float32)
    too_large = np.isinf(halves) & np.isfinite(values)
    return np.where(too_large, np.copysign(np.float32(F16_LARGEST), values), halves)
