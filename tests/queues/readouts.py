"""What the tests of queues share: a clock to turn, and a look at what would be scraped."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from aiosvc.collector import collector_of
from aiosvc.queues import Queues


class Clock:
    """A monotonic clock that stands until it is turned."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


class Readout:
    """Queues on a registry of their own, and the values that a scrape would have."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.collector = collector_of(self.registry)
        self.errors: list[tuple[str, BaseException]] = []
        self.queues = Queues(lambda where, error: self.errors.append((where, error)), self.clock)
        self.collector.attach(self.queues)

    def value(self, metric: str, name: str = "jobs", **labels: str) -> float | None:
        """Return the sample of the queue *name*, None where it is absent."""
        return self.registry.get_sample_value(metric, {"queue_name": name, **labels})

    def outcomes(self, job: str, name: str = "jobs") -> dict[str, float]:
        """Return how often attempts at *job* ended how, without the zeros."""
        found = {
            sample.labels["outcome"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "queue_items_completed_total"
            and (sample.labels["queue_name"], sample.labels["job"]) == (name, job)
        }
        return {outcome: count for outcome, count in found.items() if count}


async def settle(turns: int = 6) -> None:
    """Let everything that is due on the running loop happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


def kinds() -> list[Any]:
    """Return the three classes of asyncio's queues."""
    return [asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue]
