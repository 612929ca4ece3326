"""
Numbers of another program, fetched from a URL that answers JSON.

    obs.sampler.add(
        "db_stats",
        HttpJson(
            "http://localhost:8080/stats",
            {
                "active_queries": JsonMetric("db_active_queries", "Queries running now."),
                "pool.{state}": JsonMetric("db_connection_pool_size", "Connections by state."),
                "tables[*].rows": JsonMetric("db_table_rows", labels={"table": FromField("name")}),
            },
        ),
        interval=15,
    )

The paths are those of `aiosvc.sources.jsonpath`. Rule: fetched in the background by the sampler, so
a scrape waits for nobody. Rule: no user name, password or query of the URL, and no header, is ever
part of an error. Rule: the answer is of bounded size, and a large one is parsed beside the loop.
"""

import asyncio
import json
import os
import ssl as tls
import time
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiohttp
from prometheus_client import Metric
from yarl import URL

from aiosvc import validation
from aiosvc.errors import ConfigError
from aiosvc.naming import one_line
from aiosvc.sources.bounded import MAX_SERIES
from aiosvc.sources.jsonmetrics import DocumentMetrics, FromField, JsonMetric
from aiosvc.version import __version__

__all__ = ["FromField", "HttpJson", "JsonMetric"]

#: Bytes up to which parsing takes a fraction of a millisecond; more goes to a thread.
INLINE: Final = 16_384
#: Seconds for which that thread keeps the interpreter at a time, and lets go of it.
SLICE: Final = 0.001
PAUSE: Final = 0.0005


class HttpJson:
    """
    A source that fetches *url* and turns the JSON that it answers into metrics.

    *gauges* maps paths in the document to metrics: a name, or a `JsonMetric` for labels and
    documentation; a name that ends in `_total` is a counter's. *headers*, and *auth*, a user name
    and password, are sent with each request; *ssl* is as in aiohttp. *timeout* is in seconds, for
    the whole answer, and should be below the sampler's. An answer of more than *max_bytes* fails,
    and a metric has at most *max_series* series.

    Without a *session* of yours, which stays yours, it has one of its own while it is sampled. A
    redirect fails, since credentials must not follow it; only status 200 succeeds; compressed
    answers are not asked for, so that their size is known.

    Raises ConfigError where an argument will not do.
    """

    def __init__(
        self,
        url: str | URL,
        gauges: Mapping[str, str | JsonMetric],
        *,
        session: aiohttp.ClientSession | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        ssl: tls.SSLContext | aiohttp.Fingerprint | bool = True,
        timeout: float = 4.0,
        max_bytes: int = 1_000_000,
        max_series: int = MAX_SERIES,
    ) -> None:
        given = _check_url(url)
        #: The URL as it may be seen.
        self.shown = _without_secrets(given)
        self._url = given.with_user(None)
        self._headers = _check_headers(headers or {}, self.shown)
        self._log_in(given, auth)
        validation.seconds("timeout", timeout, at_least=0.001)
        validation.whole("max_bytes", max_bytes, at_least=1)
        self._metrics = DocumentMetrics(gauges, max_series=max_series)
        self._ssl = ssl
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._session = session
        self._own: aiohttp.ClientSession | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"HttpJson({self.shown!r})"

    async def __call__(self) -> list[Metric]:
        """
        Fetch the document and return its metrics.

        Raises ConnectionError, TimeoutError or ValueError, which say where and what.
        """
        document = await self._parsed(await self._fetch())
        try:
            return await self._metrics.families(document)
        except ValueError as error:
            raise ValueError(f"{self.shown}: {error}") from None

    async def close(self) -> None:
        """Close the session, if it is this object's own; a later sample opens another."""
        own, self._own = self._own, None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)
        if own is not None:
            await own.close()

    def _log_in(self, url: URL, auth: object) -> None:
        """Make credentials a header, wherever they are given; aiohttp's own way is on its way out."""
        if auth is None and url.user is not None:
            login = (url.user, url.password or "")
        elif auth is None:
            return
        elif isinstance(auth, tuple) and list(map(type, auth)) == [str, str]:
            login = auth
        else:
            raise ConfigError(f"{self.shown}: auth: expected a user name and a password")
        if "authorization" in self._headers or (auth is not None and url.user is not None):
            raise ConfigError(f"{self.shown}: credentials are given twice; give them in one place")
        token = b64encode(":".join(login).encode()).decode()
        self._headers["authorization"] = f"Basic {token}"

    async def _fetch(self) -> bytes:
        # What the library says may contain the whole URL, so nothing is raised from it.
        try:
            async with asyncio.timeout(self._timeout):
                return await self._request()
        except TimeoutError:
            text = f"{self.shown}: no whole answer within {self._timeout:g} s"
            raise TimeoutError(text) from None
        except aiohttp.ClientConnectorDNSError as error:
            failure = f"no address for the host: {one_line(error.os_error)}"
        except aiohttp.ClientSSLError as error:
            cause = getattr(error, "certificate_error", None) or error
            failure = f"TLS: {one_line(cause)}"
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno  # asyncio has words of its own, which say less
            failure = os.strerror(number) if number else one_line(error.os_error)
        except aiohttp.ClientResponseError as error:
            failure = f"not HTTP: {one_line(error.message)}"
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            failure = "the connection was closed before the whole answer was there"
        except (aiohttp.ClientError, OSError) as error:
            failure = f"the request failed: {type(error).__name__}"
        raise ConnectionError(f"{self.shown}: {failure}") from None

    async def _request(self) -> bytes:
        request = self._open_session().get(
            self._url,
            headers=self._headers,
            ssl=self._ssl,
            allow_redirects=False,
            raise_for_status=False,
        )
        async with request as response:
            self._check(response)
            return await self._body(response)  # what is left unread ends with the connection

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in (301, 302, 303, 307, 308):
            location = response.headers.get("Location", "")
            raise ValueError(
                f"{self.shown}: answered {status}, a redirect to {_elsewhere(location)}; redirects "
                "are not followed, give the address itself"
            )
        if status != 200:  # noqa: PLR2004 - OK
            raise ValueError(f"{self.shown}: answered {status}; expected 200")
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise ValueError(
                f"{self.shown}: answered with Content-Encoding {one_line(coding)}, which was not "
                "asked for"
            )
        if (response.content_length or 0) > self._max_bytes:
            raise ValueError(self._too_big())

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_bytes:
                raise ValueError(self._too_big())
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_big(self) -> str:
        return f"{self.shown}: the answer is larger than max_bytes, {self._max_bytes}"

    async def _parsed(self, body: bytes) -> Any:
        if not body:
            raise ValueError(f"{self.shown}: the answer is empty; expected JSON")
        try:
            if len(body) <= INLINE:
                return json.loads(body)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiosvc json")
            return await asyncio.get_running_loop().run_in_executor(self._thread, _parse, body)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{self.shown}: the answer is not JSON: {error.msg} at character {error.pos}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{self.shown}: the answer is not JSON that can be read: {one_line(error)}"
            ) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        if self._own is None or self._own.closed:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # ours is around the whole request
            )
        return self._own


