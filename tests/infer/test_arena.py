"""The arena: no two buffers that are needed at once share a byte, but those that a kernel may write over its input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtiny_export.infer.arena import Life, place
from fedtiny_export.infer.overlap import lead
from fedtiny_export.infer.program import Code, Step

LIVES = st.lists(st.builds(lambda size, first, more: Life(size, first, first + more), st.integers(1, 5000),
                           st.integers(-1, 20), st.integers(0, 8)), min_size=1, max_size=25)  # fmt: skip


@given(LIVES)
def test_buffers_that_live_at_once_lie_apart(lives: list[Life]) -> None:
    offsets, size = place(lives)
    for i, (a, at) in enumerate(zip(lives, offsets, strict=True)):
        assert at % 8 == 0
        assert at + a.size <= size
        for b, other in zip(lives[:i], offsets[:i], strict=True):
            meet = a.first <= b.last and b.first <= a.last
            assert not meet or at + a.size <= other or other + b.size <= at


@given(LIVES, st.integers(0, 2000))
def test_a_result_that_may_lie_over_its_input_begins_early_enough(lives: list[Life], lead: int) -> None:
    chain = [Life(life.size, i, i + 1) for i, life in enumerate(lives)]
    leads = {(i + 1, i): min(lead, chain[i + 1].size) for i in range(len(chain) - 1)}
    offsets, size = place(chain, leads)
    for (y, x), least in leads.items():
        apart = offsets[y] >= offsets[x] + chain[x].size
        assert apart or offsets[y] + least <= offsets[x]
    assert size <= place(chain)[1]


@given(
    st.sampled_from([Code.CONV_S8, Code.DEPTHWISE_S8, Code.MAX_POOL_S8, Code.SPARSE_CONV_S8]),
    st.tuples(*[st.integers(1, 7)] * 4),
    st.tuples(*[st.integers(1, 3)] * 4),
    st.tuples(*[st.integers(0, 2)] * 2),
    st.integers(1, 3),
)
def test_no_sample_is_overwritten_before_it_is_read(
    code: Code,
    sizes: tuple[int, int, int, int],
    window: tuple[int, int, int, int],
    padding: tuple[int, int],
    half: int,
) -> None:
    """A run of the kernel in which each byte says whose it is, against what `lead` promises."""
    (xh, xw, xc, yc), (kh, kw, sh, sw), (top, left) = sizes, window, padding
    yh, yw = max(1, (xh + top - kh) // sh + 1), max(1, (xw + left - kw) // sw + 1)
    names = ("xh", "xw", "xc", "yh", "yw", "yc", "kh", "kw", "sh", "sw", "top", "left", "a")
    numbers = dict(zip(names, (xh, xw, xc, yh, yw, yc, kh, kw, sh, sw, top, left, half), strict=True))
    least = lead(Step(code=code, y=1, x=0, numbers=numbers))
    assert least is not None
    together = {Code.CONV_S8: 2, Code.SPARSE_CONV_S8: 2 * half * yw}.get(code, 1)
    memory = np.full(least + max(xh * xw * xc, yh * yw * yc) + 1, False)  # whether a result lies there
    for first in range(0, yh * yw, together):
        batch = range(first, min(first + together, yh * yw))
        for pixel in batch:
            row, col = divmod(pixel, yw)
            i, j = np.mgrid[row * sh - top : row * sh - top + kh, col * sw - left : col * sw - left + kw]
            inside = (i >= 0) & (i < xh) & (j >= 0) & (j < xw)
            begins = least + (i[inside] * xw + j[inside]) * xc
            assert not any(memory[at : at + xc].any() for at in begins)
            if together == 1:  # the last sample of the window is read when all results but one are written
                memory[pixel * yc : (pixel + 1) * yc - 1] = True
                assert not any(memory[at : at + xc].any() for at in begins)
        for pixel in batch:
            memory[pixel * yc : (pixel + 1) * yc] = True
