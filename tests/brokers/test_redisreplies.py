"""Replies of Redis, in one form."""

import pytest

from aiosvc.brokers import redisreplies


@pytest.mark.parametrize(
    "reply", [[b"a", 1, b"b", None], ["a", 1, "b", None], {b"a": 1, "b": None}]
)
def test_a_map_is_a_dict(reply: object) -> None:
    """RESP2 gives a flat list, RESP3 a map, and a client may decode."""
    assert redisreplies.pairs(reply) == {"a": 1, "b": None}


@pytest.mark.parametrize("reply", [[b"a", b"1.5", b"b", b"2"], [["a", 1.5], ["b", 2.0]]])
def test_scores_are_numbers(reply: object) -> None:
    """RESP2 gives members and scores as strings in one list, RESP3 in pairs."""
    assert redisreplies.scored(reply) == [("a", 1.5), ("b", 2.0)]
    assert redisreplies.scored([]) == redisreplies.scored(None) == []


@pytest.mark.parametrize(("after", "next_one"), [("5-0", "5-1"), ("5-9", "5-10"), ("0-0", "0-1")])
def test_the_next_identity_is_one_more(after: str, next_one: str) -> None:
    """A range that begins after an entry needs no syntax that old servers do not know."""
    assert redisreplies.following(after) == next_one


@pytest.mark.parametrize(
    ("value", "units", "moment"),
    [
        (b"1795371704692", 1000.0, 1795371704.692),
        ("1795371704.5", 1.0, 1795371704.5),
        (b"2026-11-22T18:21:44.500000Z", 1.0, 1795371704.5),
        ("2026-11-22T18:21:44.500000", 1.0, 1795371704.5),
        (1795371704692, 1000.0, 1795371704.692),
        (None, 1.0, None),
        (b"7", 1.0, None),
        (0, 1.0, None),
        ("yesterday", 1.0, None),
        ("nan", 1.0, None),
    ],
)
def test_a_time_is_unix_seconds_or_unknown(
    value: object, units: float, moment: float | None
) -> None:
    """Numbers in any unit and ISO 8601 are times; what is no time of our days is unknown."""
    assert redisreplies.time_of(value, units) == moment


def test_the_time_of_an_entry_is_in_its_identity() -> None:
    """An identity that a producer chose itself, like 1-1, is no time."""
    assert redisreplies.entry_time("1795371704692-3") == 1795371704.692
    assert redisreplies.entry_time("1-1") is None


@pytest.mark.parametrize("value", [None, b"", b"[1]", b"\xff", "{", b"{" + b" " * 70_000 + b"}", 7])
def test_what_is_no_document_is_empty(value: object) -> None:
    """A message may be pickled, encrypted or huge; nothing is known of it then."""
    assert redisreplies.document(value) == {}
    assert redisreplies.document(b'{"a": 1}') == {"a": 1}