def _parse(body: bytes) -> Any:
    """Return the document; every now and then other threads get the interpreter."""
    until = time.perf_counter() + SLICE

    def let_go(made: Any) -> Any:
        nonlocal until
        if time.perf_counter() > until:
            time.sleep(PAUSE)
            until = time.perf_counter() + SLICE
        return made

    return json.loads(
        body,
        object_hook=let_go,
        parse_int=lambda text: let_go(int(text)),
        parse_float=lambda text: let_go(float(text)),
    )


def _check_url(url: object) -> URL:
    try:
        parsed = URL(url) if isinstance(url, str) else url
    except ValueError:
        raise ConfigError("url: not a URL; expected http://host:port/path") from None
    if not isinstance(parsed, URL) or parsed.scheme not in ("http", "https") or not parsed.host:
        shown = _without_secrets(parsed) if isinstance(parsed, URL) else repr(url)
        raise ConfigError(f"url: {shown} given; expected http://host:port/path, or https")
    return parsed


def _check_headers(headers: object, shown: str) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigError(f"{shown}: headers: expected a mapping of names to texts")
    checked = {"accept": "application/json", "accept-encoding": "identity"}
    checked["user-agent"] = f"aiosvc/{__version__}"
    for name, text in headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigError(f"{shown}: headers: {name!r}: expected a text for a name")
        if any(c in "\r\n\0" for c in name + text):
            raise ConfigError(f"{shown}: headers: {name!r}: a header is one line")
        checked[name.lower()] = text
    return checked


def _without_secrets(url: URL) -> str:
    """Return the URL without credentials, query and fragment."""
    return one_line(
        url.with_user(None).with_query(None).with_fragment(None) if url.host else url.scheme
    )


def _elsewhere(location: str) -> str:
    try:
        url = URL(location)
    except ValueError:
        return "an address that is none"
    return _without_secrets(url) if url.host else one_line(url.path)
