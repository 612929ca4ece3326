"""
A broker's queue as a source of the sampler.

Rule: observing only. A queue is read by the client object that the service has anyway, or by a
connection of our own to a URL; nothing is taken, declared or changed, and no engine is imported.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from aiosvc import validation
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError
from aiosvc.queues.family import check_name
from aiosvc.readings import Readings
from aiosvc.sampling import Sampler

__all__ = ["INTERVAL", "BrokerQueue", "SharedQueues"]

#: Seconds between two samples of a queue.
INTERVAL = 10.0

#: The part of the interval by which samples are put off at random, so that replicas that were
#: started together do not ask a broker together.
JITTER = 0.1


@runtime_checkable
class BrokerQueue(Protocol):
    """
    A queue somewhere else, which says how it is when it is asked.

    *backend* is a short word for what keeps it, such as redis. An object that has a method `close`,
    async or not, is closed by it when the sampling stops; it may be sampled again after that.
    """

    backend: str

    async def sample(self) -> QueueState:
        """Return how it is now; raises whatever it likes where that can't be known."""


class SharedQueues:
    """
    The brokers' queues of one service, by name, sampled by *sampler*.

    *is_taken* says whether a name is that of a queue of another kind. Where this process does not
    sample (*samples*), queues have their names and nobody asks how they are.
    """

    def __init__(
        self, sampler: Sampler, is_taken: Callable[[str], bool], *, samples: bool = True
    ) -> None:
        self._sampler = sampler
        self._samples = samples
        self._is_taken = is_taken
        self._queues: dict[str, BrokerQueue] = {}

    def watch(
        self,
        queue: BrokerQueue,
        name: str,
        *,
        interval: float | None = None,
        timeout: float | None = None,
    ) -> None:
        """
        Read *queue* as the queue, and the source, *name*; a second time changes nothing.

        *interval* and *timeout* are seconds; where they are None, `INTERVAL` and the sampler's
        timeout. Raises ConfigError where the name is no name or taken, or a number makes no sense.
        """
        check_name(name)
        if self._queues.get(name) is queue:
            return
        if name in self._queues or self._is_taken(name):
            raise ConfigError(f"queue name {name!r}: another queue has it; give this one its own")
        if self._samples:
            try:
                self._add(queue, name, interval, timeout)
            except ConfigError as error:
                raise ConfigError(f"queue {name!r}: {error}") from None
        self._queues[name] = queue

    def refuse(self, name: str) -> None:
        """Raise ConfigError where one of these queues has the name."""
        if name in self._queues:
            raise ConfigError(f"queue name {name!r}: a broker's queue has it; give another name")

    def _add(
        self, queue: BrokerQueue, name: str, interval: float | None, timeout: float | None
    ) -> None:
        every = INTERVAL if interval is None else interval
        validation.seconds("interval", every, at_least=0.001)

        async def read() -> Readings:
            state = await queue.sample()
            if not isinstance(state, QueueState):
                raise TypeError(f"sample() returned {state!r}; expected aiosvc.brokers.QueueState")
            return state.readings(name, queue.backend)

        self._sampler.add_source(
            name,
            read,
            interval=every,
            timeout=timeout,
            jitter=every * JITTER,
            close=getattr(queue, "close", None),
        )
