"""Means, t intervals and paired t tests; what a table of a few seeds needs, without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mean:
    """`half`: half of the 95 % confidence interval of the mean (Student's t); None for fewer than two values."""

    mean: float
    half: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Mean difference over pairs, its interval, and the two-sided p of a paired t test (None for fewer than two)."""

    difference: float
    half: float | None
    p: float | None
    count: int


def mean_of(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Mean(mean=mean, half=None, count=n)
    return Mean(mean=mean, half=t_quantile(0.5 + confidence / 2, n - 1) * _error(values, mean), count=n)


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """a - b, pair by pair; at least one."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    found, n = mean_of(differences), len(differences)
    if n < 2:
        return Paired(difference=found.mean, half=None, p=None, count=n)
    error = _error(differences, found.mean)
    if error == 0.0:
        p = 1.0 if found.mean == 0.0 else 0.0
    else:
        p = 2.0 * (1.0 - t_distribution(abs(found.mean) / error, n - 1))
    return Paired(difference=found.mean, half=found.half, p=p, count=n)


def t_distribution(t: float, degrees: int) -> float:
    """P(T <= t) of Student's t with so many degrees of freedom."""
    tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return 1.0 - tail if t >= 0 else tail


def t_quantile(p: float, degrees: int) -> float:
    """The t with P(T <= t) = p, 0.5 <= p < 1."""
    low, high = 0.0, 1.0
    while t_distribution(high, degrees) < p:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_distribution(middle, degrees) < p else (low, middle)
    return (low + high) / 2


def _error(values: Sequence[float], mean: float) -> float:
    """Standard error of the mean."""
    n = len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b): the continued fraction of DLMF 8.17.22, on the side where it converges quickly."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    fraction, c, d = 1.0, 1.0, 0.0
    for i in range(400):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_0(1.0 + term * d)
        c = _away_from_0(1.0 + term / c)
        fraction *= c * d
        if i and abs(1.0 - c * d) < 1e-15:
            break
    return front * (fraction - 1.0)


def _away_from_0(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
