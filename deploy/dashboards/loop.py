"""The dashboard of the event loop and the process that it runs in, by replica."""

from board import Board, Row
from panels import Panel, Query
from queries import grown, quantile, rate, ratio, select, top, total

__all__ = ["EVENTLOOP"]

REPLICA = ("job", "instance")
LEGEND = "{{instance}}"
TIME = "asyncio_eventloop_time_seconds_total"

LOOP = (
    Panel(
        title="Lag",
        description="Percentiles over all replicas of the longest time in each 50 ms for which the "
        "event loop did not look for what became ready: what everything on it waits.",
        unit="s",
        queries=tuple(
            Query(quantile(q, "asyncio_eventloop_lag_seconds"), f"p{q * 100:g}")
            for q in (0.5, 0.9, 0.99)
        ),
        runbooks=("AiosvcEventLoopLagHigh",),
    ),
    Panel(
        title="Lag by replica",
        description="99th percentile of the twenty replicas that lag most.",
        unit="s",
        queries=(Query(top(quantile(0.99, "asyncio_eventloop_lag_seconds", *REPLICA)), LEGEND),),
        runbooks=("AiosvcEventLoopLagHigh",),
    ),
    Panel(
        title="Busy",
        description="Share of time that the event loop ran callbacks. A loop has one thread: above "
        "0.7 or so everything queues up.",
        unit="percentunit",
        queries=(Query(top(ratio(rate(TIME, 'state="busy"'), rate(TIME), *REPLICA)), LEGEND),),
        most=1,
        runbooks=("AiosvcEventLoopSaturated",),
    ),
    Panel(
        title="Stalls",
        description="Times within the window that the loop was held up for longer than the stall "
        "threshold; the log says by which code.",
        unit="none",
        queries=(Query(top(grown("asyncio_eventloop_stalls_total")), LEGEND),),
        runbooks=("AiosvcEventLoopStalls",),
    ),
    Panel(
        title="Tasks",
        description="Tasks that are not done, by replica. A number that only rises is a leak.",
        unit="none",
        queries=(Query(top(total(select("asyncio_tasks"), *REPLICA)), LEGEND),),
    ),
    Panel(
        title="Oldest task by group",
        description="Age of the oldest task of each group that the option task_groups names.",
        unit="s",
        queries=(
            Query(f"max by (job, group) ({select('asyncio_task_oldest_seconds')})", "{{group}}"),
        ),
    ),
)

EXECUTOR = (
    Panel(
        title="Executor threads",
        description="Threads of the default executor that run a function now, and that there may be. "
        "DNS look-ups and file I/O need them.",
        unit="none",
        queries=(
            Query(top(select("asyncio_executor_busy_threads")), LEGEND + " busy"),
            Query(f"max({select('asyncio_executor_max_threads')})", "limit of each replica"),
        ),
        width=12,
    ),
    Panel(
        title="Waiting for the executor",
        description="Functions that wait for a thread of the default executor.",
        unit="none",
        queries=(Query(top(select("asyncio_executor_queue_depth")), LEGEND),),
        width=12,
    ),
)

COLLECTOR = (
    Panel(
        title="Time in the garbage collector",
        description="Share of time in which no Python code ran because of the collector, by "
        "generation, of all replicas on average.",
        unit="percentunit",
        queries=(
            Query(
                f"avg by (generation) ({rate('python_gc_duration_seconds_sum')})",
                "generation {{generation}}",
            ),
        ),
        width=12,
    ),
    Panel(
        title="Pauses",
        description="99th percentile of the collector's pauses, by generation.",
        unit="s",
        queries=(
            Query(
                quantile(0.99, "python_gc_duration_seconds", "generation"),
                "generation {{generation}}",
            ),
        ),
        width=12,
    ),
)

PROCESS = (
    Panel(
        title="CPU",
        description="Cores in use by replica. A service of one event loop hardly uses more than one.",
        unit="none",
        queries=(Query(top(rate("process_cpu_seconds_total")), LEGEND),),
    ),
    Panel(
        title="Memory",
        description="Resident memory of the twenty largest replicas, and the smallest limit that one "
        "of them has.",
        unit="bytes",
        queries=(
            Query(top(select("process_memory_rss_bytes")), LEGEND),
            Query(f"min({select('process_memory_limit_bytes')})", "limit"),
        ),
        runbooks=("AiosvcMemoryNearLimit", "AiosvcMemoryWillRunOut"),
    ),
    Panel(
        title="Memory of the limit",
        description="Resident memory as a share of what the container may use; absent without limit.",
        unit="percentunit",
        queries=(
            Query(
                top(
                    f"{select('process_memory_rss_bytes')} / {select('process_memory_limit_bytes')}"
                ),
                LEGEND,
            ),
        ),
        most=1,
        runbooks=("AiosvcMemoryNearLimit",),
    ),
    Panel(
        title="File descriptors",
        description="Open descriptors as a share of what the process may open. At 1 nothing more can "
        "be accepted or opened.",
        unit="percentunit",
        queries=(
            Query(top(f"{select('process_open_fds')} / {select('process_max_fds')}"), LEGEND),
        ),
        most=1,
        runbooks=("AiosvcFileDescriptorsNearLimit",),
    ),
    Panel(
        title="Threads",
        description="Threads of the process, as the operating system counts them.",
        unit="none",
        queries=(Query(top(select("process_threads")), LEGEND),),
    ),
    Panel(
        title="Context switches",
        description="Switches per second of all replicas: voluntary ones waited for something, "
        "involuntary ones were taken off a core that others wanted.",
        unit="ops",
        queries=(Query(total(rate("process_context_switches_total"), "kind"), "{{kind}}"),),
    ),
)

OURSELVES = (
    Panel(
        title="Sources that fail",
        description="Sources of the sampler whose last sample failed: 1 is a source that is down.",
        unit="none",
        queries=(Query(f"1 - min by (job, source) ({select('aiosvc_source_up')})", "{{source}}"),),
        runbooks=("AiosvcSourceDown",),
    ),
    Panel(
        title="Scrapes",
        description="Time that answering a scrape took on average, and how late the sampler's turns "
        "started at worst.",
        unit="s",
        queries=(
            Query(
                ratio(
                    rate("aiosvc_scrape_duration_seconds_sum"),
                    rate("aiosvc_scrape_duration_seconds_count"),
                ),
                "scrape",
            ),
            Query(f"max({select('aiosvc_sampler_lateness_seconds')})", "sampler's lateness"),
        ),
        runbooks=("AiosvcSamplerStale",),
    ),
    Panel(
        title="Left out",
        description="Label values past the cap, errors inside aiosvc, and collectors that failed, per "
        "second: all should be 0.",
        unit="ops",
        queries=(
            Query(total(rate("aiosvc_label_overflow_total"), "metric"), "past the cap: {{metric}}"),
            Query(total(rate("aiosvc_instrumentation_errors_total"), "where"), "error: {{where}}"),
            Query(
                total(rate("aiosvc_exposition_errors_total"), "collector"), "failed: {{collector}}"
            ),
        ),
        runbooks=("AiosvcLabelOverflow", "AiosvcInstrumentationErrors", "AiosvcCollectorFailing"),
    ),
)

EVENTLOOP = Board(
    uid="aiosvc-eventloop",
    title="aiosvc / Event loop and process",
    description="Whether the event loop keeps up, and what the process takes to do so.",
    rows=(
        Row("Event loop", LOOP),
        Row("Default executor", EXECUTOR),
        Row("Garbage collector", COLLECTOR),
        Row("Process", PROCESS),
        Row("aiosvc itself", OURSELVES),
    ),
)
