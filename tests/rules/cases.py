"""
For each alert: series for which it fires, and those for which it must not.

Values are promtool's: `0+6x30` begins at 0 and adds 6 in each of 30 more minutes, `5x30` stays at 5,
`_x3` are three minutes without a sample.
"""

from collections.abc import Mapping

from .promtool import A, B, Fires, Quiet

__all__ = ["CASES"]

JOB = {"job": "aiosvc"}
INSTANCE = {"instance": "a", "job": "aiosvc"}
QUEUE = {"job": "aiosvc", "queue_name": "email"}
QUEUE_OF_A = {**INSTANCE, "queue_name": "email"}

OK = f'http_requests_total{{{A},method="GET",endpoint="/",status="200"}}'
BAD = f'http_requests_total{{{A},method="GET",endpoint="/",status="500"}}'
NOT_FOUND = f'http_requests_total{{{A},method="GET",endpoint="_unmatched",status="404"}}'
ABORTED = f'http_request_failures_total{{{A},method="GET",endpoint="/",reason="aborted"}}'
LEFT = f'http_request_failures_total{{{A},method="GET",endpoint="/",reason="client_disconnected"}}'
OTEL = "http_server_request_duration_seconds"
OTEL_OK = f'{OTEL}_count{{{A},http_route="/",http_response_status_code="200"}}'
OTEL_BAD = f'{OTEL}_count{{{A},http_route="/",http_response_status_code="503",error_type="503"}}'
TIMED = f'http_request_duration_seconds_count{{{A},method="GET",endpoint="/"}}'
WITHIN = f'http_request_duration_seconds_bucket{{{A},method="GET",endpoint="/",le="0.25"}}'
OTEL_WITHIN = f'{OTEL}_bucket{{{A},http_route="/",http_response_status_code="200",le="0.25"}}'


def lag(bound: str, values: str) -> dict[str, str]:
    """Return one bucket of the event loop's lag."""
    return {f'asyncio_eventloop_lag_seconds_bucket{{{A},le="{bound}"}}': values}


def loop_time(busy: str, idle: str) -> dict[str, str]:
    """Return the event loop's time in both states."""
    return {
        f'asyncio_eventloop_time_seconds_total{{{A},state="{state}"}}': values
        for state, values in (("busy", busy), ("idle", idle))
    }


def of(metric: str, values: str, target: str = A, labels: str = "") -> dict[str, str]:
    """Return one series of a metric."""
    return {f"{metric}{{{target}{',' if labels else ''}{labels}}}": values}


def queue(metric: str, values: str, target: str = A, more: str = "") -> dict[str, str]:
    """Return one series of the queue `email`."""
    return of(metric, values, target, f'queue_name="email"{more}')


def info(scope: str, target: str = A) -> dict[str, str]:
    """Return what the queue is."""
    return queue("queue_info", "1x200", target, f',backend="x",scope="{scope}"')


def completed(values: str, target: str = A, outcome: str = "ok") -> dict[str, str]:
    """Return how many attempts ended; the metric's own label `job` as Prometheus calls it."""
    more = f',exported_job="send",outcome="{outcome}"'
    return queue("queue_items_completed_total", values, target, more)


def dead(values: str) -> dict[str, str]:
    """Return how many items were given up on."""
    return completed(values, outcome="dead")


def overflow(values: str, label: str = "endpoint") -> dict[str, str]:
    """Return how often a label value was replaced."""
    labels = f'metric="http_requests_total",label="{label}"'
    return of("aiosvc_label_overflow_total", values, A, labels)


def errors(values: str) -> dict[str, str]:
    """Return the errors inside aiosvc."""
    return of("aiosvc_instrumentation_errors_total", values, A, 'where="label tenant"')


def left_out(values: str) -> dict[str, str]:
    """Return how often a collector was left out."""
    return of("aiosvc_exposition_errors_total", values, A, 'collector="Stock"')


def source(values: str) -> dict[str, str]:
    """Return whether a source is up."""
    return of("aiosvc_source_up", values, A, 'source="database"')


