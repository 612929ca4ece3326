"""
Rules about queues and workers: how long items wait, whether they get on, what becomes of them.

Rule: `queue_info` decides how replicas add up. A queue inside the process (`process`) is one queue
per replica, whose depths are summed; of a queue in a broker (`shared`) every replica reports the same
number, and the largest is taken. Rule: what a worker counts is always its own, and summed.

A label `job` of a metric is called `exported_job` once Prometheus has put the target's beside it, so
nothing here aggregates by the metric's.
"""

from collections.abc import Iterator
from typing import Final

from aiosvc import catalogue
from aiosvc.rules.options import RulesOptions
from aiosvc.rules.rule import HOUR, MINUTE, Alert, Group, Recording
from aiosvc.rules.scope import Scope

__all__ = ["queue_group"]

QUEUE: Final = "queue_name"

#: What a queue holds, by replica or together.
LEVELS: Final = (
    catalogue.QUEUE_DEPTH,
    catalogue.QUEUE_IN_FLIGHT,
    catalogue.QUEUE_SCHEDULED,
    catalogue.QUEUE_DEAD,
    catalogue.QUEUE_CAPACITY,
)
AGES: Final = (catalogue.QUEUE_OLDEST_ITEM, catalogue.QUEUE_OLDEST_RUNNING)
SLOTS: Final = (catalogue.WORKER_SLOTS, catalogue.WORKERS_BUSY)
FLOWS: Final = (
    catalogue.QUEUE_ENQUEUED,
    catalogue.QUEUE_REJECTED,
    catalogue.QUEUE_DROPPED,
    catalogue.QUEUE_COMPLETED,
    catalogue.WORKER_BUSY_SECONDS,
)


def queue_group(scope: Scope, options: RulesOptions) -> Group:
    """Return the recordings and alerts of queues."""
    return Group("queues", tuple(_recordings(scope)), tuple(_alerts(scope, options)))


def _of_scope(scope: Scope, expression: str, kind: str) -> str:
    """Return *expression* of the queues that are inside a process, or those that are shared."""
    info = scope.series(catalogue.QUEUE_INFO, f'scope="{kind}"')
    return f"{expression} and ignoring (backend, scope) {info}"


def _recordings(scope: Scope) -> Iterator[Recording]:
    by = scope.by(QUEUE)
    for row in LEVELS:
        series = scope.series(row)
        yield Recording(
            scope.named(f"{row.name}:sum_or_max", QUEUE),
            f"sum by {by} ({_of_scope(scope, series, 'process')})\nor\n"
            f"max by {by} ({_of_scope(scope, series, 'shared')})",
        )
    for row in AGES:
        yield Recording(scope.named(f"{row.name}:max", QUEUE), f"max by {by} ({scope.series(row)})")
    for row in SLOTS:
        yield Recording(scope.named(f"{row.name}:sum", QUEUE), f"sum by {by} ({scope.series(row)})")
    window = scope.window(5 * MINUTE)
    for row in FLOWS:
        yield Recording(
            scope.named(f"{row.name.removesuffix('_total')}:rate5m", QUEUE),
            f"sum by {by} (rate({scope.series(row)}[{window}]))",
        )
    busy = scope.named("worker_busy_seconds:rate5m", QUEUE)
    yield Recording(
        scope.named("worker_busy_seconds_per_slot:ratio_rate5m", QUEUE),
        f"{scope.series(busy)}\n/\n{scope.series(scope.named('worker_slots:sum', QUEUE))}",
    )


def _alerts(scope: Scope, options: RulesOptions) -> Iterator[Alert]:
    queue = f"{scope.service} queue {{{{ $labels.queue_name }}}}"
    yield Alert(
        "AiosvcQueueItemsWaitTooLong",
        "page",
        scope.over(
            scope.named(f"{catalogue.QUEUE_OLDEST_ITEM.name}:max", QUEUE),
            options.queue_age,
            options.queue_limits,
        ),
        f"{queue}: an item has waited for {{{{ $value | humanizeDuration }}}}",
        f"The oldest item that is ready in {queue} has waited for longer than it may; what comes "
        "after it waits too.",
        scope.seconds(2 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcQueueStalled",
        "page",
        _stalled(scope, options),
        f"{queue}: {{{{ $value | humanize }}}} items wait and nothing gets on",
        f"In the last {options.queue_stall:g} s no worker of {queue} took an item or finished one, "
        "although items wait.",
        scope.seconds(2 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcJobHung",
        "ticket",
        scope.over(catalogue.QUEUE_OLDEST_RUNNING, options.job_age, options.job_limits),
        "{{ $labels.instance }} queue {{ $labels.queue_name }}: a job has run for "
        "{{ $value | humanizeDuration }}",
        "A job of queue {{ $labels.queue_name }} in {{ $labels.instance }} runs for longer than any "
        "should; it holds a worker, and its item, until it ends.",
        scope.seconds(2 * MINUTE),
    )
    yield Alert(
        "AiosvcWorkersSaturated",
        "ticket",
        f"{scope.series(scope.named('worker_busy_seconds_per_slot:ratio_rate5m', QUEUE))} > 0.95",
        f"{queue}: workers are {{{{ $value | humanizePercentage }}}} busy",
        f"The workers of {queue} have no time left; whatever comes more has to wait.",
        scope.seconds(15 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    depth, capacity = scope.series(catalogue.QUEUE_DEPTH), scope.series(catalogue.QUEUE_CAPACITY)
    yield Alert(
        "AiosvcQueueNearlyFull",
        "ticket",
        f"max by {scope.by(QUEUE)} ({depth} / {capacity}) > 0.9",
        f"{queue}: {{{{ $value | humanizePercentage }}}} full",
        f"The fullest replica of {queue} will soon refuse items, or make its producers wait.",
        scope.seconds(5 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    window = scope.window(HOUR)
    dead = scope.series(catalogue.QUEUE_COMPLETED, 'outcome="dead"')
    kept = scope.series(scope.named(f"{catalogue.QUEUE_DEAD.name}:sum_or_max", QUEUE))
    yield Alert(
        "AiosvcDeadLettersGrowing",
        "ticket",
        f"sum by {scope.by(QUEUE)} (increase({dead}[{window}])) > {options.dead_letters}\nor\n"
        f"delta({kept}[{window}]) > {options.dead_letters}",
        f"{queue}: {{{{ $value | humanize }}}} items were given up on in an hour",
        f"Items of {queue} failed in every attempt; nobody will try them again.",
        scope.seconds(MINUTE),
    )


def _stalled(scope: Scope, options: RulesOptions) -> str:
    """Return the depth of queues of which no worker took an item or finished one."""
    window = scope.window(options.queue_stall)
    ended, taken = (
        f"rate({scope.series(metric, suffix=suffix)}[{window}])"
        for metric, suffix in ((catalogue.QUEUE_COMPLETED, ""), (catalogue.QUEUE_WAIT, "_count"))
    )
    branches = []
    for kind, labels in (("process", ("instance", QUEUE)), ("shared", (QUEUE,))):
        by = scope.by(*labels)
        waiting = _of_scope(scope, f"{scope.series(catalogue.QUEUE_DEPTH)} > 0", kind)
        branches.append(
            f"(\n  max by {by} ({waiting})\n  and on {by}\n"
            f"  sum by {by} ({ended} or {taken}) == 0\n)"
        )
    return "\nor\n".join(branches)
