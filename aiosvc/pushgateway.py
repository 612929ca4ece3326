"""
A Pushgateway: where the metrics of a job that ends are kept for Prometheus to scrape.

Rule: knows no registry and no job; a body in, pushed or not out. Rule: begins no attempt after the
deadline that it is given. Sources: the Pushgateway's README, "API" and "Request body".
"""

import base64
import random
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from aiosvc.errors import ConfigError
from aiosvc.formats import TEXT

__all__ = ["Gateway", "PushError"]

#: Seconds before the second attempt; doubled for each further one, up to the last.
FIRST_PAUSE: Final = 0.5
LAST_PAUSE: Final = 30.0

#: Answers that another attempt may change, beside all of the server's own failures.
TEMPORARY: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


class PushError(Exception):
    """Raised where a body could not be pushed in time, or was refused."""


class Gateway:
    """
    The group of a *job* and of further labels, *grouping_key*, in the Pushgateway at *url*.

    *url* is like 'http://gateway:9091'; user and password in it are sent as basic authentication,
    as *username* and *password* are. *tls* is for https. An attempt may take *timeout* seconds.

    Raises ConfigError for what can't be a URL, a job's name or a label.
    """

    def __init__(
        self,
        url: str,
        job: str,
        grouping_key: Mapping[str, str] | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        base, own_username, own_password = _taken_apart(url)
        self.url = base + _group(job, grouping_key or {})
        self._headers = {"Content-Type": TEXT.content_type}
        username = own_username if username is None else username
        password = own_password if password is None else password
        if username is not None:
            pair = f"{username}:{password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif password is not None:
            raise ConfigError("password given without username; give both")
        handlers = [] if tls is None else [urllib.request.HTTPSHandler(context=tls)]
        self._opener = urllib.request.build_opener(_NoRedirects, *handlers)

    def push(
        self, method: str, body: bytes, *, seconds: float, stop: threading.Event | None = None
    ) -> None:
        """
        Push *body* with PUT, in place of the group, or POST, in place of metrics of the same names.

        It is tried once at least, and again for as long as *seconds*, or until *stop* is set, where
        the failure may be temporary. Raises PushError.
        """
        deadline = self._clock() + seconds
        pause = FIRST_PAUSE
        stop = stop or threading.Event()
        timeout = self._timeout  # of the first attempt, whatever the deadline
        while True:
            try:
                self._attempt(method, body, timeout)
            except _TryAgainError as error:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that jobs don't meet
                if self._clock() + wait >= deadline or stop.wait(wait):
                    raise PushError(f"{self.url}: {error}") from error.__cause__
                pause = min(2 * pause, LAST_PAUSE)
                timeout = max(0.001, min(self._timeout, deadline - self._clock()))
            else:
                return

    def _attempt(self, method: str, body: bytes, timeout: float) -> None:
        request = urllib.request.Request(  # noqa: S310 - http or https, see _taken_apart
            self.url, body, self._headers, method=method
        )
        try:
            with self._opener.open(request, timeout=timeout) as response:
                response.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode(errors="replace").strip()
            text = f"answered {error.code}: {error.headers.get('Location') or said}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in TEMPORARY:
                raise PushError(f"{self.url}: {text}") from None
            raise _TryAgainError(text) from error
        except OSError as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise PushError(f"{self.url}: {error}") from error
            raise _TryAgainError(str(error)) from error
        except Exception as error:
            # http.client's own, for what is no HTTP.
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer that it is: what is asked elsewhere is no longer a push."""

    def redirect_request(self, *_: object) -> None:
        """Ask nowhere else."""


class _TryAgainError(Exception):
    """Raised where another attempt may do better."""


def _taken_apart(url: str) -> tuple[str, str | None, str | None]:
    """Return a URL without user and password, and these."""
    wrong = ConfigError(
        f"gateway: {url!r} given; expected a URL like 'http://gateway:9091', or 'gateway:9091'"
    )
    if not isinstance(url, str) or any(c in url for c in " \t\r\n"):
        raise wrong
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise wrong
    netloc = parts.netloc.rpartition("@")[2]
    base = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return base, username, password


def _group(job: str, grouping_key: Mapping[str, str]) -> str:
    """Return the path of a group; a value that is no plain text is written in base64."""
    if not isinstance(job, str) or not job:
        raise ConfigError(f"job: {job!r} given; expected a name like 'backup'")
    path = "/metrics"
    for name in grouping_key:
        if not isinstance(name, str) or not LABEL.fullmatch(name) or name == "job":
            raise ConfigError(
                f"grouping_key: {name!r} given; expected a label's name, and not 'job'"
            )
    for name, value in (("job", job), *sorted(grouping_key.items())):
        if not isinstance(value, str):
            raise ConfigError(f"grouping_key: {name}: {value!r} given; expected a string")
        if PLAIN.fullmatch(value) and value not in (".", ".."):
            path += f"/{name}/{quote(value)}"
        else:
            encoded = base64.urlsafe_b64encode(value.encode()).decode() or "="
            path += f"/{name}@base64/{encoded}"
    return path
