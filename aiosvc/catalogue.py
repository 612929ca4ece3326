"""
Every metric that aiosvc itself exports: its name, type, labels and meaning, written once.

Rule: a metric exists because it has a row here; registration, samples and documentation come from
the row. Rule: rows are plain data, this module imports nothing of aiosvc.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CATALOGUE",
    "CLIENTS",
    "DURATION_BUCKETS",
    "JOBS",
    "LIFETIME_BUCKETS",
    "PAUSE_BUCKETS",
    "PROCESSING_BUCKETS",
    "QUEUES",
    "RUNTIME",
    "SIZE_BUCKETS",
    "WAIT_BUCKETS",
    "MetricSpec",
]

Kind = Literal["counter", "gauge", "histogram", "summary"]
Merge = Literal["sum", "max", "min", "first"]

#: Seconds; the OpenTelemetry advice for HTTP durations, and prometheus_client's own default.
DURATION_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip

#: Seconds; down to what a healthy event loop keeps within.
LAG_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

#: Seconds; to hours, for what stays open.
LIFETIME_BUCKETS = (
    0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0,
)  # fmt: skip

#: Seconds; from a pause that nobody notices to one that every request waits for.
PAUSE_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)

#: Seconds; of waiting in a queue, to half an hour.
WAIT_BUCKETS = (
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
)  # fmt: skip

#: Seconds; of jobs, to an hour.
PROCESSING_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0,
    3600.0,
)  # fmt: skip

#: Bytes; each four times the one before.
SIZE_BUCKETS = (64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0)


@dataclass(frozen=True, eq=False, slots=True)
class MetricSpec:
    """
    One metric family.

    *name* is the family's full name, `_total` of a counter included. *merge* says what one number
    for several applications on one registry means: their sum, the largest, the smallest, or the
    first one's (where each reports the same fact about the process). *buckets* are a histogram's
    default upper bounds, +Inf left out. A counter that *clashes* is exported without its type: in
    OpenMetrics a counter's family has no `_total`, and there is a gauge of that name already. A
    *standard* name is one that prometheus_client's own collector exports too; it is left to
    whoever has it in the registry already.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"
    buckets: tuple[float, ...] = ()
    clashes: bool = False
    standard: bool = False


# -- HTTP server -----------------------------------------------------------------------------------

