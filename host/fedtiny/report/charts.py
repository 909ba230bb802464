"""Charts as inline SVG, in the colours that the page's style sheet defines; every mark has a tooltip.

All take plain numbers and return one `<svg>` string. A value of None is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 540
_LEFT, _RIGHT, _TOP = 52, 16, 30
_ROW = 26
_CHARACTER = 8.0  # advance of a 13 px label in a wide typeface; for margins

Format = Callable[[float], str]
Scale = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: `values` by position on the x axis."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """`parts`: (name, value) from the axis outwards; `text` stands at the end. A `plain` bar has no series' colour."""

    label: str
    parts: Sequence[tuple[str, float]]
    text: str
    plain: bool = False


@dataclass(frozen=True, kw_only=True)
class HeatRow:
    """`values` by column, as a share of 1; `note` stands to the right."""

    label: str
    values: Sequence[float | None]
    note: str


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose [low, high]."""
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    x: Sequence[int],
    title: str,
    x_label: str,
    y_label: str,
    text: Format,
    percent: bool = False,
    marks: Sequence[tuple[int, str]] = (),
) -> str:
    """Lines over whole numbers `x`. `marks`: positions on the x axis, with a tooltip each. `percent`: shares of 1."""
    known = [v for s in series for v in s.values if v is not None]
    y_ticks = ticks(min(known), max(known))
    if percent:
        y_ticks = [t for t in y_ticks if -1e-9 <= t <= 1 + 1e-9]
    height, bottom = 250, 214
    low, high = min(y_ticks[0], min(known)), max(y_ticks[-1], max(known))
    first, last = min(x), max(x)

    def at_x(value: float) -> float:
        span = WIDTH - _LEFT - _RIGHT
        return _LEFT + span * ((value - first) / (last - first) if last > first else 0.5)

    def at_y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    out = [_y_axis(y_ticks, at_y, y_label, percent=percent)]
    x_ticks = [t for t in ticks(first, last, 6) if first <= t <= last and t == int(t)]
    out += [_text(at_x(t), bottom + 18, f"{t:.0f}", "tick middle") for t in x_ticks]
    out.append(_text((WIDTH + _LEFT - _RIGHT) / 2, height - 2, x_label, "axis middle"))
    for position, tip in marks:
        px = at_x(position)
        out.append(f'<path class="mark" d="M{px:.1f} {bottom - 9}l-5 8h10z">{_tip(tip)}</path>')
    for number, s in enumerate(series, start=1):
        out.append(_line(s, x, at_x, at_y, number))
    out.append(_columns(series, x, at_x, bottom, text, x_label))
    return _svg(height, title, out)


def dot_chart(
    values: Sequence[float],
    *,
    chosen: int | None,
    title: str,
    x_label: str,
    y_label: str,
    text: Format,
    tips: Sequence[str],
    reference: tuple[float, str] | None = None,
) -> str:
    """A dot per value, the chosen one marked. `reference`: a named horizontal line, drawn where the values are near."""
    low, high = min(values), max(values)
    spread = max(high - low, 1e-3 * max(abs(high), 1.0))
    near = reference is not None and low - spread <= reference[0] <= high + spread
    if reference is not None and near:
        low, high = min(low, reference[0]), max(high, reference[0])
    y_ticks = ticks(low, high)
    height, bottom = 250, 214

    def at_x(i: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (i + 0.5) / len(values)

    def at_y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    out = [_y_axis(y_ticks, at_y, y_label)]
    if reference is not None and near:
        py = at_y(reference[0])
        out.append(f'<line class="reference" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        out.append(_text(WIDTH - _RIGHT, py - 5, reference[1], "tick end"))
    every = max(1, math.ceil(len(values) / 14))
    out += [_text(at_x(i), bottom + 18, str(i + 1), "tick middle") for i in range(0, len(values), every)]
    out.append(_text((WIDTH + _LEFT - _RIGHT) / 2, height - 2, x_label, "axis middle"))
    radius = 5.0 if len(values) <= 40 else 3.0
    for i, (value, tip) in enumerate(zip(values, tips, strict=True)):
        px, py = at_x(i), at_y(value)
        if i == chosen:
            out.append(f'<circle class="ring" cx="{px:.1f}" cy="{py:.1f}" r="{radius + 5}"/>')
            side, dx = ("end", -14) if px > WIDTH * 0.7 else ("start", 14)
            out.append(_text(px + dx, py + 4, f"chosen {text(value)}", f"value {side}"))
        kind = "dot1" if i == chosen else "dot0"
        out.append(f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{radius}">{_tip(tip)}</circle>')
    return _svg(height, title, out)


def bar_chart(bars: Sequence[Bar], *, title: str, text: Format) -> str:
    """Horizontal bars on one scale from 0; parts of a bar take the series' colours in turn."""
    left = max(len(b.label) for b in bars) * _CHARACTER + 10
    right = max(len(b.text) for b in bars) * _CHARACTER + 8
    longest = max((sum(v for _, v in b.parts) for b in bars), default=0.0) or 1.0
    scale = (WIDTH - left - right) / longest
    out = []
    for i, bar in enumerate(bars):
        y, at = 6 + i * _ROW, left
        out.append(_text(left - 8, y + 13, bar.label, "label end"))
        for number, (name, value) in enumerate(bar.parts, start=1):
            wide = max(value * scale, 1.0 if value > 0 else 0.0)
            tip = _tip(f"{bar.label}, {name}: {text(value)}" if name else f"{bar.label}: {text(value)}")
            shape = f'x="{at:.1f}" y="{y}" width="{wide:.1f}" height="17"'
            out.append(f'<rect class="bar{0 if bar.plain else number}" {shape}>{tip}</rect>')
            at += wide
        out.append(_text(at + 6, y + 13, bar.text, "value start"))
    return _svg(len(bars) * _ROW + 8, title, out)


