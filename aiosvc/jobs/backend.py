"""
What a broker has to do for a job queue: take messages, hand them out, and keep those in hand.

Rule: a message is the broker's until it is settled; whoever holds it and dies has not settled it,
and it is handed out again.
"""

from collections.abc import Sequence
from typing import Protocol

from aiosvc.brokers import QueueState
from aiosvc.jobs.message import Message

__all__ = ["Backend", "Delivery"]


class Delivery(Protocol):
    """One message in hand."""

    @property
    def data(self) -> bytes:
        """The message as it was sent."""

    @property
    def number(self) -> int:
        """How often the message was handed out, this time included; from 1."""

    async def done(self) -> None:
        """Settle it: the broker forgets it."""

    async def dead(self, reason: str) -> None:
        """Put it aside with the dead letters, *reason* being one short line, and settle it."""

    async def keep(self) -> None:
        """Tell the broker that it is still worked on."""

    async def give_back(self) -> None:
        """Have it handed out again, to anybody and soon, where the broker can do that."""


class Backend(Protocol):
    """
    One queue of a broker.

    `name` is what `queue_info` calls it, and `keep_every` how many seconds a message in hand may go
    without a `keep`, None for ever.
    """

    name: str
    keep_every: float | None

    async def start(self, *, worker: bool) -> None:
        """Connect, and make the queue where it is missing; a *worker* takes messages too."""

    async def stop(self) -> None:
        """Disconnect; what is in hand is handed out again."""

    async def send(self, message: Message, data: bytes) -> None:
        """
        Put a message in, whose bytes are *data*; it is in when this returns.

        Raises what the client library raises.
        """

    async def take(self, room: int) -> Sequence[Delivery]:
        """
        Return messages, *room* at most; none where there was none for a second or so.

        Raises whatever the client library raises where the broker can't be asked.
        """

    async def sample(self) -> QueueState:
        """Return how the queue is now; raises whatever the client library raises."""
