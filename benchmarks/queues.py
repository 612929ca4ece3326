"""
What watching a queue costs per item, beside a plain queue and a wrapper as people write it.

The wrapper subclasses asyncio.Queue, sets a prometheus_client Gauge to the size at each put and get,
and observes the time between in a Histogram. All contenders take turns, and each round's contenders
start in another order; printed is the median of the CPU time that one item takes, put and got, and
what that adds to a plain queue. Before anything is timed, all are made to agree about what happened.

    python benchmarks/queues.py [--items 20000] [--rounds 25]
"""

import argparse
import asyncio
import statistics
import time

from prometheus_client import CollectorRegistry, Gauge, Histogram

from aiosvc.config import Settings
from aiosvc.service import Observer


def wrapper(kind, registry):
    """Return a queue of *kind* that is measured as people measure queues by hand."""
    depth = Gauge("depth", "Items.", ["queue"], registry=registry)
    wait = Histogram("wait_seconds", "Waits.", ["queue"], registry=registry)

    class Measured(kind):
        def _put(self, item):
            super()._put((item, time.monotonic()))
            depth.labels("email").set(self.qsize())

        def _get(self):
            item, put_at = super()._get()
            wait.labels("email").observe(time.monotonic() - put_at)
            depth.labels("email").set(self.qsize())
            return item

    return Measured()


def contenders(kind):
    """Return a function that makes a queue, by name; and the registry that shows it."""
    found = {"plain": (kind(), None)}
    for name, waits in (("aiosvc, counts only", False), ("aiosvc, with waits", True)):
        registry = CollectorRegistry()
        observer = Observer(registry, Settings())
        observer.collector.attach(observer._queues)
        found[name] = observer.watch_queue(kind(), name="email", waits=waits), registry
    registry = CollectorRegistry()
    found["prometheus_client wrapper"] = wrapper(kind, registry), registry
    return found


async def awaited(queue, items):
    """Put and get each item with the verbs that wait."""
    for number in range(items):
        await queue.put(number)
        await queue.get()


async def at_once(queue, items):
    """Put and get each item with the verbs that don't wait."""
    for number in range(items):
        queue.put_nowait(number)
        queue.get_nowait()


async def backlog(queue, items):
    """Put and get each item with a hundred others in between."""
    for number in range(100):
        queue.put_nowait(number)
    for number in range(items - 100):
        queue.put_nowait(number)
        queue.get_nowait()
    for _ in range(100):
        queue.get_nowait()


async def check(kind):
    """Make sure that what is measured works: all of them saw the same items."""
    for name, (queue, registry) in contenders(kind).items():
        await at_once(queue, 1000)
        if "aiosvc" in name:
            labels = {"queue_name": "email"}
            assert registry.get_sample_value("queue_items_enqueued_total", labels) == 1000
            if "waits" in name:
                assert registry.get_sample_value("queue_wait_seconds_count", labels) == 1000
        elif registry is not None:
            assert registry.get_sample_value("wait_seconds_count", {"queue": "email"}) == 1000


async def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
        await check(kind)
        for work in (awaited, at_once, backlog):
            taken = {}
            for turn in range(arguments.rounds):
                measured = list(contenders(kind).items())
                for name, (queue, _) in measured[turn % 4 :] + measured[: turn % 4]:
                    begun = time.thread_time()
                    await work(queue, arguments.items)
                    seconds = (time.thread_time() - begun) / arguments.items
                    taken.setdefault(name, []).append(seconds * 1e6)
            plain = statistics.median(taken["plain"])
            print(f"{kind.__name__}, {work.__name__}:")
            for name in ("plain", "aiosvc, counts only", "aiosvc, with waits"):
                found = statistics.median(taken[name])
                print(f"  {name:26} {found:6.2f} us/item  +{found - plain:.2f}")
            name = "prometheus_client wrapper"
            found, ours = (
                statistics.median(taken[name]),
                statistics.median(taken["aiosvc, with waits"]),
            )
            ratio = (found - plain) / (ours - plain)
            print(f"  {name:26} {found:6.2f} us/item  +{found - plain:.2f}, {ratio:.1f} times ours")


if __name__ == "__main__":
    asyncio.run(main())