HTTP_REQUESTS = MetricSpec(
    "http_requests_total",
    "counter",
    "Requests answered, each exactly once, by the status that was sent.",
    ("method", "endpoint", "status"),
)
HTTP_DURATION = MetricSpec(
    "http_request_duration_seconds",
    "histogram",
    "Time from the parsed request to the last byte handed to the transport.",
    ("method", "endpoint"),
    buckets=DURATION_BUCKETS,
)
HTTP_RESPONSE_START = MetricSpec(
    "http_response_start_seconds",
    "histogram",
    "Time from the parsed request to the response headers.",
    ("method", "endpoint"),
    buckets=DURATION_BUCKETS,
)
HTTP_IN_PROGRESS = MetricSpec(
    "http_requests_in_progress",
    "gauge",
    "Requests begun and not finished yet; open WebSockets are counted apart.",
    ("method", "endpoint"),
)
HTTP_OLDEST = MetricSpec(
    "http_request_oldest_in_progress_seconds",
    "gauge",
    "Age of the oldest request in progress; 0 when there is none.",
    merge="max",
)
HTTP_REQUEST_SIZE = MetricSpec(
    "http_request_size_bytes",
    "summary",
    "Bytes of request body received, as they came over the wire.",
    ("method", "endpoint"),
)
HTTP_RESPONSE_SIZE = MetricSpec(
    "http_response_size_bytes",
    "summary",
    "Bytes of response body sent, as they went over the wire, without chunk framing.",
    ("method", "endpoint"),
)
HTTP_FAILURES = MetricSpec(
    "http_request_failures_total",
    "counter",
    "Requests that did not end well, by what happened to them.",
    ("method", "endpoint", "reason"),
)
HTTP_EXCEPTIONS = MetricSpec(
    "http_exceptions_total",
    "counter",
    "Exceptions that no handler or middleware caught, by class; HTTP responses raised are none.",
    ("endpoint", "exception"),
)
HTTP_BAD_REQUESTS = MetricSpec(
    "http_bad_requests_total",
    "counter",
    "Requests that the HTTP parser refused; no handler saw them.",
)
WEBSOCKET_CONNECTIONS = MetricSpec(
    "websocket_connections",
    "gauge",
    "WebSockets open now.",
    ("endpoint",),
)
WEBSOCKET_CONNECTIONS_TOTAL = MetricSpec(
    "websocket_connections_total",
    "counter",
    "WebSockets opened.",
    ("endpoint",),
    clashes=True,
)
WEBSOCKET_DURATION = MetricSpec(
    "websocket_duration_seconds",
    "histogram",
    "Time from the upgrade to the end of a WebSocket.",
    ("endpoint",),
    buckets=LIFETIME_BUCKETS,
)
WEBSOCKET_CLOSES = MetricSpec(
    "websocket_closes_total",
    "counter",
    "WebSockets ended, by close code.",
    ("endpoint", "code"),
)
ACTIVE_CONNECTIONS = MetricSpec(
    "active_connections",
    "gauge",
    "TCP connections open to the server, idle keep-alive ones included.",
)
CONNECTIONS = MetricSpec(
    "connections_total",
    "counter",
    "TCP connections accepted since the start.",
)

# -- HTTP server, as OpenTelemetry's semantic conventions name it (the preset `otel`) --------------

OTEL_DURATION = MetricSpec(
    "http_server_request_duration_seconds",
    "histogram",
    "Time from the parsed request to the last byte handed to the transport.",
    ("http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"),
    buckets=DURATION_BUCKETS,
)
OTEL_ACTIVE = MetricSpec(
    "http_server_active_requests",
    "gauge",
    "Requests begun and not finished yet; open WebSockets are counted apart.",
    ("http_request_method", "url_scheme"),
)
OTEL_REQUEST_SIZE = MetricSpec(
    "http_server_request_body_size_bytes",
    "histogram",
    "Bytes of request body received, as they came over the wire.",
    ("http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"),
    buckets=SIZE_BUCKETS,
)
OTEL_RESPONSE_SIZE = MetricSpec(
    "http_server_response_body_size_bytes",
    "histogram",
    "Bytes of response body sent, as they went over the wire, without chunk framing.",
    ("http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"),
    buckets=SIZE_BUCKETS,
)

# -- HTTP client -----------------------------------------------------------------------------------

