"""The admin server: metrics and probes on a port of their own, protected, whatever the app does."""

from aiosvc.admin.beside import AdminBeside
from aiosvc.admin.gate import Page
from aiosvc.admin.options import AdminOptions
from aiosvc.admin.probes import livez, readyz
from aiosvc.admin.server import AdminServer
from aiosvc.admin.standalone import MetricsServer, start_metrics_server

__all__ = [
    "AdminBeside",
    "AdminOptions",
    "AdminServer",
    "MetricsServer",
    "Page",
    "livez",
    "readyz",
    "start_metrics_server",
]
