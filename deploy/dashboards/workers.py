"""
The dashboard of queues and their workers.

Rule: what a shared queue says of itself is said by every replica, so its maximum counts; what a
process's own queue, or a worker, says is summed. Rule: the job that a worker does is
`exported_job` here: Prometheus has a `job` of its own, and renames the label of a metric.
"""

from board import Board, Row, Variable
from panels import Panel, Query
from queries import QUEUE, fraction, of_queue, quantile, rate, ratio, select, total

__all__ = ["QUEUES"]

BY = ("job", "queue_name")
LEGEND = "{{queue_name}}"
COMPLETED = "queue_items_completed_total"


def _largest(metric: str) -> str:
    return f"max by (job, queue_name) ({select(metric, QUEUE)})"


def _grows(metric: str, *labels: str, matchers: tuple[str, ...] = ()) -> str:
    return total(rate(metric, QUEUE, *matchers), *BY, *labels)


GLANCE = (
    Panel(
        title="Waiting",
        description="Items ready and waiting to be taken, of all queues chosen.",
        unit="none",
        queries=(Query(f"sum({of_queue('queue_depth')})"),),
        shape="number",
        width=6,
    ),
    Panel(
        title="Oldest waiting item",
        description="How long the item that is ready for longest has been so. It says better than "
        "the depth whether workers keep up.",
        unit="s",
        queries=(Query(f"max({select('queue_oldest_item_age_seconds', QUEUE)})"),),
        shape="number",
        width=6,
        limits=(30, 300),
        runbooks=("AiosvcQueueItemsWaitTooLong",),
    ),
    Panel(
        title="Longest running job",
        description="How long the job that runs longest has been running: a hung one is in no "
        "histogram.",
        unit="s",
        queries=(Query(f"max({select('queue_oldest_running_seconds', QUEUE)})"),),
        shape="number",
        width=6,
        limits=(300, 3600),
        runbooks=("AiosvcJobHung",),
    ),
    Panel(
        title="Dead letters",
        description="Items given up on and kept.",
        unit="none",
        queries=(Query(f"sum({of_queue('queue_dead')})"),),
        shape="number",
        width=6,
        limits=(1, 100),
        runbooks=("AiosvcDeadLettersGrowing",),
    ),
)

BACKLOG = (
    Panel(
        title="Depth",
        description="Items ready and waiting to be taken. Replicas' own queues are summed, of a shared "
        "one the maximum is taken.",
        unit="none",
        queries=(Query(of_queue("queue_depth"), LEGEND),),
    ),
    Panel(
        title="Fill",
        description="Depth as a share of the capacity; absent for unbounded queues. At 1 producers "
        "wait or are refused.",
        unit="percentunit",
        queries=(Query(f"{of_queue('queue_depth')} / {of_queue('queue_capacity')}", LEGEND),),
        most=1,
        runbooks=("AiosvcQueueNearlyFull",),
    ),
    Panel(
        title="In flight and scheduled",
        description="Items taken and not finished, and items that wait for their time, such as "
        "retries.",
        unit="none",
        queries=(
            Query(of_queue("queue_in_flight"), LEGEND + " in flight"),
            Query(of_queue("queue_scheduled"), LEGEND + " scheduled"),
        ),
    ),
    Panel(
        title="Oldest waiting item",
        description="How long the item that is ready for longest has been so; 0 when none is.",
        unit="s",
        queries=(Query(_largest("queue_oldest_item_age_seconds"), LEGEND),),
        runbooks=("AiosvcQueueItemsWaitTooLong",),
    ),
    Panel(
        title="Wait",
        description="Percentiles of the time from when an item became ready to when it was taken.",
        unit="s",
        queries=tuple(
            Query(
                quantile(q, "queue_wait_seconds", *BY, matchers=(QUEUE,)),
                f"{LEGEND} p{q * 100:g}",
            )
            for q in (0.5, 0.9, 0.99)
        ),
        runbooks=("AiosvcQueueItemsWaitTooLong",),
    ),
    Panel(
        title="Time to work off",
        description="The depth divided by the rate of finished attempts: what the backlog takes if "
        "nothing more came. Absent while nothing is finished.",
        unit="s",
        queries=(Query(f"{of_queue('queue_depth')} / ({_grows(COMPLETED)} > 0)", LEGEND),),
    ),
)

