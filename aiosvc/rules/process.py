"""Rules about the process: its memory, its descriptors, and whether it keeps running."""

from collections.abc import Iterator
from typing import Final

from aiosvc import catalogue
from aiosvc.rules.rule import HOUR, MINUTE, Alert, Group, Recording
from aiosvc.rules.scope import Scope

__all__ = ["process_group"]

MEMORY: Final = "instance:process_memory_rss_bytes_per_limit:ratio"
DESCRIPTORS: Final = "instance:process_open_fds_per_max:ratio"


def process_group(scope: Scope) -> Group:
    """Return the recordings and alerts, each by target."""
    rss, limit = (
        scope.series(row) for row in (catalogue.PROCESS_RSS, catalogue.PROCESS_MEMORY_LIMIT)
    )
    used, allowed = (
        scope.series(row) for row in (catalogue.PROCESS_OPEN_FDS, catalogue.PROCESS_MAX_FDS)
    )
    return Group(
        "process",
        (
            Recording(MEMORY, f"{rss} / {limit}"),
            Recording(DESCRIPTORS, f"{used} / {allowed}"),
        ),
        tuple(_alerts(scope)),
    )


def _alerts(scope: Scope) -> Iterator[Alert]:
    rss = scope.series(catalogue.PROCESS_RSS)
    limit = scope.series(catalogue.PROCESS_MEMORY_LIMIT)
    yield Alert(
        "AiosvcFileDescriptorsNearLimit",
        "ticket",
        f"{scope.series(DESCRIPTORS)} > 0.8",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of its file descriptors are open",
        "Without a free descriptor {{ $labels.instance }} accepts no connection and opens no file.",
        scope.seconds(5 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcMemoryNearLimit",
        "ticket",
        f"{scope.series(MEMORY)} > 0.9",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of its memory is used",
        "At its limit the kernel kills {{ $labels.instance }}, with every request and queue in it.",
        scope.seconds(5 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    horizon = scope.seconds(4 * HOUR)
    yield Alert(
        "AiosvcMemoryWillRunOut",
        "ticket",
        f"predict_linear({rss}[{scope.window(HOUR)}], {horizon:g}) > {limit}\nand\n"
        f"{scope.series(MEMORY)} > 0.5",
        "{{ $labels.instance }}: memory grows to {{ $value | humanize1024 }}B in four hours",
        "If it goes on growing like in the last hour, {{ $labels.instance }} will use more memory "
        "than its limit within four hours.",
        scope.seconds(30 * MINUTE),
        scope.seconds(10 * MINUTE),
    )
    yield Alert(
        "AiosvcRestarting",
        "ticket",
        f"changes({scope.series(catalogue.PROCESS_START)}[{scope.window(HOUR)}]) > 3",
        "{{ $labels.instance }}: started {{ $value | humanize }} times anew in an hour",
        "{{ $labels.instance }} ends and is started again and again; each time what was in its "
        "queues is lost.",
        scope.seconds(MINUTE),
    )