CLIENT_DURATION = MetricSpec(
    "http_client_request_duration_seconds",
    "histogram",
    "Time from a request's start to the end of its response's body, redirects included; status is "
    "empty where there was no response, error where it ended well.",
    ("method", "host", "status", "error"),
    buckets=DURATION_BUCKETS,
)
CLIENT_RESPONSE_START = MetricSpec(
    "http_client_response_start_seconds",
    "histogram",
    "Time from a request's start to the headers of its response, redirects included.",
    ("method", "host"),
    buckets=DURATION_BUCKETS,
)
CLIENT_IN_PROGRESS = MetricSpec(
    "http_client_requests_in_progress",
    "gauge",
    "Requests begun whose response has not been read or let go of yet.",
    ("method", "host"),
)
CLIENT_REDIRECTS = MetricSpec(
    "http_client_redirects_total",
    "counter",
    "Redirects that were followed, by the host first asked.",
    ("method", "host"),
)
CLIENT_CONNECT = MetricSpec(
    "http_client_connect_seconds",
    "histogram",
    "Time to open a connection, name resolution and TLS included.",
    ("host",),
    buckets=DURATION_BUCKETS,
)
CLIENT_DNS = MetricSpec(
    "http_client_dns_seconds",
    "histogram",
    "Time to resolve a host's name where it was not in the cache.",
    ("host",),
    buckets=DURATION_BUCKETS,
)
CLIENT_REUSED = MetricSpec(
    "http_client_connections_reused_total",
    "counter",
    "Requests that found an open connection.",
    ("host",),
)
CLIENT_WAIT = MetricSpec(
    "http_client_connection_wait_seconds",
    "histogram",
    "Time that requests waited since the connection pool was at its limit.",
    ("client",),
    buckets=DURATION_BUCKETS,
)
CLIENT_POOL_ACQUIRED = MetricSpec(
    "http_client_pool_connections",
    "gauge",
    "Connections in use by requests.",
    ("client",),
)
CLIENT_POOL_WAITING = MetricSpec(
    "http_client_pool_waiting",
    "gauge",
    "Requests that wait for a connection of the pool.",
    ("client",),
)
CLIENT_POOL_LIMIT = MetricSpec(
    "http_client_pool_limit",
    "gauge",
    "Connections that the pools allow; absent where one of them has no limit.",
    ("client",),
)

# -- Event loop ------------------------------------------------------------------------------------

EVENTLOOP_LAG = MetricSpec(
    "asyncio_eventloop_lag_seconds",
    "histogram",
    "Longest time in each 50 ms for which the event loop did not look for what became ready.",
    buckets=LAG_BUCKETS,
)
EVENTLOOP_TIME = MetricSpec(
    "asyncio_eventloop_time_seconds_total",
    "counter",
    "Time that the event loop ran callbacks (busy) and waited for something to do (idle).",
    ("state",),
)
EVENTLOOP_STALLS = MetricSpec(
    "asyncio_eventloop_stalls_total",
    "counter",
    "Times that the event loop was held up for longer than the stall threshold.",
)

# -- Process ---------------------------------------------------------------------------------------

PROCESS_RSS = MetricSpec(
    "process_memory_rss_bytes",
    "gauge",
    "Resident memory of the process.",
    merge="first",
)
PROCESS_VMS = MetricSpec(
    "process_memory_vms_bytes",
    "gauge",
    "Virtual memory of the process.",
    merge="first",
)
PROCESS_THREADS = MetricSpec(
    "process_threads",
    "gauge",
    "Threads of the process, as the operating system counts them.",
    merge="first",
)
PROCESS_MEMORY_LIMIT = MetricSpec(
    "process_memory_limit_bytes",
    "gauge",
    "Memory that the process's container or control group may use; absent where nothing limits it.",
    merge="first",
)
PROCESS_CONTEXT_SWITCHES = MetricSpec(
    "process_context_switches_total",
    "counter",
    "Context switches of all threads: voluntary ones waited, involuntary ones were taken off.",
    ("kind",),
    merge="max",
)
PROCESS_CPU = MetricSpec(
    "process_cpu_seconds_total",
    "counter",
    "Total user and system CPU time spent in seconds.",
    merge="max",
    standard=True,
)
PROCESS_VIRTUAL_MEMORY = MetricSpec(
    "process_virtual_memory_bytes",
    "gauge",
    "Virtual memory size in bytes.",
    merge="first",
    standard=True,
)
PROCESS_RESIDENT_MEMORY = MetricSpec(
    "process_resident_memory_bytes",
    "gauge",
    "Resident memory size in bytes.",
    merge="first",
    standard=True,
)
PROCESS_START = MetricSpec(
    "process_start_time_seconds",
    "gauge",
    "Start time of the process since unix epoch in seconds.",
    merge="first",
    standard=True,
)
PROCESS_OPEN_FDS = MetricSpec(
    "process_open_fds",
    "gauge",
    "Number of open file descriptors.",
    merge="first",
    standard=True,
)
PROCESS_MAX_FDS = MetricSpec(
    "process_max_fds",
    "gauge",
    "Maximum number of open file descriptors.",
    merge="first",
    standard=True,
)

