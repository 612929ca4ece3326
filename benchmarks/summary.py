"""
What an observation costs: `aiosvc.Summary` beside prometheus_client's Summary and Histogram.

Each observes the same values, with its labels cached, in turns; printed are the medians of the CPU
time of one observation. Then what a scrape of many series costs, and its longest step.

    python benchmarks/summary.py [--rounds 60] [--series 300]
"""

import argparse
import random
import statistics
import time

import prometheus_client

import aiosvc
from aiosvc.exposition import Exposition

VALUES = [random.lognormvariate(-3, 1) for _ in range(2000)]


def observations(rounds):
    """Print the cost of an observation."""
    kinds = {
        "aiosvc.Summary": aiosvc.Summary,
        "prometheus_client.Summary": prometheus_client.Summary,
        "prometheus_client.Histogram": prometheus_client.Histogram,
    }
    made = {
        name: kind("x_seconds", "X.", ["a"], registry=None).labels("1").observe
        for name, kind in kinds.items()
    }
    found = {name: [] for name in made}
    for _ in range(rounds):
        for name, observe in made.items():
            begun = time.process_time_ns()
            for value in VALUES:
                observe(value)
            found[name].append((time.process_time_ns() - begun) / len(VALUES))
    for name, each in found.items():
        print(f"{name:28} {statistics.median(each):6.0f} ns an observation")


def scrapes(series):
    """Print the cost of a scrape whose series have all changed."""
    registry = prometheus_client.CollectorRegistry()
    summary = aiosvc.Summary("x_seconds", "X.", ["a"], registry=registry)
    exposed = Exposition(registry, budget=0.0)
    totals, longest = [], []
    for _ in range(20):
        for number in range(series):
            observe = summary.labels(str(number)).observe
            for value in random.sample(VALUES, 31):
                observe(value)
        steps = []
        begun = before = time.thread_time_ns()
        for _ in exposed.render():
            now = time.thread_time_ns()
            steps.append(now - before)
            before = now
        totals.append(before - begun)
        longest.append(max(steps))
    print(
        f"a scrape of {series} series: {statistics.median(totals) / 1e6:.1f} ms, "
        f"longest step {statistics.median(longest) / 1e6:.2f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--series", type=int, default=300)
    arguments = parser.parse_args()
    observations(arguments.rounds)
    scrapes(arguments.series)
