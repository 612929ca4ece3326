"""What a valid order is, where orders are kept, and what is counted from the start."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from aiosvc.demo.orders import (
    MAX_ITEM_LENGTH,
    USERS,
    BusinessMetrics,
    InvalidOrderError,
    NewOrder,
    OrderStore,
    Status,
    parse_order,
)

VALID = {"user_id": 1, "item": "book", "quantity": 1}
QUANTITY = "expected an integer from 1 to 1000"
ITEM = "expected a string of 1 to 200 characters that is not blank"
USER = "expected the id of a user, see /api/users"

WRONG_FIELDS = [
    ({"quantity": 0}, "quantity", f"quantity: 0 given; {QUANTITY}"),
    ({"quantity": 1001}, "quantity", f"quantity: 1001 given; {QUANTITY}"),
    ({"quantity": -1}, "quantity", f"quantity: -1 given; {QUANTITY}"),
    ({"quantity": True}, "quantity", f"quantity: true given; {QUANTITY}"),
    ({"quantity": 1.0}, "quantity", f"quantity: 1.0 given; {QUANTITY}"),
    ({"quantity": "1"}, "quantity", f'quantity: "1" given; {QUANTITY}'),
    ({"quantity": None}, "quantity", f"quantity: null given; {QUANTITY}"),
    ({"quantity": [1]}, "quantity", f"quantity: an array given; {QUANTITY}"),
    ({"quantity": float("nan")}, "quantity", f"quantity: NaN given; {QUANTITY}"),
    ({"quantity": 10**100}, "quantity", f"quantity: 1{'0' * 59}... given; {QUANTITY}"),
    ({"item": ""}, "item", f'item: "" given; {ITEM}'),
    ({"item": " \t"}, "item", f'item: " \\t" given; {ITEM}'),
    ({"item": 7}, "item", f"item: 7 given; {ITEM}"),
    ({"item": {}}, "item", f"item: an object given; {ITEM}"),
    ({"item": "x" * 201}, "item", f'item: "{"x" * 59}... given; {ITEM}, not 201'),
    ({"user_id": 999}, "user_id", f"user_id: 999 given; {USER}"),
    ({"user_id": True}, "user_id", f"user_id: true given; {USER}"),
    ({"user_id": "1"}, "user_id", f'user_id: "1" given; {USER}'),
    ({"user_id": []}, "user_id", f"user_id: an array given; {USER}"),
]


def body(**changes: object) -> bytes:
    """Return a valid order with some fields changed."""
    return json.dumps({**VALID, **changes}).encode()


def test_valid_order() -> None:
    """A complete order is returned as it was sent."""
    assert parse_order(body()) == NewOrder(user_id=1, item="book", quantity=1)


@pytest.mark.parametrize(
    "changes",
    [{"quantity": 1000}, {"item": "x" * MAX_ITEM_LENGTH}, {"user_id": max(USERS)}],
)
def test_limits_are_allowed(changes: dict[str, object]) -> None:
    """The largest quantity, longest item and last user are valid."""
    assert parse_order(body(**changes))._asdict() == {**VALID, **changes}


def test_unknown_field_is_ignored() -> None:
    """A field that nobody asked for changes nothing."""
    assert parse_order(body(gift=True)) == NewOrder(1, "book", 1)


@pytest.mark.parametrize(("changes", "field", "message"), WRONG_FIELDS)
def test_wrong_field(changes: dict[str, object], field: str, message: str) -> None:
    """A wrong field is named with what was given and what is expected."""
    with pytest.raises(InvalidOrderError) as caught:
        parse_order(body(**changes))
    assert (caught.value.field, str(caught.value)) == (field, message)


@pytest.mark.parametrize("field", ["user_id", "item", "quantity"])
def test_missing_field(field: str) -> None:
    """A missing field is named as missing."""
    data = {name: value for name, value in VALID.items() if name != field}
    with pytest.raises(InvalidOrderError, match=rf"^{field}: missing; expected ") as caught:
        parse_order(json.dumps(data).encode())
    assert caught.value.field == field


def test_first_wrong_field_is_named() -> None:
    """Of several wrong fields the first in the documented order is named."""
    with pytest.raises(InvalidOrderError) as caught:
        parse_order(b'{"quantity": 0, "item": "", "user_id": 0}')
    assert caught.value.field == "user_id"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "body: not valid JSON"),
        (b"{", "body: not valid JSON"),
        (b"\xff\xfe\xfd", "body: not valid JSON"),
        (b"[" * 60_000, "body: not valid JSON"),
        (b'{"quantity": ' + b"9" * 5000 + b"}", "body: not valid JSON"),
        (b"[]", "body: an array given; expected a JSON object"),
        (b"null", "body: null given; expected a JSON object"),
        (b'"book"', 'body: "book" given; expected a JSON object'),
    ],
)
def test_body_that_is_no_object(raw: bytes, message: str) -> None:
    """A body that is no JSON object is refused as a whole, without naming a field."""
    with pytest.raises(InvalidOrderError) as caught:
        parse_order(raw)
    assert caught.value.field is None
    assert str(caught.value).startswith(message)


TEXT = st.text("ab \t\x00é\u2028\ud800", max_size=300)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(st.binary() | st.fixed_dictionaries(dict.fromkeys(VALID, JSON)).map(json.dumps))
def test_anything_is_an_order_or_an_error(raw: bytes | str) -> None:
    """Whatever is sent, the outcome is a valid order or InvalidOrderError."""
    try:
        order = parse_order(raw.encode() if isinstance(raw, str) else raw)
    except InvalidOrderError:
        return
    assert order.user_id in USERS
    assert 1 <= order.quantity <= 1000
    assert 1 <= len(order.item) <= MAX_ITEM_LENGTH


def test_store_numbers_from_one_and_finds() -> None:
    """Stored orders get the ids 1, 2, 3... and are found by them."""
    store = OrderStore(capacity=10)
    for _ in range(3):
        store.add(store.draft(NewOrder(1, "book", 1)))
    second = store.get(2)
    assert second is not None
    assert second.as_json() == {
        "id": 2,
        "user_id": 1,
        "item": "book",
        "quantity": 1,
        "status": Status.ACCEPTED,
        "attempts": 0,
    }
    assert store.get(4) is None


def test_draft_that_is_not_added_leaves_no_trace() -> None:
    """A drafted order that is given up is not stored and uses up no id."""
    store = OrderStore(capacity=10)
    store.draft(NewOrder(1, "book", 1))
    assert len(store) == 0
    assert store.draft(NewOrder(1, "lamp", 1)).id == 1


def test_store_is_bounded() -> None:
    """Past its capacity the store forgets the oldest order."""
    store = OrderStore(capacity=2)
    for _ in range(5):
        store.add(store.draft(NewOrder(1, "book", 1)))
    assert len(store) == 2
    assert [store.get(i) is not None for i in range(1, 6)] == [False, False, False, True, True]


def test_metrics_start_at_zero() -> None:
    """Every counter, and every reason for a refusal, is exported as 0 from the start."""
    registry = CollectorRegistry()
    BusinessMetrics.of(registry)
    text = generate_latest(registry).decode()
    for series in [
        "orders_accepted_total",
        'orders_rejected_total{reason="queue_full"}',
        'orders_rejected_total{reason="invalid"}',
        'orders_rejected_total{reason="stopping"}',
        "emails_sent_total",
        "emails_failed_total",
        "emails_retried_total",
        "email_send_seconds_count",
    ]:
        assert f"\n{series} 0.0\n" in text


def test_one_set_of_metrics_per_registry() -> None:
    """Asking twice for one registry gives the same metrics, another registry gets its own."""
    registry = CollectorRegistry()
    metrics = BusinessMetrics.of(registry)
    assert BusinessMetrics.of(registry) is metrics
    assert BusinessMetrics.of(CollectorRegistry()) is not metrics