# -- Python and asyncio ----------------------------------------------------------------------------

PYTHON_GC_DURATION = MetricSpec(
    "python_gc_duration_seconds",
    "histogram",
    "Pauses of the garbage collector, in which no Python code runs, by generation.",
    ("generation",),
    buckets=PAUSE_BUCKETS,
)
ASYNCIO_TASKS = MetricSpec(
    "asyncio_tasks",
    "gauge",
    "Tasks of the event loop that are not done, aiosvc's own left out.",
)
ASYNCIO_TASK_OLDEST = MetricSpec(
    "asyncio_task_oldest_seconds",
    "gauge",
    "Time since the oldest task of the group was first seen, by the sampler; 0 when there is none.",
    ("group",),
    merge="max",
)
ASYNCIO_EXECUTOR_THREADS = MetricSpec(
    "asyncio_executor_threads",
    "gauge",
    "Threads of the event loop's default executor.",
)
ASYNCIO_EXECUTOR_BUSY = MetricSpec(
    "asyncio_executor_busy_threads",
    "gauge",
    "Threads of the default executor that run a function now.",
)
ASYNCIO_EXECUTOR_MAX = MetricSpec(
    "asyncio_executor_max_threads",
    "gauge",
    "Threads that the default executor may have; absent until it is used for the first time.",
)
ASYNCIO_EXECUTOR_QUEUE = MetricSpec(
    "asyncio_executor_queue_depth",
    "gauge",
    "Functions that wait for a thread of the default executor.",
)

# -- Queues ----------------------------------------------------------------------------------------

