"""
PromQL as the dashboards write it.

Rule: every selector takes the dashboard's job and instance, and every rate the window that Grafana
works out from the scrape interval. Rule: `$` with braces belongs to Grafana, so none is in a query.
"""

__all__ = [
    "QUEUE",
    "SERIES_AT_MOST",
    "fraction",
    "grown",
    "of_queue",
    "quantile",
    "rate",
    "ratio",
    "select",
    "top",
    "total",
]

#: Lines of one chart at most where there is one for each replica or route.
SERIES_AT_MOST = 20

QUEUE = 'queue_name=~"$queue_name"'


def select(metric: str, *matchers: str) -> str:
    """Return the series of *metric* that the dashboard's variables, and *matchers*, pick."""
    picked = ", ".join(('job=~"$job"', 'instance=~"$instance"', *matchers))
    return f"{metric}{{{picked}}}"


def rate(metric: str, *matchers: str) -> str:
    """Return the growth per second of a counter."""
    return f"rate({select(metric, *matchers)}[$__rate_interval])"


def grown(metric: str, *matchers: str) -> str:
    """Return by how much a counter grew within the window."""
    return f"increase({select(metric, *matchers)}[$__rate_interval])"


def total(of: str, *labels: str) -> str:
    """Return the sum of *of*, one for each combination of *labels*."""
    return f"sum by ({', '.join(labels)}) ({of})" if labels else f"sum({of})"


def quantile(q: float, histogram: str, *labels: str, matchers: tuple[str, ...] = ()) -> str:
    """Return a quantile of a histogram over all replicas, one for each combination of *labels*."""
    buckets = total(rate(f"{histogram}_bucket", *matchers), *labels, "le")
    return f"histogram_quantile({q:g}, {buckets})"


def ratio(part: str, whole: str, *labels: str) -> str:
    """Return *part* by *whole*: nothing where either is missing, or where the whole is 0."""
    return f"{total(part, *labels)} / ({total(whole, *labels)} > 0)"


def fraction(part: str, whole: str, *labels: str) -> str:
    """Return *part* of *whole*, where a part that is missing never occurred and is 0."""
    # The 0 is made from the whole, so that it has the same labels.
    return (
        f"({total(part, *labels)} or 0 * {total(whole, *labels)}) / ({total(whole, *labels)} > 0)"
    )


def top(of: str, most: int = SERIES_AT_MOST) -> str:
    """Return the largest series of *of* only, so that no chart grows with the number of replicas."""
    return f"topk({most}, {of})"


def of_queue(metric: str) -> str:
    """
    Return a gauge of each queue, whatever the number of replicas that export it.

    Replicas that each have a queue of their own are summed. Those that look at one shared queue all
    say the same, and one scrape more or less late: their maximum is taken.
    """
    by = "job, queue_name"
    own, shared = (
        f"({select(metric, QUEUE)} and on (job, instance, queue_name) {select('queue_info', QUEUE, s)})"
        for s in ('scope="process"', 'scope="shared"')
    )
    return f"(sum by ({by}) {own} or max by ({by}) {shared})"