def heat_map(rows: Sequence[HeatRow], *, columns: Sequence[int], title: str, x_label: str, text: Format) -> str:
    """A cell per row and column, its strength the logarithm of the value from the smallest up to 1."""
    known = [v for r in rows for v in r.values if v]
    floor = 10.0 ** math.floor(math.log10(min(known, default=0.1)) + 1e-9)
    floor = min(floor, 0.1)
    left = max(len(r.label) for r in rows) * _CHARACTER + 10
    right = max(len(r.note) for r in rows) * (_CHARACTER - 1) + 10  # figures and spaces are narrow
    wide = (WIDTH - left - right) / max(1, len(columns))
    gap = 1.0 if wide > 8 else 0.0
    cell = 20
    out = []
    for i, row in enumerate(rows):
        y = 4 + i * (cell + 2)
        out.append(_text(left - 8, y + 15, row.label, "label end"))
        for j, (column, value) in enumerate(zip(columns, row.values, strict=True)):
            if value is None:
                continue
            shape = f'x="{left + j * wide:.1f}" y="{y}" width="{max(wide - gap, 0.5):.1f}" height="{cell}"'
            tip = _tip(f"{row.label}, {x_label} {column}: {text(value)}")
            out.append(f'<rect class="heat" {shape} fill-opacity="{_strength(value, floor):.3f}">{tip}</rect>')
        out.append(_text(WIDTH - right + 8, y + 15, row.note, "value start"))
    bottom = 4 + len(rows) * (cell + 2)
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, len(columns)) if step * wide >= 28 or step > 200)
    shown = [j for j in range(len(columns)) if columns[j] % every == 0]
    out += [_text(left + (j + 0.5) * wide, bottom + 14, str(columns[j]), "tick middle") for j in shown]
    out.append(_text((left + WIDTH - right) / 2, bottom + 32, x_label, "axis middle"))
    steps = round(-math.log10(floor))
    for i in range(steps + 1):
        value = 10.0 ** (i - steps)
        px = left + i * 74
        out.append(
            f'<rect class="heat" x="{px:.0f}" y="{bottom + 46}" width="14" height="14" '
            f'fill-opacity="{_strength(value, floor):.3f}"/>'
        )
        out.append(_text(px + 20, bottom + 58, text(value), "tick start"))
    return _svg(bottom + 66, title, out)


def _strength(value: float, floor: float) -> float:
    if value <= 0:
        return 0.0
    return 0.12 + 0.88 * (1 - math.log10(max(value, floor)) / math.log10(floor))


def _line(s: Series, x: Sequence[int], at_x: Scale, at_y: Scale, number: int) -> str:
    path, pen_down = "", False
    for position, value in zip(x, s.values, strict=True):
        if value is not None:
            path += f"{'L' if pen_down else 'M'}{at_x(position):.1f} {at_y(value):.1f}"
        pen_down = value is not None
    ends = [(p, v) for p, v in zip(x, s.values, strict=True) if v is not None]
    dots = ""
    if ends:
        position, value = ends[-1]
        dots = f'<circle class="dot{number}" cx="{at_x(position):.1f}" cy="{at_y(value):.1f}" r="4"/>'
    return f'<path class="line{number}" d="{path}"/>{dots}'


def _columns(series: Sequence[Series], x: Sequence[int], at_x: Scale, bottom: float, text: Format, x_label: str) -> str:
    """Invisible columns over the whole height, so that a tooltip needs no aiming."""
    step = (at_x(x[1]) - at_x(x[0])) if len(x) > 1 else WIDTH - _LEFT - _RIGHT
    out = []
    for i, position in enumerate(x):
        values = [(s.name, s.values[i]) for s in series]
        tip = f"{x_label} {position}: " + ", ".join(f"{n} {text(v)}" for n, v in values if v is not None)
        shape = f'x="{at_x(position) - step / 2:.1f}" y="{_TOP}" width="{step:.1f}" height="{bottom - _TOP}"'
        out.append(f'<rect class="hit" {shape}>{_tip(tip)}</rect>')
    return "".join(out)


def _y_axis(values: Sequence[float], at_y: Scale, label: str, *, percent: bool = False) -> str:
    step = (values[1] - values[0]) * (100 if percent else 1) if len(values) > 1 else 1.0
    digits = next(d for d in range(9) if d == 8 or abs(step * 10**d - round(step * 10**d)) < 1e-6)
    out = []
    for value in values:
        py = at_y(value)
        shown = f"{100 * value:.{digits}f} %" if percent else f"{value:.{digits}f}"
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        out.append(_text(_LEFT - 8, py + 4, shown, "tick end"))
    out.append(_text(0, 12, label, "axis start"))
    return "".join(out)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"
