"""Quantiles of a window are within their error of the true ones, whatever is put in."""

import math
import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.sketch import DECADES, Mapping, WindowSketch

ONE_PERCENT = Mapping(0.01)
QUANTILES = (0.0, 0.25, 0.5, 0.9, 0.99, 1.0)

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e-308, 5e-324, sys.float_info.max, -sys.float_info.max]),
    st.floats(0.001, 10),
)


def true_quantile(values: list[float], q: float) -> float:
    """Return the value of that rank."""
    return sorted(values)[math.floor(q * (len(values) - 1))]


def is_within(found: float, true: float, error: float) -> bool:
    """Whether *found* is wrong by *error* of *true* at most, rounding and subnormals aside."""
    return abs(found - true) <= abs(true) * (error + 1e-9) + sys.float_info.min


@given(st.lists(finite, min_size=1, max_size=60), st.sampled_from([0.001, 0.01, 0.05, 0.25]))
def test_each_quantile_is_within_the_error(values: list[float], error: float) -> None:
    """Negative, zero, tiny and huge values are all answered within the relative error."""
    window = WindowSketch(Mapping(error), 10.0, 5)
    # Values that are fewer than the limit are never taken together.
    for value in values[: Mapping(error).limit]:
        window.add(value, 0.0)
    found = window.quantiles(QUANTILES)
    assert found is not None
    for q, answer in zip(QUANTILES, found, strict=True):
        assert is_within(answer, true_quantile(values[: Mapping(error).limit], q), error)


def test_large_samples_of_several_distributions() -> None:
    """Twenty thousand values of any shape are answered within one percent."""
    rng = random.Random(7)
    draws: list[Callable[[], float]] = [
        lambda: rng.lognormvariate(-3, 1.5),
        lambda: rng.gauss(0, 100),
        lambda: rng.paretovariate(0.7),
        lambda: rng.choice([0.0, 1.0, 1.0, 5000.0]),
    ]
    for draw in draws:
        values = [draw() for _ in range(20_000)]
        window = WindowSketch(ONE_PERCENT, 10.0, 5)
        for value in values:
            window.add(value, 3.0)
        found = window.quantiles(QUANTILES)
        assert found is not None
        for q, answer in zip(QUANTILES, found, strict=True):
            assert is_within(answer, true_quantile(values, q), 0.01)


@given(
    st.lists(st.tuples(st.floats(0, 8), st.floats(0.001, 1000)), min_size=1, max_size=80),
    st.floats(0, 200),
)
def test_the_window_is_what_a_list_would_keep(
    steps: list[tuple[float, float]], wait: float
) -> None:
    """After any sequence the window holds just the values of its last spans."""
    window = WindowSketch(ONE_PERCENT, 10.0, 5)
    kept: list[tuple[int, float]] = []
    now = 1000.0
    for pause, value in steps:
        now += pause
        window.add(value, now)
        kept.append((math.floor(now / 10), value))
    now += wait
    window.advance(now)
    inside = [value for span, value in kept if span > math.floor(now / 10) - 5]
    assert window.size == len(inside)
    found = window.quantiles(QUANTILES)
    if not inside:
        assert found is None
        return
    assert found is not None
    for q, answer in zip(QUANTILES, found, strict=True):
        assert is_within(answer, true_quantile(inside, q), 0.01)


def test_a_clock_that_goes_back_counts_as_now() -> None:
    """A value from before the current span is not lost."""
    window = WindowSketch(ONE_PERCENT, 10.0, 2)
    window.add(1.0, 105.0)
    window.add(1.0, 50.0)
    window.advance(119.0)
    assert window.size == 2
    window.advance(120.0)
    assert window.size == 0


def test_memory_is_bounded_and_high_quantiles_stay_right() -> None:
    """Values over the whole range of doubles fill no more than the limit; the large ones stay."""
    rng = random.Random(3)
    window = WindowSketch(ONE_PERCENT, 10.0, 5)
    values = [math.exp(rng.uniform(-700, 700)) * rng.choice([1, 1, 1, -1]) for _ in range(20_000)]
    for place, value in enumerate(values):
        window.add(value, place / 1000)
        assert len(window._seen) <= ONE_PERCENT.limit
    found = window.quantiles((0.0, 0.99, 1.0))
    assert found is not None
    for q, answer in zip((0.0, 0.99, 1.0), found, strict=True):
        assert is_within(answer, true_quantile(values, q), 0.01)
    for number in range(20, 100, 10):
        window.advance(number)
        assert window.size == sum(sum(each.values()) for each in window._slices)
        assert sum(window._seen.values()) == window.size
    assert window.size == 0


def test_twelve_decades_are_kept_apart() -> None:
    """As long as values span less than the promised range, none are taken together."""
    window = WindowSketch(ONE_PERCENT, 10.0, 5)
    values = [10 ** (each / 100) for each in range(-300, 100 * (DECADES - 3))]
    for value in values:
        window.add(value, 0.0)
    found = window.quantiles((0.0, 0.01))
    assert found is not None
    assert is_within(found[0], values[0], 0.01)
    assert is_within(found[1], true_quantile(values, 0.01), 0.01)


def test_infinity_is_refused_before_anything_changes() -> None:
    """Only finite values have a bucket."""
    window = WindowSketch(ONE_PERCENT, 10.0, 5)
    for value in (math.inf, -math.inf):
        with pytest.raises(OverflowError):
            window.add(value, 0.0)
    assert window.size == 0
