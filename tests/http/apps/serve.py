"""
Serve one of the applications beside this file: `serve.py SERVER MODULE PORT`.

Rule: what a server needs to be told is here, and what it serves is not.
"""

import importlib
import logging
import socketserver
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


def uvicorn(app: Any, port: int, **options: Any) -> None:
    """Serve an ASGI application with uvicorn."""
    import uvicorn  # noqa: PLC0415 - the server that was asked for

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", **options)


def hypercorn(app: Any, port: int) -> None:
    """Serve an ASGI application with hypercorn."""
    import asyncio  # noqa: PLC0415

    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "CRITICAL"
    asyncio.run(serve(app, config))


def waitress(app: Any, port: int) -> None:
    """Serve a WSGI application with waitress."""
    import waitress  # noqa: PLC0415

    waitress.serve(
        app, host="127.0.0.1", port=port, threads=8, send_bytes=1, outbuf_high_watermark=65536
    )


def wsgiref(app: Any, port: int) -> None:
    """Serve a WSGI application with the standard library's server, in threads."""

    class Server(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    make_server("127.0.0.1", port, app, Server, Quiet).serve_forever()


def gunicorn(app: Any, port: int, *arguments: str) -> None:
    """Serve a WSGI application with gunicorn."""
    from gunicorn.app.base import BaseApplication  # noqa: PLC0415

    class Application(BaseApplication):  # type: ignore[misc]  # it has no types
        def load_config(self) -> None:
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("loglevel", "critical")
            for name, value in (each.split("=") for each in arguments):
                self.cfg.set(name, int(value) if value.isdigit() else value)

        def load(self) -> Any:
            return app

    Application().run()


def aiohttp(app: Any, port: int) -> None:
    """Serve an aiohttp application."""
    from aiohttp import web  # noqa: PLC0415

    web.run_app(app, host="127.0.0.1", port=port, print=None)


SERVERS: dict[str, Callable[[Any, int], None]] = {
    "aiohttp": aiohttp,
    "uvicorn-h11": lambda app, port: uvicorn(app, port, http="h11", loop="asyncio"),
    "uvicorn-httptools": lambda app, port: uvicorn(app, port, http="httptools", loop="asyncio"),
    "uvicorn-uvloop": lambda app, port: uvicorn(app, port, http="httptools", loop="uvloop"),
    "hypercorn": hypercorn,
    "waitress": waitress,
    "wsgiref": wsgiref,
    "gunicorn-sync": lambda app, port: gunicorn(app, port, "workers=1"),
    "gunicorn-gthread": lambda app, port: gunicorn(
        app, port, "workers=1", "worker_class=gthread", "threads=8"
    ),
}


if __name__ == "__main__":
    server, module, port = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    logging.disable(logging.ERROR)
    SERVERS[server](importlib.import_module(module).app, int(port))
