"""Plots of a study as SVG files that stand alone; every mark has a tooltip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fedtiny.report.charts import ticks

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 210, 34, 52
_COLOURS = ("#0b6e99", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#475569")
_DASHES = ("", "6 3", "2 3")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points (x, y) by rising x; `halves`: of an error bar at each, where there is one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    halves: Sequence[float | None] = ()


def plot(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str] = lambda x: f"{x:g}",
    log: bool = False,
    names: Sequence[str] = (),
    dots: bool = True,
) -> str:
    """Lines over numbers, or over the `names` of positions 0, 1, ...; `log`: a logarithmic x axis. y: shares of 1."""
    xs = [x for line in lines for x in line.x]
    ys = [y + sign * (half or 0.0) for line in lines for y, half in _bars(line) for sign in (-1, 1)]
    y_ticks = [tick for tick in ticks(min(ys), max(ys)) if -0.001 <= tick <= 1.001]
    low, high = min([*y_ticks, *ys]), max([*y_ticks, *ys])
    scale = math.log10 if log else float
    first, last = scale(min(xs)), scale(max(xs))
    span, bottom = WIDTH - _LEFT - _RIGHT, HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        share = (scale(x) - first) / (last - first) if last > first else 0.5
        return _LEFT + 12 + (span - 24) * share, bottom - (bottom - _TOP) * (y - low) / (high - low or 1.0)

    out = [_text(_LEFT - 40, 18, title, weight="600")]
    for tick in y_ticks:
        py = at(min(xs), tick)[1]
        out.append(f'<line x1="{_LEFT}" x2="{_LEFT + span}" y1="{py:.1f}" y2="{py:.1f}" stroke="#ddd"/>')
        out.append(_text(_LEFT - 8, py + 4, f"{100 * tick:g}", anchor="end"))
    for x, label in _x_ticks(xs, x_text, names, log=log):
        px = at(x, low)[0]
        out.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="#555"/>')
        out.append(_text(px, bottom + 19, label, anchor="middle"))
    out.append(_text(_LEFT + span / 2, HEIGHT - 10, x_label, anchor="middle"))
    out.append(
        f'<text x="16" y="{(bottom + _TOP) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 16 {(bottom + _TOP) / 2:.0f})">{escape(y_label)}</text>'
    )
    for number, line in enumerate(lines):
        out.append(_drawn(line, number, at, x_text if not names else lambda x: names[int(x)], dots=dots))
        ly = _TOP + 6 + 18 * number
        out.append(
            f'<line x1="{WIDTH - _RIGHT + 14}" x2="{WIDTH - _RIGHT + 40}" y1="{ly}" y2="{ly}" {_stroke(number)}/>'
        )
        out.append(_text(WIDTH - _RIGHT + 46, ly + 4, line.name))
    height = max(HEIGHT, _TOP + 18 * len(lines) + 20)
    style = "font-family:system-ui,sans-serif;font-size:12px;fill:#222;background:#fff"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" style="{style}" role="img" '
        f'aria-label="{escape(title)}">' + "".join(out) + "</svg>\n"
    )


def _drawn(
    line: Line,
    number: int,
    at: Callable[[float, float], tuple[float, float]],
    x_text: Callable[[float], str],
    *,
    dots: bool,
) -> str:
    path = "".join(f"{'L' if i else 'M'}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(map(at, line.x, line.y)))
    out = [f'<path d="{path}" fill="none" {_stroke(number)}><title>{escape(line.name)}</title></path>']
    colour = _COLOURS[number % len(_COLOURS)]
    for x, (y, half) in zip(line.x, _bars(line), strict=True):
        px, py = at(x, y)
        if half:
            top, end = at(x, y + half)[1], at(x, y - half)[1]
            out.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{end:.1f}" stroke="{colour}"/>')
        if dots:
            tip = f"{line.name}, {x_text(x)}: {100 * y:.1f} %" + (f" ± {100 * half:.1f}" if half else "")
            out.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"><title>{escape(tip)}</title></circle>'
            )
    return "".join(out)


def _bars(line: Line) -> list[tuple[float, float | None]]:
    return list(zip(line.y, line.halves or [None] * len(line.y), strict=True))


def _x_ticks(
    xs: Sequence[float], text: Callable[[float], str], names: Sequence[str], *, log: bool
) -> list[tuple[float, str]]:
    if names:
        return [(float(i), name) for i, name in enumerate(names)]
    distinct = sorted(set(xs))
    if len(distinct) <= 8:
        return [(x, text(x)) for x in distinct]
    if not log:
        return [(x, text(x)) for x in ticks(distinct[0], distinct[-1], 6) if distinct[0] <= x <= distinct[-1]]
    powers = range(math.floor(math.log10(distinct[0])), math.ceil(math.log10(distinct[-1])) + 1)
    marks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [x for x in marks if distinct[0] <= x <= distinct[-1]]
    return [(x, text(x)) for x in inside[:: max(1, len(inside) // 7)]]


def _stroke(number: int) -> str:
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.8"{dashed}'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
        if text
        else ""
    )
