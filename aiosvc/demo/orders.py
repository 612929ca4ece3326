"""
The demo's domain: who may order, what a valid order is, where orders are kept, what is counted.

Rule: no HTTP, no event loop and no clock in here: bytes and values in, values and errors out.

What a client sends is checked field by field, in the order user_id, item, quantity, and the first
wrong one is named. Fields that nobody asked for are ignored, so that a newer client can talk to an
older service.
"""

import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = [
    "MAX_ITEM_LENGTH",
    "MAX_QUANTITY",
    "USERS",
    "BusinessMetrics",
    "InvalidOrderError",
    "NewOrder",
    "Order",
    "OrderStore",
    "Rejection",
    "Status",
    "User",
    "parse_order",
]

MAX_QUANTITY = 1000
MAX_ITEM_LENGTH = 200
_SHOWN = 60  # characters of a wrong value that an error message repeats


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may order, and where the confirmation goes."""

    id: int
    name: str
    email: str


USERS = {
    number: User(id=number, name=name, email=f"{name.lower()}@example.com")
    for number, name in enumerate(
        ["Ada", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Katherine"], start=1
    )
}


class Status(StrEnum):
    """
    Where an order's confirmation is; SENT and FAILED are final.

    QUEUED is one that a shared queue has: another process may have sent it since.
    """

    ACCEPTED = "accepted"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


class NewOrder(NamedTuple):
    """What a client asks for, checked."""

    user_id: int
    item: str
    quantity: int


@dataclass(slots=True, eq=False)
class Order:
    """One accepted order; its e-mail worker alone changes `status` and `attempts`."""

    id: int
    user_id: int
    item: str
    quantity: int
    status: Status = Status.ACCEPTED
    attempts: int = 0

    def as_json(self) -> dict[str, object]:
        """Return the order as clients see it."""
        return asdict(self)


class InvalidOrderError(ValueError):
    """Raised for a body that is no order; `field` names the wrong one, None means the whole."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def parse_order(body: bytes) -> NewOrder:
    """
    Return the order that the body of a request describes.

    Raises InvalidOrderError: without a field when the body is not a JSON object, else with the
    first field that is missing or wrong, saying what was given and what is expected.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidOrderError(f"body: not valid JSON ({exc}); expected a JSON object") from exc
    if not isinstance(data, dict):
        raise InvalidOrderError(f"body: {_shown(data)} given; expected a JSON object")
    return NewOrder(_user_id(data), _item(data), _quantity(data))


def _user_id(data: dict[str, object]) -> int:
    value = data.get("user_id")
    if type(value) is int and value in USERS:  # type(), because to isinstance() true is an int
        return value
    raise _wrong(data, "user_id", "the id of a user, see /api/users")


def _item(data: dict[str, object]) -> str:
    value = data.get("item")
    if isinstance(value, str) and value.strip() and len(value) <= MAX_ITEM_LENGTH:
        return value
    expected = f"a string of 1 to {MAX_ITEM_LENGTH} characters that is not blank"
    if isinstance(value, str) and value.strip():
        expected += f", not {len(value)}"
    raise _wrong(data, "item", expected)


def _quantity(data: dict[str, object]) -> int:
    value = data.get("quantity")
    if type(value) is int and 1 <= value <= MAX_QUANTITY:
        return value
    raise _wrong(data, "quantity", f"an integer from 1 to {MAX_QUANTITY}")


def _wrong(data: dict[str, object], field: str, expected: str) -> InvalidOrderError:
    given = f"{_shown(data[field])} given" if field in data else "missing"
    return InvalidOrderError(f"{field}: {given}; expected {expected}", field)


def _shown(value: object) -> str:
    """Return a JSON value as the client wrote it, short; containers only by kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class OrderStore:
    """The last `capacity` orders by id; an older one is forgotten, whatever its status."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._orders: OrderedDict[int, Order] = OrderedDict()
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._orders)

    def draft(self, new: NewOrder, order_id: int | None = None) -> Order:
        """
        Return the order that `add` would store next; nothing is stored and no id is used up.

        Its id is *order_id*, or else the next one.
        """
        return Order(self._last_id + 1 if order_id is None else order_id, *new)

    def add(self, order: Order) -> None:
        """Store a drafted order."""
        self._last_id = order.id
        self._orders[order.id] = order
        if len(self._orders) > self._capacity:
            self._orders.popitem(last=False)

    def remove(self, order: Order) -> None:
        """Forget an order."""
        self._orders.pop(order.id, None)

    def get(self, order_id: int) -> Order | None:
        """Return the order, or None for an id never given out or forgotten since."""
        return self._orders.get(order_id)


class Rejection(StrEnum):
    """Why an order was refused: the values of the label `reason`."""

    QUEUE_FULL = "queue_full"
    QUEUE_DOWN = "queue_down"
    INVALID = "invalid"
    STOPPING = "stopping"


class BusinessMetrics:
    """What the shop counts, beside the technical metrics; make it with `of`."""

    _made: ClassVar[WeakKeyDictionary[CollectorRegistry, "BusinessMetrics"]] = WeakKeyDictionary()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter("orders_accepted_total", "Orders accepted.", registry=registry)
        self.rejected = Counter(
            "orders_rejected_total", "Orders refused, by reason.", ["reason"], registry=registry
        )
        for reason in Rejection:
            self.rejected.labels(reason)  # every known reason is exported as 0 from the start
        self.sent = Counter("emails_sent_total", "Confirmations sent.", registry=registry)
        self.failed = Counter(
            "emails_failed_total", "Confirmations given up on.", registry=registry
        )
        self.retried = Counter(
            "emails_retried_total", "Failed attempts that are to be repeated.", registry=registry
        )
        self.send_seconds = Histogram(
            "email_send_seconds",
            "Time that one attempt to send took, failed ones too.",
            registry=registry,
        )

    @classmethod
    def of(cls, registry: CollectorRegistry) -> "BusinessMetrics":
        """Return the registry's one set of metrics, registered on first use: apps share it."""
        if registry not in cls._made:
            cls._made[registry] = cls(registry)
        return cls._made[registry]
