"""Since when items are ready: in order, by identity, and when the queue was changed behind us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.queues.stamps import IdentityStamps, OrderedStamps


def test_first_in_first_out() -> None:
    """The oldest stamp is the one that is taken next."""
    stamps = OrderedStamps(lifo=False)
    for at in (1.0, 2.0, 3.0):
        stamps.append(at)
    assert (stamps.oldest(), stamps.take(), stamps.oldest(), len(stamps)) == (1.0, 1.0, 2.0, 2)


def test_last_in_first_out() -> None:
    """The oldest stamp is the one that is taken last."""
    stamps = OrderedStamps(lifo=True)
    for at in (1.0, 2.0, 3.0):
        stamps.append(at)
    assert (stamps.oldest(), stamps.take(), stamps.oldest(), len(stamps)) == (1.0, 3.0, 1.0, 2)


@pytest.mark.parametrize("lifo", [False, True])
def test_items_from_before(lifo: bool) -> None:
    """What was there already has no stamp, and is as old as the first look."""
    stamps = OrderedStamps(lifo=lifo)
    stamps.restart(2, 10.0)
    stamps.append(11.0)
    assert stamps.oldest() == 10.0
    taken = [stamps.take() for _ in range(3)]
    assert taken == ([11.0, None, None] if lifo else [None, None, 11.0])
    assert stamps.oldest() is None


def test_same_object_twice() -> None:
    """An object that is there twice has two stamps, and gives the older one first."""
    stamps, item = IdentityStamps(), object()
    stamps.add(item, 1.0)
    stamps.add(item, 2.0)
    assert stamps.take(item) == 1.0
    stamps.add(item, 3.0)
    assert (len(stamps), stamps.oldest()) == (2, 2.0)
    assert [stamps.take(item), stamps.take(item), stamps.take(item)] == [2.0, 3.0, None]
    assert len(stamps) == 0


def test_unknown_items_by_identity() -> None:
    """Items from before are told by having no stamp, and are the oldest until all have left."""
    stamps, known = IdentityStamps(), object()
    stamps.restart(2, 10.0)
    stamps.add(known, 11.0)
    assert (len(stamps), stamps.oldest()) == (3, 10.0)
    assert [stamps.take(object()), stamps.take(object())] == [None, None]
    assert (len(stamps), stamps.oldest()) == (1, 11.0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4))))
def test_identity_stamps_are_a_multiset(steps: list[tuple[bool, int]]) -> None:
    """Whatever comes and goes in whatever order, each object gives back its own oldest stamp."""
    objects = [object() for _ in range(5)]
    stamps, model = IdentityStamps(), list[tuple[int, float]]()
    for now, (adds, which) in enumerate(steps, start=1):
        if adds:
            stamps.add(objects[which], float(now))
            model.append((which, float(now)))
        else:
            expected = min((at for each, at in model if each == which), default=None)
            assert stamps.take(objects[which]) == expected
            if expected is not None:
                model.remove((which, expected))
        assert len(stamps) == len(model)
        assert stamps.oldest() == min((at for _, at in model), default=None)
