"""The arena: no two buffers that are needed at once share a byte, but those that a kernel may write over its input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtiny_export.infer.arena import Life, place
from fedtiny_export.infer.overlap import row_lead
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
    st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3)),
)
def test_no_row_is_overwritten_before_it_is_read(
    code: Code, sizes: tuple[int, int, int], window: tuple[int, int, int, int]
) -> None:
    xh, x_row, y_row = sizes
    kh, stride, top, a = window
    yh = max(1, (xh + top - kh) // stride + 1)
    numbers = {
        "xh": xh,
        "xw": x_row,
        "xc": 1,
        "yh": yh,
        "yw": y_row,
        "yc": 1,
        "kh": kh,
        "sh": stride,
        "top": top,
        "a": a,
    }
    lead = row_lead(Step(code=code, y=1, x=0, numbers=numbers))
    assert lead is not None
    start = 1000  # of x; y begins `lead` before it
    rows = 2 * a if code is Code.SPARSE_CONV_S8 else 1
    for row in range(yh):
        # what is still read while this row is written: its own rows and those after, or those of the next band
        first = row if rows == 1 else (row // rows + 1) * rows
        if first >= yh:
            continue
        written = np.arange(start - lead + row * y_row, start - lead + (row + 1) * y_row)
        assert not np.any((written >= start + max(0, first * stride - top) * x_row) & (written < start + xh * x_row))