THROUGHPUT = (
    Panel(
        title="In and out",
        description="Items taken in and attempts finished, per second. Where the first stays above "
        "the second, the queue grows.",
        unit="ops",
        queries=(
            Query(_grows("queue_items_enqueued_total"), LEGEND + " in"),
            Query(_grows(COMPLETED), LEGEND + " out"),
        ),
    ),
    Panel(
        title="Attempts by outcome",
        description="Attempts finished per second, each exactly once, by how they ended.",
        unit="ops",
        queries=(Query(_grows(COMPLETED, "outcome"), LEGEND + " {{outcome}}"),),
        shape="stacked",
    ),
    Panel(
        title="Attempts that fail",
        description="Share of attempts that did not end well.",
        unit="percentunit",
        queries=(
            Query(
                fraction(rate(COMPLETED, QUEUE, 'outcome!="ok"'), rate(COMPLETED, QUEUE), *BY),
                LEGEND,
            ),
        ),
        most=1,
    ),
    Panel(
        title="Refused",
        description="Items per second that the queue did not take in, by reason.",
        unit="ops",
        queries=(Query(_grows("queue_items_rejected_total", "reason"), LEGEND + " {{reason}}"),),
        shape="stacked",
        runbooks=("AiosvcQueueNearlyFull",),
    ),
    Panel(
        title="Lost",
        description="Items per second that left without having been processed to an end, by reason.",
        unit="ops",
        queries=(Query(_grows("queue_items_dropped_total", "reason"), LEGEND + " {{reason}}"),),
        shape="stacked",
    ),
    Panel(
        title="Dead letters",
        description="Items given up on and kept.",
        unit="none",
        queries=(Query(of_queue("queue_dead"), LEGEND),),
        runbooks=("AiosvcDeadLettersGrowing",),
    ),
)

WORKERS = (
    Panel(
        title="Utilisation",
        description="Time spent on jobs as a share of what the workers have, those that still run "
        "included. At 1 every worker is busy.",
        unit="percentunit",
        queries=(
            Query(
                ratio(rate("worker_busy_seconds_total", QUEUE), select("worker_slots", QUEUE), *BY),
                LEGEND,
            ),
        ),
        most=1,
        runbooks=("AiosvcWorkersSaturated",),
    ),
    Panel(
        title="Busy workers",
        description="Jobs that run now, and that can run at the same time, over all replicas.",
        unit="none",
        queries=(
            Query(total(select("workers_busy", QUEUE), *BY), LEGEND + " busy"),
            Query(total(select("worker_slots", QUEUE), *BY), LEGEND + " slots"),
        ),
        runbooks=("AiosvcWorkersSaturated",),
    ),
    Panel(
        title="Processing",
        description="50th and 99th percentile of the time that an attempt took, by job.",
        unit="s",
        queries=tuple(
            Query(
                quantile(q, "queue_processing_seconds", *BY, "exported_job", matchers=(QUEUE,)),
                f"{{{{exported_job}}}} p{q * 100:g}",
            )
            for q in (0.5, 0.99)
        ),
    ),
    Panel(
        title="Longest running job",
        description="How long the job that runs longest has been running; 0 when none runs.",
        unit="s",
        queries=(Query(_largest("queue_oldest_running_seconds"), LEGEND),),
        runbooks=("AiosvcJobHung",),
    ),
    Panel(
        title="Since the last finished attempt",
        description="Time since any replica finished an attempt; with items waiting, workers are "
        "stuck or gone.",
        unit="s",
        queries=(Query(f"time() - {_largest('queue_last_completed_timestamp_seconds')}", LEGEND),),
        runbooks=("AiosvcQueueStalled",),
    ),
    Panel(
        title="Who waits",
        description="Consumers that wait for an item, which are idle ones, and producers that wait for "
        "room, which are held up.",
        unit="none",
        queries=(
            Query(of_queue("queue_consumers_waiting"), LEGEND + " consumers"),
            Query(of_queue("queue_producers_waiting"), LEGEND + " producers"),
        ),
    ),
)

QUEUES = Board(
    uid="aiosvc-queues",
    title="aiosvc / Queues and workers",
    description="Whether workers keep up with their queues: ages and waits, outcomes, saturation, "
    "hung jobs and dead letters.",
    variables=(
        Variable(
            "queue_name",
            "Queue",
            "Queues that the replicas have or look at.",
            'label_values(queue_info{job=~"$job", instance=~"$instance"}, queue_name)',
        ),
    ),
    rows=(
        Row("At a glance", GLANCE),
        Row("Backlog", BACKLOG),
        Row("Throughput", THROUGHPUT),
        Row("Workers", WORKERS),
    ),
)