QUEUE_DEPTH = MetricSpec(
    "queue_depth",
    "gauge",
    "Items ready and waiting to be taken; those scheduled for later are not.",
    ("queue_name",),
)
QUEUE_IN_FLIGHT = MetricSpec(
    "queue_in_flight",
    "gauge",
    "Items taken and not finished yet; absent where nothing says when an item is finished.",
    ("queue_name",),
)
QUEUE_SCHEDULED = MetricSpec(
    "queue_scheduled",
    "gauge",
    "Items that wait for their time, such as retries; not in the depth yet.",
    ("queue_name",),
)
QUEUE_DEAD = MetricSpec(
    "queue_dead",
    "gauge",
    "Items given up on and kept as dead letters; absent where none are kept.",
    ("queue_name",),
)
QUEUE_CAPACITY = MetricSpec(
    "queue_capacity",
    "gauge",
    "Items that the queue can hold; absent for an unbounded queue.",
    ("queue_name",),
)
QUEUE_CONSUMERS = MetricSpec(
    "queue_consumers",
    "gauge",
    "Consumers attached to the queue, busy or waiting; absent where they can't be known.",
    ("queue_name",),
)
QUEUE_CONSUMERS_WAITING = MetricSpec(
    "queue_consumers_waiting",
    "gauge",
    "Consumers that wait for an item now, which is to say idle ones.",
    ("queue_name",),
)
QUEUE_PRODUCERS_WAITING = MetricSpec(
    "queue_producers_waiting",
    "gauge",
    "Producers that wait for room in the queue now.",
    ("queue_name",),
)
QUEUE_RETAINED = MetricSpec(
    "queue_retained_items",
    "gauge",
    "Items that the queue's store holds, finished ones that were not deleted included.",
    ("queue_name",),
)
QUEUE_OLDEST_ITEM = MetricSpec(
    "queue_oldest_item_age_seconds",
    "gauge",
    "Time since the oldest item that is ready became so; 0 when there is none.",
    ("queue_name",),
    merge="max",
)
QUEUE_OLDEST_RUNNING = MetricSpec(
    "queue_oldest_running_seconds",
    "gauge",
    "How long the job that runs longest has been running; 0 when none runs.",
    ("queue_name",),
    merge="max",
)
QUEUE_LAST_COMPLETED = MetricSpec(
    "queue_last_completed_timestamp_seconds",
    "gauge",
    "Unix time at which an attempt last ended, however it ended; absent before the first.",
    ("queue_name",),
    merge="max",
)
QUEUE_ENQUEUED = MetricSpec(
    "queue_items_enqueued_total",
    "counter",
    "Items that the queue took in; a retry that goes back into it is none.",
    ("queue_name",),
)
QUEUE_REJECTED = MetricSpec(
    "queue_items_rejected_total",
    "counter",
    "Items that the queue did not take in, by reason.",
    ("queue_name", "reason"),
)
QUEUE_DROPPED = MetricSpec(
    "queue_items_dropped_total",
    "counter",
    "Items that left without having been processed to an end, by reason.",
    ("queue_name", "reason"),
)
QUEUE_COMPLETED = MetricSpec(
    "queue_items_completed_total",
    "counter",
    "Attempts to process an item, each exactly once, by how they ended.",
    ("queue_name", "job", "outcome"),
)
QUEUE_WAIT = MetricSpec(
    "queue_wait_seconds",
    "histogram",
    "Time from when an item became ready to when it was taken.",
    ("queue_name",),
    buckets=WAIT_BUCKETS,
)
QUEUE_PROCESSING = MetricSpec(
    "queue_processing_seconds",
    "histogram",
    "Time that an attempt to process an item took, however it ended.",
    ("queue_name", "job"),
    buckets=PROCESSING_BUCKETS,
)
WORKER_SLOTS = MetricSpec(
    "worker_slots",
    "gauge",
    "Jobs that can run at the same time.",
    ("queue_name",),
)
WORKERS_BUSY = MetricSpec(
    "workers_busy",
    "gauge",
    "Jobs that run now.",
    ("queue_name",),
)
WORKER_BUSY_SECONDS = MetricSpec(
    "worker_busy_seconds_total",
    "counter",
    "Time spent on jobs, those that still run included; its rate by worker_slots is utilisation.",
    ("queue_name",),
)
QUEUE_INFO = MetricSpec(
    "queue_info",
    "gauge",
    "What the queue is, always 1; of scope 'process' replicas are summed, of 'shared' they agree.",
    ("queue_name", "backend", "scope"),
    merge="first",
)

# -- Batch jobs ------------------------------------------------------------------------------------

JOB_LAST_START = MetricSpec(
    "job_last_start_timestamp_seconds",
    "gauge",
    "Unix time at which the job began last.",
    merge="max",
)
JOB_LAST_END = MetricSpec(
    "job_last_end_timestamp_seconds",
    "gauge",
    "Unix time at which the job ended last, well or not; absent while it runs.",
    merge="max",
)
JOB_LAST_SUCCESS = MetricSpec(
    "job_last_success_timestamp_seconds",
    "gauge",
    "Unix time at which the job ended well last.",
    merge="max",
)
JOB_SUCCEEDED = MetricSpec(
    "job_succeeded",
    "gauge",
    "1 when the job's last run ended well, 0 when it did not; absent while it runs.",
    merge="min",
)
JOB_DURATION = MetricSpec(
    "job_duration_seconds",
    "gauge",
    "Time that the job's last run took, or has taken while it runs.",
    merge="max",
)

# -- aiosvc itself ---------------------------------------------------------------------------------

