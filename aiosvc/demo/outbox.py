"""
What was sent, one line of JSON for each e-mail, in a file that outlives whoever wrote it.

Rule: a line is written at once and as a whole, so that several processes may share the file and a
crash of one leaves no half of a line.
"""

import json
import os
import time
from random import Random

from aiosvc.demo.email import SimulatedTransport, Transport
from aiosvc.demo.options import DemoOptions
from aiosvc.demo.orders import Order
from aiosvc.errors import ConfigError

__all__ = ["Outbox", "transport_of"]


class Outbox:
    """
    Sends by *transport* and notes what was sent in the file *path*.

    Raises ConfigError where that can't be written.
    """

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"outbox: {path!r} given, which can't be written ({error.strerror}); expected a "
                "file that can"
            ) from None

    async def send(self, order: Order) -> None:
        """Send it and note it, or raise SendError."""
        await self._transport.send(order)
        sent = {"id": order.id, "user_id": order.user_id, "item": order.item,
                "quantity": order.quantity, "at": time.time(), "pid": os.getpid()}  # fmt: skip
        os.write(self._file, json.dumps(sent).encode() + b"\n")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def transport_of(options: DemoOptions, rng: Random) -> Transport:
    """Return what sends as the options say."""
    transport = SimulatedTransport(
        median=options.send_seconds, failure_rate=options.failure_rate, rng=rng
    )
    return transport if options.outbox is None else Outbox(transport, options.outbox)