def memory(used: str, limit: str = "1000x300") -> dict[str, str]:
    """Return a process's memory and its limit."""
    return of("process_memory_rss_bytes", used) | of("process_memory_limit_bytes", limit)


def files(used: str) -> dict[str, str]:
    """Return a process's open files, of a thousand."""
    return of("process_open_fds", used) | of("process_max_fds", "1000x200")


CASES: Mapping[str, tuple[Fires | Quiet, ...]] = {
    "AiosvcErrorBudgetBurnFast": (
        Fires(
            why="one request in ten fails",
            series={OK: "0+54x60", BAD: "0+6x60"},
            at=30, value="10%", labels=JOB,
        ),
        Fires(
            why="one answer in ten breaks off, whatever its status said",
            series={OK: "0+60x60", ABORTED: "0+6x60"},
            at=30, value="10%", labels=JOB,
        ),
        Fires(
            why="half of the requests fail with OpenTelemetry's names",
            series={OTEL_OK: "0+10x60", OTEL_BAD: "0+10x60"},
            at=30, value="50%", labels=JOB, preset="otel",
        ),
        Fires(
            why="a quiet service fails altogether",
            series={OK: "100x60", BAD: "0+1x60"},
            at=20, value="100%", labels=JOB, options={"alert_labels": {"team": "shop"}},
        ),
        Fires(
            why="slower than the hour's factor, and for six hours",
            series={OK: "0+990x120", BAD: "0+10x120"},
            at=60, value="1%", labels=JOB,
        ),
        Quiet(
            why="one error of a service with little to do",
            series={OK: "0+1x180", BAD: "0x60 1x120"}, until=180,
        ),
        Quiet(why="one error and no other request", series={BAD: "0x60 1x60"}, until=120),
        Quiet(why="nothing to do", series={OK: "500x120", BAD: "70x120"}, until=120),
        Quiet(
            why="within the budget",
            series={OK: "0+2000x120", BAD: "0+1x120"}, until=120,
        ),
        Quiet(
            why="clients' mistakes, and clients that left",
            series={OK: "0+10x120", NOT_FOUND: "0+90x120", LEFT: "0+9x120"}, until=120,
        ),
        Quiet(
            why="a restart sets the counters back",
            series={OK: "0+60x30 _x2 0+60x60", BAD: "40x30 _x2 0x60"}, until=90,
        ),
    ),
    "AiosvcErrorBudgetBurnSlow": (
        Fires(
            why="five in a thousand fail",
            series={OK: "0+199x120", BAD: "0+1x120"},
            at=60, value="0.5%", labels=JOB,
        ),
        Fires(
            why="two in a thousand fail, which three days show",
            series={OK: "0+998x120", BAD: "0+2x120"},
            at=60, value="0.2%", labels=JOB,
        ),
        Quiet(
            why="one error in a day with few requests",
            series={OK: "0+1x300", BAD: "0x60 1x240"}, until=300,
        ),
        Quiet(why="nothing to do", series={OK: "500x120", BAD: "70x120"}, until=120),
        Quiet(why="within the budget", series={OK: "0+2000x120", BAD: "0+1x120"}, until=120),
        Quiet(
            why="a restart sets the counters back",
            series={OK: "0+60x30 _x2 0+60x60", BAD: "40x30 _x2 0x60"}, until=90,
        ),
    ),
    "AiosvcLatencyBudgetBurnFast": (
        Fires(
            why="half of the requests take longer",
            series={TIMED: "0+60x60", WITHIN: "0+30x60"},
            at=30, value="50%", labels={**JOB, "threshold": "0.25"},
        ),
        Fires(
            why="half of the requests take longer, with OpenTelemetry's names",
            series={OTEL_OK: "0+60x60", OTEL_WITHIN: "0+30x60"},
            at=30, value="50%", labels={**JOB, "threshold": "0.25"}, preset="otel",
        ),
        Quiet(
            why="one slow request of a service with little to do",
            series={TIMED: "0x60 1x60 2x60", WITHIN: "0x60 0x60 1x60"}, until=180,
        ),
        Quiet(why="nothing to do", series={TIMED: "90x120", WITHIN: "10x120"}, until=120),
        Quiet(
            why="within the budget",
            series={TIMED: "0+1000x120", WITHIN: "0+995x120"}, until=120,
        ),
        Quiet(
            why="a restart sets the counters back",
            series={TIMED: "0+60x30 _x2 0+60x60", WITHIN: "0+60x30 _x2 0+60x60"}, until=90,
        ),
    ),
    "AiosvcLatencyBudgetBurnSlow": (
        Fires(
            why="five of a hundred requests take longer",
            series={TIMED: "0+100x120", WITHIN: "0+95x120"},
            at=60, value="5%", labels={**JOB, "threshold": "0.25"},
        ),
        Quiet(
            why="one slow request of a service with little to do",
            series={TIMED: "0+1x180", WITHIN: "0+1x60 60+1x119"}, until=180,
        ),
        Quiet(why="nothing to do", series={TIMED: "90x120", WITHIN: "10x120"}, until=120),
        Quiet(
            why="within the budget",
            series={TIMED: "0+1000x120", WITHIN: "0+995x120"}, until=120,
        ),
    ),
    "AiosvcLatencyBucketMissing": (
        Fires(
            why="the service was set up without the bucket",
            series={TIMED: "0+60x60", WITHIN.replace("0.25", "0.5"): "0+60x60"},
            at=40, value="", labels={**JOB, "threshold": "0.25"},
        ),
        Quiet(why="the bucket is there", series={TIMED: "0+60x60", WITHIN: "0x60"}, until=60),
        Quiet(why="the service has just started", series={TIMED: "0+60x20"}, until=60),
    ),
    "AiosvcEventLoopLagHigh": (
        Fires(
            why="lags between 0.1 and 0.25 s",
            series=lag("0.1", "0x60") | lag("0.25", "0+1200x60") | lag("+Inf", "0+1200x60"),
            at=30, value="248.5ms", labels=INSTANCE,
        ),
        Quiet(
            why="a loop that keeps within 10 ms",
            series=lag("0.01", "0+1200x60") | lag("+Inf", "0+1200x60"), until=60,
        ),
        Quiet(
            why="one long lag in a minute",
            series=lag("0.01", "0+1199x60") | lag("10", "0+1200x60") | lag("+Inf", "0+1200x60"),
            until=60,
        ),
        Quiet(
            why="five bad minutes",
            series=lag("0.1", "0+1200x30 36000x4 36000+1200x30")
            | lag("0.25", "0+1200x65") | lag("+Inf", "0+1200x65"), until=65,
        ),
        Quiet(why="no loop", series=lag("0.1", "0x60") | lag("+Inf", "70x60"), until=60),
    ),
    "AiosvcEventLoopStalls": (
        Fires(
            why="two stalls a minute",
            series=of("asyncio_eventloop_stalls_total", "0+2x30"),
            at=20, value="20", labels=INSTANCE,
        ),
        Quiet(
            why="three stalls at the start",
            series=of("asyncio_eventloop_stalls_total", "0 3x60"), until=60,
        ),
        Quiet(
            why="a restart sets the counter back",
            series=of("asyncio_eventloop_stalls_total", "90x20 _ 0x40"), until=60,
        ),
    ),
    "AiosvcEventLoopSaturated": (
        Fires(
            why="busy for 57 s of each minute",
            series=loop_time("0+57x60", "0+3x60"), at=40, value="95%", labels=INSTANCE,
        ),
        Quiet(why="half busy", series=loop_time("0+30x60", "0+30x60"), until=60),
        Quiet(
            why="busy for ten minutes",
            series=loop_time("0+60x10 600+1x50", "0x10 0+59x50"), until=60,
        ),
        Quiet(
            why="a restart sets the counters back",
            series=loop_time("9000x20 _x2 0+1x40", "0+60x20 _x2 0+59x40"), until=60,
        ),
    ),
    "AiosvcQueueItemsWaitTooLong": (
        Fires(
            why="the oldest item of one of two replicas waits for two minutes",
            series=queue("queue_oldest_item_age_seconds", "120x20")
            | queue("queue_oldest_item_age_seconds", "0x20", B),
            at=5, value="2m 0s", labels=QUEUE,
        ),
        Fires(
            why="a queue with an objective of its own",
            series=queue("queue_oldest_item_age_seconds", "45x20"),
            at=5, value="45s", labels=QUEUE, options={"queue_ages": {"email": "30"}},
        ),
        Quiet(
            why="a queue that may wait for longer than others",
            series=queue("queue_oldest_item_age_seconds", "600x20"), until=20,
            options={"queue_ages": {"email": "3600", "sms": "1"}},
        ),
        Quiet(
            why="an empty queue", series=queue("queue_oldest_item_age_seconds", "0x20"), until=20
        ),
        Quiet(
            why="a moment, and a restart",
            series=queue("queue_oldest_item_age_seconds", "0x5 90 0x5 90 _ 0x9"), until=20,
        ),
    ),
    "AiosvcQueueStalled": (
        Fires(
            why="five items wait in one replica, and nothing is taken or finished there",
            series=info("process") | info("process", B)
            | queue("queue_depth", "5x40") | queue("queue_depth", "5x40", B)
            | completed("100x40") | completed("0+9x40", B)
            | queue("queue_wait_seconds_count", "104x40"),
            at=15, value="5", labels=QUEUE_OF_A,
        ),
        Fires(
            why="no replica takes anything from a queue that all of them share",
            series=info("shared") | info("shared", B)
            | queue("queue_depth", "7x40") | queue("queue_depth", "7x40", B)
            | completed("100x40") | completed("0x40", B),
            at=15, value="7", labels=QUEUE,
        ),
        Quiet(
            why="another replica works on the queue that they share",
            series=info("shared") | info("shared", B)
            | queue("queue_depth", "7x40") | queue("queue_depth", "7x40", B)
            | completed("100x40") | completed("0+1x40", B), until=40,
        ),
        Quiet(
            why="an empty queue",
            series=info("process") | queue("queue_depth", "0x40") | completed("9x40"), until=40,
        ),
        Quiet(
            why="items get on",
            series=info("process") | queue("queue_depth", "5x40") | completed("0+1x40"), until=40,
        ),
        Quiet(
            why="items are taken, and the first of them takes long",
            series=info("process") | queue("queue_depth", "5x40") | completed("0x40")
            | queue("queue_wait_seconds_count", "0+1x40"), until=40,
        ),
        Quiet(
            why="nothing says when an item is taken or finished",
            series=info("process") | queue("queue_depth", "5x40"), until=40,
        ),
        Quiet(
            why="an item comes after a long time with nothing to do",
            series=info("process") | queue("queue_depth", "0x20 1 0x19") | completed("9x20 10x20"),
            until=40,
        ),
        Quiet(
            why="a restart sets the counter back",
            series=info("process") | queue("queue_depth", "5x10 _x2 1 0x20")
            | completed("100+1x10 _x2 0x20"), until=40,
        ),
    ),
    "AiosvcJobHung": (
        Fires(
            why="a job runs for twenty minutes",
            series=queue("queue_oldest_running_seconds", "0+60x30"),
            at=20, value="20m 0s", labels=QUEUE_OF_A,
        ),
        Quiet(
            why="a job ends in time",
            series=queue("queue_oldest_running_seconds", "0+60x14 0x20"), until=34,
        ),
        Quiet(
            why="jobs that may take longer",
            series=queue("queue_oldest_running_seconds", "0+60x60"), until=60,
            options={"job_ages": {"email": "7200"}},
        ),
        Quiet(
            why="a restart ends the job",
            series=queue("queue_oldest_running_seconds", "0+60x15 _ 0x20"), until=36,
        ),
    ),
    "AiosvcWorkersSaturated": (
        Fires(
            why="four workers without a break",
            series=queue("worker_slots", "4x60") | queue("worker_busy_seconds_total", "0+240x60"),
            at=40, value="100%", labels=QUEUE,
        ),
        Quiet(
            why="four workers for ten minutes",
            series=queue("worker_slots", "4x60")
            | queue("worker_busy_seconds_total", "0+240x10 2400x50"), until=60,
        ),
        Quiet(
            why="one of two replicas has time",
            series=queue("worker_slots", "4x60") | queue("worker_slots", "4x60", B)
            | queue("worker_busy_seconds_total", "0+240x60")
            | queue("worker_busy_seconds_total", "0+100x60", B), until=60,
        ),
        Quiet(
            why="a restart sets the counter back",
            series=queue("worker_slots", "4x20 _x2 4x40")
            | queue("worker_busy_seconds_total", "9000x20 _x2 0x40"), until=60,
        ),
    ),
    "AiosvcQueueNearlyFull": (
        Fires(
            why="one of two replicas is nearly full",
            series=queue("queue_depth", "95x20") | queue("queue_capacity", "100x20")
            | queue("queue_depth", "0x20", B) | queue("queue_capacity", "100x20", B),
            at=10, value="95%", labels=QUEUE,
        ),
        Quiet(
            why="half full",
            series=queue("queue_depth", "50x20") | queue("queue_capacity", "100x20"), until=20,
        ),
        Quiet(why="a queue without limit", series=queue("queue_depth", "9999x20"), until=20),
        Quiet(
            why="a burst, and a restart",
            series=queue("queue_depth", "99x4 0x4 99x3 _ 0x9")
            | queue("queue_capacity", "100x11 _ 100x9"), until=20,
        ),
    ),
    "AiosvcDeadLettersGrowing": (
        Fires(
            why="an item is given up on each minute",
            series=dead("0+1x80"), at=70, value="60", labels=QUEUE,
        ),
        Fires(
            why="the dead letters of a broker grow",
            series=info("shared") | queue("queue_dead", "0x30 30x60"),
            at=40, value="30.38", labels=QUEUE,
        ),
        Quiet(why="one item", series=dead("0x10 1x80"), until=90),
        Quiet(
            why="many that were there before",
            series=info("shared") | queue("queue_dead", "500x90"), until=90,
        ),
        Quiet(why="a restart sets the counter back", series=dead("90x30 _ 0x50"), until=80),
        Quiet(why="items that only failed", series=completed("0+9x80", outcome="error"), until=80),
    ),
    "AiosvcFileDescriptorsNearLimit": (
        Fires(why="nine of ten are open", series=files("900x20"), at=10, value="90%",
              labels=INSTANCE),
        Quiet(why="half are open", series=files("500x20"), until=20),
        Quiet(why="a burst, and a restart", series=files("990x4 10x4 990x3 _ 10x9"), until=20),
    ),
    "AiosvcMemoryNearLimit": (
        Fires(why="nearly all is used", series=memory("950x20"), at=10, value="95%",
              labels=INSTANCE),
        Quiet(why="half is used", series=memory("500x20"), until=20),
        Quiet(why="nothing limits it", series=of("process_memory_rss_bytes", "9e12x20"), until=20),
        Quiet(why="a burst, and a restart", series=memory("950x4 100x4 950x3 _ 100x9"), until=20),
    ),
    "AiosvcMemoryWillRunOut": (
        Fires(
            why="it grows by 2 of 1000 each minute",
            series=memory("500+2x100"), at=90, value="1.133ki", labels=INSTANCE,
        ),
        Quiet(why="it stays as it is", series=memory("800x200"), until=200),
        Quiet(
            why="a small process that has just started grows fast",
            series=memory("10+10x30 310x170"), until=200,
        ),
        Quiet(why="it goes up and down", series=memory(" ".join(["600+3x19"] * 10)), until=199),
        Quiet(
            why="a restart begins anew",
            series=memory("600+1x30 _x2 100x170"), until=200,
        ),
    ),
    "AiosvcRestarting": (
        Fires(
            why="four restarts",
            series=of("process_start_time_seconds", "100x5 200x5 300x5 400x5 500x30"),
            at=30, value="4", labels=INSTANCE,
        ),
        Quiet(
            why="two deployments",
            series=of("process_start_time_seconds", "100x20 _x2 200x20 _ 300x60"), until=100,
        ),
        Quiet(
            why="a restart every half hour",
            series=of(
                "process_start_time_seconds", " ".join(f"{n}00x29" for n in range(1, 8))
            ), until=200,
        ),
    ),
    "AiosvcSamplerStale": (
        Fires(
            why="half a minute late",
            series=of("aiosvc_sampler_lateness_seconds", "30x20"),
            at=10, value="30s", labels=INSTANCE,
        ),
        Quiet(why="in time", series=of("aiosvc_sampler_lateness_seconds", "0.002x20"), until=20),
        Quiet(
            why="one long stall, which is shown for two minutes",
            series=of("aiosvc_sampler_lateness_seconds", "0x5 9x2 0x13"), until=20,
        ),
    ),
    "AiosvcSourceDown": (
        Fires(
            why="a source fails",
            series=source("0x20") | of("aiosvc_source_up", "1x20", A, 'source="process"'),
            at=10, value="0", labels={**INSTANCE, "source": "database"},
        ),
        Quiet(why="it succeeds", series=source("1x20"), until=20),
        Quiet(why="a few failures, and a restart", series=source("0x4 1x4 0x3 _ 1x9"), until=20),
    ),
    "AiosvcLabelOverflow": (
        Fires(
            why="endpoints beyond the cap",
            series=overflow("0x5 0+10x60"), at=45, value="300",
            labels={**INSTANCE, "metric": "http_requests_total", "label": "endpoint"},
        ),
        Fires(
            why="a counter that appears with its first events",
            series=overflow("_x40 7x30", "item"), at=50, value="7",
            labels={**INSTANCE, "metric": "http_requests_total", "label": "item"},
        ),
        Quiet(why="methods that clients made up", series=overflow("0+9x90", "method"), until=90),
        Quiet(why="no label is full", series=overflow("0x90"), until=90),
        Quiet(why="a restart sets the counter back", series=overflow("0x40 _x2 0x40"), until=80),
    ),
    "AiosvcInstrumentationErrors": (
        Fires(
            why="a callback that raises all the time",
            series=errors("0+1x60"), at=50, value="30",
            labels={**INSTANCE, "where": "label tenant"},
        ),
        Fires(
            why="a counter that appears with its first errors",
            series=errors("_x40 9x30"), at=45, value="9",
            labels={**INSTANCE, "where": "label tenant"},
        ),
        Quiet(why="one error", series=errors("_x40 1x60"), until=100),
        Quiet(why="one more error", series=errors("1x40 2x60"), until=100),
        Quiet(why="a restart sets the counter back", series=errors("3x40 _x2 0x40"), until=80),
    ),
    "AiosvcCollectorFailing": (
        Fires(
            why="a collector that fails in every scrape",
            series=left_out("0+1x60"), at=50, value="30",
            labels={**INSTANCE, "collector": "Stock"},
        ),
        Quiet(why="one failure", series=left_out("_x40 1x60"), until=100),
        Quiet(why="a restart sets the counter back", series=left_out("3x40 _x2 0x40"), until=80),
    ),
    "AiosvcTargetDown": (
        Fires(
            why="one of two targets is down",
            series=of("up", "1x3 0x20") | of("up", "1x20", B), at=12, value="0", labels=INSTANCE,
        ),
        Quiet(why="a restart", series=of("up", "1x5 0x3 1x20"), until=28),
        Quiet(
            why="a target of somebody else's", series={'up{job="node",instance="n"}': "0x30"},
            until=30,
        ),
    ),
    "AiosvcServiceAbsent": (
        Fires(
            why="both targets are down",
            series=of("up", "1x3 0x20") | of("up", "1x3 0x20", B), at=10, value="0", labels=JOB,
        ),
        Fires(
            why="no target is there any more",
            series=of("up", "1x3 stale") | {'up{job="node",instance="n"}': "1x20"},
            at=10, value="1", labels=JOB,
        ),
        Quiet(
            why="one of two targets is down",
            series=of("up", "1x3 0x20") | of("up", "1x20", B), until=23,
        ),
        Quiet(why="a restart", series=of("up", "1x5 0x2 1x20"), until=27),
    ),
}  # fmt: skip