SOURCE_UP = MetricSpec(
    "aiosvc_source_up",
    "gauge",
    "1 when the source's last sample succeeded, 0 when it failed or timed out.",
    ("source",),
    merge="min",
)
SOURCE_DURATION = MetricSpec(
    "aiosvc_source_duration_seconds",
    "gauge",
    "Time that the source's last sample took.",
    ("source",),
    merge="max",
)
SOURCE_LAST_SUCCESS = MetricSpec(
    "aiosvc_source_last_success_timestamp_seconds",
    "gauge",
    "Unix time of the source's last successful sample.",
    ("source",),
    merge="min",
)
SAMPLER_LATENESS = MetricSpec(
    "aiosvc_sampler_lateness_seconds",
    "gauge",
    "How late the sampler's turns started at worst, in the current and the last minute.",
    merge="max",
)
SCRAPES = MetricSpec(
    "aiosvc_scrapes_total",
    "counter",
    "Answers of the metrics endpoint, by HTTP status.",
    ("code",),
)
SCRAPES_IN_PROGRESS = MetricSpec(
    "aiosvc_scrapes_in_progress",
    "gauge",
    "Scrapes being answered, this one included.",
)
SCRAPE_DURATION = MetricSpec(
    "aiosvc_scrape_duration_seconds",
    "summary",
    "Time from a scrape's request to the last byte handed over.",
)
EXPOSITION_BYTES = MetricSpec(
    "aiosvc_exposition_bytes",
    "gauge",
    "Size of the last whole scrape, before compression.",
    merge="max",
)
EXPOSITION_ERRORS = MetricSpec(
    "aiosvc_exposition_errors_total",
    "counter",
    "Times that a collector failed and its metrics were left out of a scrape.",
    ("collector",),
)
SERIES = MetricSpec(
    "aiosvc_series",
    "gauge",
    "Series of each family in the last whole scrape.",
    ("family",),
    merge="max",
)
LABEL_OVERFLOW = MetricSpec(
    "aiosvc_label_overflow_total",
    "counter",
    "Times that a label value past the cap was replaced by '_other', or its series left out.",
    ("metric", "label"),
)
INSTRUMENTATION_ERRORS = MetricSpec(
    "aiosvc_instrumentation_errors_total",
    "counter",
    "Errors inside aiosvc or a callback given to it; the application was not disturbed by them.",
    ("where",),
)
ADMIN_CONNECTIONS_DROPPED = MetricSpec(
    "aiosvc_admin_connections_dropped_total",
    "counter",
    "Connections that the admin server ended or turned away, by why: every place was busy (full), a "
    "new one needed the place of a silent one (displaced), the client took too long (timeout), its "
    "certificate has none of the names that may connect (certificate).",
    ("reason",),
)
ADMIN_RELOAD_FAILURES = MetricSpec(
    "aiosvc_admin_config_reload_failures_total",
    "counter",
    "Times that a changed configuration of the admin server was wrong, so the one before stayed.",
)
ADMIN_RELOAD_SUCCESSFUL = MetricSpec(
    "aiosvc_admin_config_last_reload_successful",
    "gauge",
    "1 when the admin server's configuration, as it is in its files, is in force; 0 when it is wrong.",
    merge="min",
)
BUILD_INFO = MetricSpec(
    "aiosvc_build_info",
    "gauge",
    "Versions in use; always 1.",
    ("version", "python", "aiohttp"),
    merge="first",
)

#: All rows, in the order in which they are exported.
CATALOGUE: tuple[MetricSpec, ...] = tuple(
    row for row in list(globals().values()) if isinstance(row, MetricSpec)
)


def _beginning(*prefixes: str) -> tuple[MetricSpec, ...]:
    return tuple(row for row in CATALOGUE if row.name.startswith(prefixes))


#: What there is to say of any process.
RUNTIME: tuple[MetricSpec, ...] = _beginning("asyncio_", "process_", "python_", "aiosvc_")
#: Of queues, their workers and their jobs.
QUEUES: tuple[MetricSpec, ...] = _beginning("queue_", "worker")
#: Of requests that it makes of others.
CLIENTS: tuple[MetricSpec, ...] = _beginning("http_client_")
#: Of a job that ends.
JOBS: tuple[MetricSpec, ...] = _beginning("job_")
