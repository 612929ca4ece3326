"""
How many descriptors this process has open, and may have, said also when there is none left.

Rule: what can't be known is None. Rule: a family that somebody gave already is not given again.

prometheus_client's collector of the process opens files in /proc, so it leaves out the families that
tell of descriptors exactly when they have run out. `completed` puts these back.
"""

import errno
import math
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

if sys.platform != "win32":
    import resource

__all__ = ["completed", "most_descriptors", "open_descriptors"]

DIRECTORY: Final = "/proc/self/fd"


def open_descriptors(directory: str | None = None) -> int | None:
    """Return how many are open, None where the system does not say; *directory* lists them."""
    directory = directory or DIRECTORY
    try:
        number = os.stat(directory).st_size  # noqa: PTH116 - one call, that needs no descriptor
        # Before Linux 6.2 that is always 0. The listing has one descriptor of its own.
        return number or len(os.listdir(directory)) - 1  # noqa: PTH208 - as above
    except OSError as error:
        # The lowest free one is taken always, so now there is none below the limit.
        most = most_descriptors() if error.errno == errno.EMFILE else None
        return None if most in (None, math.inf) else int(most)


def most_descriptors() -> float | None:
    """Return how many may be open; None where the system does not say."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def completed(prefix: str, families: Iterable[Metric]) -> Iterator[Metric]:
    """Give *families* of this process, named with *prefix*, and those of descriptors if not there."""
    names = set()
    for family in families:
        names.add(family.name)
        yield family
    for name, documentation, read in (
        (f"{prefix}open_fds", "Number of open file descriptors.", open_descriptors),
        (f"{prefix}max_fds", "Maximum number of open file descriptors.", most_descriptors),
    ):
        value = None if name in names else read()
        if value is not None:
            yield GaugeMetricFamily(name, documentation, value)
