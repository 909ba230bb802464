"""Figures as people read them; None, or what is no finite number, is a dash."""

from __future__ import annotations

import math
from typing import Any

DASH = "–"


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def size(value: Any) -> str:
    """Bytes in powers of 1000: 1.2 MB."""
    count = number(value)
    if count is None:
        return DASH
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count:.0f} GB"


def percent(value: Any) -> str:
    """A share with three digits: 83.6 %, 5 %, 0.34 %."""
    share = number(value)
    if share is None:
        return DASH
    return f"{100 * share:.3g} %"


def accuracy(value: Any) -> str:
    share = number(value)
    return DASH if share is None else f"{100 * share:.1f} %"


def decimal(value: Any) -> str:
    """Four digits at most."""
    found = number(value)
    return DASH if found is None else f"{found:.4g}"


def whole(value: Any) -> str:
    found = number(value)
    return DASH if found is None else f"{found:,.0f}"


def seconds(value: Any) -> str:
    """0.84 s, 12.3 s, 3 min 20 s, 1 h 04 min."""
    found = number(value)
    if found is None:
        return DASH
    if found < 60:
        return f"{found:.3g} s"
    if found < 3600:
        return f"{int(found) // 60} min {int(found) % 60:02d} s"
    return f"{int(found) // 3600} h {int(found) // 60 % 60:02d} min"


def times_fewer(part: Any, whole_: Any) -> str:
    """How many times less `part` is than `whole_`: 6.3×."""
    a, b = number(part), number(whole_)
    return f"{b / a:.3g}×" if a and b else DASH


def shortened(text: str, most: int = 60) -> str:
    """Its beginning, where it is too long for a table."""
    return text if len(text) <= most else text[: most - 1] + "…"
