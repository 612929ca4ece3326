"""
The dashboard of the service: what its clients get, by the names of either preset.

Rule: the presets differ in names only; what a panel says is the same for both.
"""

from dataclasses import dataclass

from board import Board, Row, Variable
from panels import Column, Panel, Query
from queries import fraction, quantile, rate, ratio, select, top, total

__all__ = ["CLASSIC", "OTEL", "Names", "overview"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What the HTTP metrics and their labels are called."""

    preset: str
    requests: str
    duration: str
    in_progress: str
    received: str
    sent: str
    method: str
    endpoint: str
    status: str


CLASSIC = Names(
    preset="classic",
    requests="http_requests_total",
    duration="http_request_duration_seconds",
    in_progress="http_requests_in_progress",
    received="http_request_size_bytes_sum",
    sent="http_response_size_bytes_sum",
    method="method",
    endpoint="endpoint",
    status="status",
)
OTEL = Names(
    preset="otel",
    requests="http_server_request_duration_seconds_count",
    duration="http_server_request_duration_seconds",
    in_progress="http_server_active_requests",
    received="http_server_request_body_size_bytes_sum",
    sent="http_server_response_body_size_bytes_sum",
    method="http_request_method",
    endpoint="http_route",
    status="http_response_status_code",
)


def overview(names: Names) -> Board:
    """Return the dashboard for one preset."""
    otel = names.preset == "otel"
    return Board(
        uid="aiosvc-service-otel" if otel else "aiosvc-service",
        title="aiosvc / Service (OpenTelemetry names)" if otel else "aiosvc / Service",
        description="What the clients of an aiohttp service get: traffic, errors, latency, "
        "saturation, and which endpoints are to blame.",
        variables=(
            Variable(
                "objective",
                "Objective (s)",
                "Seconds within which a request should be answered; one of the histogram's bounds.",
                f'label_values({names.duration}_bucket{{job=~"$job", le!="+Inf"}}, le)',
                multi=False,
                default="0.5",
            ),
        ),
        rows=(
            Row("At a glance", _glance(names)),
            Row("Traffic and errors", _traffic(names)),
            Row("Latency", _latency(names)),
            Row("Endpoints", _endpoints(names)),
            Row("Saturation", _saturation(names)),
            Row("Connections and WebSockets", CONNECTIONS),
        ),
    )


def _within(names: Names) -> str:
    good = rate(f"{names.duration}_bucket", 'le="$objective"')
    return ratio(good, rate(f"{names.duration}_count"))


def _failed(names: Names, *labels: str) -> str:
    server_errors = f'{names.status}=~"5.."'
    return fraction(rate(names.requests, server_errors), rate(names.requests), *labels)


def _glance(names: Names) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Requests",
            description="Requests answered per second, whatever the answer.",
            unit="reqps",
            queries=(Query(total(rate(names.requests))),),
            shape="number",
            width=4,
        ),
        Panel(
            title="Server errors",
            description="Share of requests answered with 5xx. Absent without any request.",
            unit="percentunit",
            queries=(Query(_failed(names)),),
            shape="number",
            width=4,
            limits=(0.001, 0.01),
            runbooks=("AiosvcErrorBudgetBurnFast", "AiosvcErrorBudgetBurnSlow"),
        ),
        Panel(
            title="Within the objective",
            description="Share of requests answered within the objective chosen above, counted from "
            "a bucket, not estimated.",
            unit="percentunit",
            queries=(Query(_within(names)),),
            shape="number",
            width=4,
            limits=(0.99, 0.95),
            runbooks=("AiosvcLatencyBudgetBurnFast", "AiosvcLatencyBudgetBurnSlow"),
        ),
        Panel(
            title="99th percentile",
            description="Time that all but the slowest hundredth of requests stay within, to the "
            "last byte handed to the transport.",
            unit="s",
            queries=(Query(quantile(0.99, names.duration)),),
            shape="number",
            width=4,
        ),
        Panel(
            title="Oldest request in progress",
            description="Age of the oldest unfinished request of any replica: a request that hangs "
            "is in no histogram until it ends.",
            unit="s",
            queries=(Query(f"max({select('http_request_oldest_in_progress_seconds')})"),),
            shape="number",
            width=4,
            limits=(10, 60),
        ),
        Panel(
            title="Replicas that can't be scraped",
            description="Replicas of the job whose metrics Prometheus does not get.",
            unit="none",
            queries=(Query(f"count({select('up')}) - sum({select('up')})"),),
            shape="number",
            width=4,
            limits=(1, 2),
            runbooks=("AiosvcTargetDown",),
        ),
    )


def _traffic(names: Names) -> tuple[Panel, ...]:
    by_class = f'label_replace({rate(names.requests)}, "class", "$1", "{names.status}", "(.).*")'
    return (
        Panel(
            title="Requests by status",
            description="Requests per second by the first digit of the status that was sent. 499, "
            "in 4xx, are clients that left before any was.",
            unit="reqps",
            queries=(Query(total(by_class, "class"), "{{class}}xx"),),
            shape="stacked",
        ),
        Panel(
            title="Failures by reason",
            description="Requests per second that did not end well: an exception, a timeout, a "
            "client that left, an answer broken off after its headers, a shutdown.",
            unit="reqps",
            queries=(Query(total(rate("http_request_failures_total"), "reason"), "{{reason}}"),),
            shape="stacked",
            runbooks=("AiosvcErrorBudgetBurnFast", "AiosvcErrorBudgetBurnSlow"),
        ),
        Panel(
            title="Exceptions by class",
            description="Exceptions per second that no handler caught, by class, and requests that "
            "the parser refused.",
            unit="reqps",
            queries=(
                Query(total(rate("http_exceptions_total"), "exception"), "{{exception}}"),
                Query(total(rate("http_bad_requests_total")), "malformed requests"),
            ),
            shape="stacked",
        ),
        Panel(
            title="Server errors",
            description="Share of requests answered with 5xx.",
            unit="percentunit",
            queries=(Query(_failed(names), "5xx"),),
            width=12,
            runbooks=("AiosvcErrorBudgetBurnFast", "AiosvcErrorBudgetBurnSlow"),
        ),
        Panel(
            title="Bodies",
            description="Bytes of request and response bodies per second, as they went over the wire.",
            unit="Bps",
            queries=(
                Query(total(rate(names.received)), "received"),
                Query(total(rate(names.sent)), "sent"),
            ),
            width=12,
        ),
    )


def _latency(names: Names) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Latency",
            description="Percentiles over all requests of all replicas, to the last byte handed to "
            "the transport.",
            unit="s",
            queries=tuple(
                Query(quantile(q, names.duration), f"p{q * 100:g}") for q in (0.5, 0.9, 0.99)
            ),
            runbooks=("AiosvcLatencyBudgetBurnFast", "AiosvcLatencyBudgetBurnSlow"),
        ),
        Panel(
            title="Within the objective",
            description="Share of requests answered within the objective chosen above.",
            unit="percentunit",
            queries=(Query(_within(names), "within $objective s"),),
            most=1,
            runbooks=("AiosvcLatencyBudgetBurnFast", "AiosvcLatencyBudgetBurnSlow"),
        ),
        Panel(
            title="99th percentile by replica",
            description="The twenty slowest replicas: one that is slower than the others has a "
            "problem of its own.",
            unit="s",
            queries=(
                Query(top(quantile(0.99, names.duration, "job", "instance")), "{{instance}}"),
            ),
        ),
    )


def _endpoints(names: Names) -> tuple[Panel, ...]:
    by = (names.method, names.endpoint)
    legend = f"{{{{{names.method}}}}} {{{{{names.endpoint}}}}}"
    busiest = top(total(rate(names.requests), *by))
    return (
        Panel(
            title="Busiest endpoints",
            description="The twenty endpoints with most requests: how many, what share of them was "
            "answered with 5xx, and how long they took.",
            unit="reqps",
            queries=(
                Query(busiest),
                Query(f"({_failed(names, *by)}) and {busiest}"),
                Query(f"{quantile(0.5, names.duration, *by)} and {busiest}"),
                Query(f"{quantile(0.99, names.duration, *by)} and {busiest}"),
            ),
            shape="table",
            width=24,
            columns=(
                Column("Requests", "reqps"),
                Column("Server errors", "percentunit"),
                Column("p50", "s"),
                Column("p99", "s"),
            ),
        ),
        Panel(
            title="Requests by endpoint",
            description="Requests per second of the twenty busiest endpoints.",
            unit="reqps",
            queries=(Query(busiest, legend),),
        ),
        Panel(
            title="Slowest endpoints",
            description="99th percentile of the twenty slowest endpoints.",
            unit="s",
            queries=(Query(top(quantile(0.99, names.duration, *by)), legend),),
        ),
        Panel(
            title="Failures by endpoint",
            description="Requests per second that did not end well, of the twenty worst endpoints.",
            unit="reqps",
            queries=(
                Query(
                    top(total(rate("http_request_failures_total"), "endpoint", "reason")),
                    "{{endpoint}}: {{reason}}",
                ),
            ),
        ),
    )


def _saturation(names: Names) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Requests in progress",
            description="Requests begun and not finished yet, by replica, the twenty with most.",
            unit="none",
            queries=(
                Query(top(total(select(names.in_progress), "job", "instance")), "{{instance}}"),
            ),
            width=12,
        ),
        Panel(
            title="Oldest request in progress",
            description="Age of the oldest unfinished request by replica, the twenty oldest.",
            unit="s",
            queries=(
                Query(top(select("http_request_oldest_in_progress_seconds")), "{{instance}}"),
            ),
            width=12,
        ),
    )


CONNECTIONS = (
    Panel(
        title="Connections",
        description="Open TCP connections by replica, idle keep-alive ones included.",
        unit="none",
        queries=(Query(top(select("active_connections")), "{{instance}}"),),
        width=6,
    ),
    Panel(
        title="New connections",
        description="TCP connections accepted per second. Near the rate of requests, nothing is kept "
        "alive.",
        unit="cps",
        queries=(Query(total(rate("connections_total")), "accepted"),),
        width=6,
    ),
    Panel(
        title="WebSockets",
        description="WebSockets open now, by endpoint.",
        unit="none",
        queries=(Query(total(select("websocket_connections"), "endpoint"), "{{endpoint}}"),),
        width=6,
    ),
    Panel(
        title="WebSocket closes",
        description="WebSockets opened, and ended by close code, per second. 1006 is a connection "
        "that broke off.",
        unit="cps",
        queries=(
            Query(total(rate("websocket_connections_total")), "opened"),
            Query(total(rate("websocket_closes_total"), "code"), "{{code}}"),
        ),
        width=6,
    ),
)
