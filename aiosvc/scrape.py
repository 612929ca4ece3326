"""
The answer to a scrape: a scraper's headers in, a status, headers and a body in pieces out.

Rule: knows no server. Rule: nothing that a scraper sends makes this fail, and nothing that it does
costs the service more than a bounded share: of the event loop (slices), of memory (a bounded number
of scrapes, a bounded lead over the reader) and of time (a deadline).

Theory of operation. Scrapes of the same format, coding, names and time that overlap share one
`Gathering`: one task renders, compresses and keeps the chunks, and each scraper reads them at its own
pace. Those with other deadlines don't: how long collectors are waited for depends on it. The
rendering waits for the fastest of its readers; chunks that every reader has had are dropped, and from
then on nobody can join. Large pieces are compressed in a thread, since that lets the loop go.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from prometheus_client.registry import Collector

from aiosvc import catalogue
from aiosvc.codings import Compressor, available, compressor
from aiosvc.config import Settings
from aiosvc.exposition import Exposition
from aiosvc.foreign import ForeignCollectors, Given
from aiosvc.formats import Format
from aiosvc.negotiation import content_coding, negotiate
from aiosvc.pacing import Pace
from aiosvc.readings import Readings, Total
from aiosvc.seriescount import SeriesCount

__all__ = ["Answer", "Scraper", "pieces"]

log = logging.getLogger("aiosvc")

VARY: Final = "Accept, Accept-Encoding"
ALLOW: Final = "GET, HEAD, OPTIONS"

#: Chunks that a rendering may be ahead of its fastest reader.
LEAD: Final = 8
#: Bytes that are compressed at once; less would be many calls, more would hold the loop.
BLOCK: Final = 131_072
#: Bytes from which compressing goes to a thread; less takes a fraction of a millisecond.
INLINE: Final = 16_384
#: Seconds for which a scrape beside the service lets go of the interpreter, between two slices.
PAUSE: Final = 0.0005
#: Seconds of a scraper's own timeout that are left for the way back.
MARGIN: Final = 0.5

#: Format, coding, names, and the seconds that it may take.
Key = tuple[Format, str, frozenset[str] | None, float]


@dataclass(slots=True)
class Answer:
    """What to send: a status, headers, and a body in pieces, to be read once."""

    status: int
    headers: dict[str, str]
    body: AsyncGenerator[bytes, None]
    #: Seconds that sending it may take.
    seconds: float = 10.0


@dataclass(slots=True)
class _Numbers:
    """What a scraper counts about itself."""

    codes: dict[int, int] = field(default_factory=lambda: {200: 0, 405: 0, 500: 0, 503: 0})
    errors: dict[str, int] = field(default_factory=dict)
    in_progress: int = 0
    count: int = 0
    seconds: float = 0.0
    size: int | None = None


class Scraper:
    """
    Answers scrapes of one registry on one event loop; a reporter for the collector.

    *aside* says that the loop is not the service's: then the service's thread gets the interpreter
    between two slices, for which it would have to wait otherwise.
    """

    def __init__(self, registry: Collector, settings: Settings, *, aside: bool = False) -> None:
        self._settings = settings
        self._pause = PAUSE if aside else 0.0
        self._exposition = Exposition(registry, on_error=self._failed, budget=settings.scrape_slice)
        self._gatherings: dict[Key, _Gathering] = {}
        self._numbers = _Numbers()
        self._series = SeriesCount()
        self._logged: set[str] = set()
        self._failures = 0
        self._compressing: ThreadPoolExecutor | None = None
        self._foreign = ForeignCollectors()

    async def answer(
        self, headers: Mapping[str, str], accept: Iterable[str], names: Sequence[str] = ()
    ) -> Answer:
        """
        Return the answer to a GET.

        *headers* are looked up without regard to case; *accept* are the values of all Accept
        headers; *names* are sample names to restrict the answer to, all when empty.
        """
        if self._numbers.in_progress >= self._settings.max_scrapes:
            text = f"{self._settings.max_scrapes} scrapes are in progress; try again later"
            return self._refuse(503, text, {"Retry-After": "1"})
        form = negotiate(accept)
        coding = content_coding(headers.get("Accept-Encoding", ""), available())
        limit = self._limit(headers)
        key = form, coding, frozenset(names) if names else None, limit
        deadline = perf_counter() + limit
        gathering = self._gatherings.get(key)
        if gathering is None or not gathering.joinable:
            gathering = self._gatherings[key] = _Gathering(self._chunks(key, deadline))
            gathering.start(lambda: self._forget(key, gathering))
        reader = gathering.reader(deadline)
        self._numbers.in_progress += 1
        begun = perf_counter()
        first: bytes | None = None
        try:
            first = await anext(reader, b"")
        except TimeoutError:
            return self._refuse(503, "the scrape was not ready before its deadline")
        except Exception:
            log.exception("a scrape failed")
            return self._refuse(500, "the scrape failed; the log says why")
        finally:
            # Also where the scraper left, and its handler was cancelled.
            if first is None:
                self._finished(begun, None)
                await reader.aclose()
        body = self._body(first, reader, begun)
        return Answer(200, _head(form, coding), body, max(0.0, deadline - perf_counter()))

    async def respond(
        self,
        method: str,
        headers: Mapping[str, str],
        accept: Iterable[str],
        names: Sequence[str] = (),
    ) -> Answer:
        """Return the answer to a request of any method; the rest as for `answer`."""
        if method == "GET":
            return await self.answer(headers, accept, names)
        if method == "HEAD":
            return self.head(headers, accept)
        if method == "OPTIONS":
            return Answer(204, {"Allow": ALLOW}, pieces())
        return self.not_allowed()

    def not_allowed(self) -> Answer:
        """Return the answer to a method that is none of `ALLOW`."""
        return self._refuse(405, "metrics are read with GET", {"Allow": ALLOW})

    def head(self, headers: Mapping[str, str], accept: Iterable[str]) -> Answer:
        """Return the answer to a HEAD: the headers of a GET, and nothing is rendered."""
        self._count(200)
        coding = content_coding(headers.get("Accept-Encoding", ""), available())
        return Answer(200, _head(negotiate(accept), coding), pieces())

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        self._numbers = _Numbers()

    def abandon(self) -> None:
        """Forget scrapes and threads of an event loop, or a process, that is no more."""
        self._gatherings.clear()
        self._compressing = None
        self._foreign = ForeignCollectors()
        self._numbers.in_progress = 0

    def close(self) -> None:
        """End the thread that compresses; scrapes in progress fail."""
        for gathering in list(self._gatherings.values()):
            gathering.cancel()
        self._foreign.close()
        if self._compressing is not None:
            self._compressing.shutdown(wait=False)
            self._compressing = None

    def report(self, readings: Readings) -> None:
        """Add what the scrapes cost, and what they found."""
        numbers = self._numbers
        for code, count in list(numbers.codes.items()):
            readings.number(catalogue.SCRAPES, count, (str(code),))
        readings.declare(catalogue.EXPOSITION_ERRORS)
        for collector, count in list(numbers.errors.items()):
            readings.number(catalogue.EXPOSITION_ERRORS, count, (collector,))
        readings.number(catalogue.SCRAPES_IN_PROGRESS, numbers.in_progress)
        readings.total(catalogue.SCRAPE_DURATION, Total(numbers.count, numbers.seconds), ())
        if numbers.size is not None:
            readings.number(catalogue.EXPOSITION_BYTES, numbers.size)
        for family, series in self._series.found.items():
            readings.number(catalogue.SERIES, series, (family,))

    def _limit(self, headers: Mapping[str, str]) -> float:
        limit = self._settings.scrape_timeout
        try:
            wanted = float(headers.get("X-Prometheus-Scrape-Timeout-Seconds", ""))
        except ValueError:
            return limit
        if not math.isfinite(wanted) or wanted <= 0:
            return limit
        return min(limit, wanted - MARGIN if wanted > 2 * MARGIN else wanted / 2)

    async def _chunks(self, key: Key, deadline: float) -> AsyncGenerator[bytes, None]:
        form, coding, names, _ = key
        packed = None if coding == "identity" else compressor(coding)
        waiting: list[bytes] = []
        pending = 0
        failures = self._failures
        # A quarter of the time is left for everything else.
        now = perf_counter()
        patience = 0.75 * max(0.0, deadline - now)
        given = await self._foreign.ask(self._exposition.foreign(names), patience)
        pace = Pace(self._settings.scrape_slice, pause=self._pause, hurry=(now + deadline) / 2)
        async for chunk in self._rendered(form, names, given, pace):
            if packed is None and not self._settings.scrape_strict:
                yield chunk
                continue
            waiting.append(chunk)
            pending += len(chunk)
            if pending >= BLOCK and not self._settings.scrape_strict:
                yield await self._packed(packed, b"".join(waiting))
                waiting.clear()
                pending = 0
        if self._settings.scrape_strict and self._failures != failures:
            raise RuntimeError("a collector failed, and scrapes are strict")
        rest = await self._packed(packed, b"".join(waiting))
        yield rest if packed is None else rest + packed.flush()

    async def _rendered(
        self, form: Format, names: frozenset[str] | None, given: Given, pace: Pace
    ) -> AsyncGenerator[bytes, None]:
        counted = self._series.begin() if names is None else None
        size = 0
        for chunk in self._exposition.render(form, names, given):
            if chunk:
                size += len(chunk)
                if counted is not None:
                    counted.feed(chunk)
                yield chunk
            await pace.give_way()
        if counted is not None:
            counted.end()
            self._numbers.size = size

    async def _packed(self, packed: Compressor | None, data: bytes) -> bytes:
        if packed is None:
            return data
        if len(data) < INLINE:
            return packed.compress(data)
        if self._compressing is None:
            self._compressing = ThreadPoolExecutor(1, "aiosvc compression")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._compressing, packed.compress, data)

    async def _body(
        self, first: bytes, reader: AsyncGenerator[bytes, None], begun: float
    ) -> AsyncGenerator[bytes, None]:
        code: int | None = None
        try:
            if first:
                yield first
            async for chunk in reader:
                yield chunk
            code = 200
        finally:
            # A scraper that left, or did not read in time, got no answer to count.
            self._finished(begun, code)
            await reader.aclose()

    def _refuse(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
        self._count(status)
        found = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
        return Answer(status, found, pieces(f"{text}\n".encode()))

    def _finished(self, begun: float, code: int | None) -> None:
        numbers = self._numbers
        numbers.in_progress -= 1
        numbers.count += 1
        numbers.seconds += perf_counter() - begun
        if code is not None:
            self._count(code)

    def _count(self, code: int) -> None:
        self._numbers.codes[code] = self._numbers.codes.get(code, 0) + 1

    def _failed(self, collector: str, error: Exception) -> None:
        self._failures += 1
        errors = self._numbers.errors
        errors[collector] = errors.get(collector, 0) + 1
        if collector not in self._logged:
            self._logged.add(collector)
            log.error(
                "collector %s failed; its metrics are left out of the scrape, further failures are "
                "only counted in %s",
                collector,
                catalogue.EXPOSITION_ERRORS.name,
                exc_info=error,
            )

    def _forget(self, key: Key, gathering: "_Gathering") -> None:
        if self._gatherings.get(key) is gathering:
            del self._gatherings[key]


class _Gathering:
    """One rendering, and whoever reads it."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self.joinable = True
        self._source = chunks
        self._chunks: list[bytes] = []
        self._dropped = 0
        self._places: dict[int, int] = {}
        self._ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._next = 0

    def start(self, ended: Callable[[], None]) -> None:
        """Begin to render; *ended* is called when that is over."""
        self._task = asyncio.get_running_loop().create_task(self._render(), name="aiosvc scrape")
        self._task.add_done_callback(lambda _task: ended())

    def cancel(self) -> None:
        """Stop rendering; readers fail."""
        self.joinable = False
        if self._task is not None:
            self._task.cancel()

    async def reader(self, deadline: float) -> AsyncGenerator[bytes, None]:
        """Give the chunks from the first; raises TimeoutError at *deadline*, or what went wrong."""
        name = self._next = self._next + 1
        self._places[name] = 0
        try:
            while True:
                place = self._places[name]
                async with asyncio.timeout(max(0.0, deadline - perf_counter())), self._changed:
                    while not self._ended and place >= self._end:
                        await self._changed.wait()
                if place < self._end:
                    chunk = self._chunks[place - self._dropped]
                    self._places[name] = place + 1
                    await self._moved()
                    if chunk:
                        yield chunk
                elif self._error is not None:
                    raise self._error
                else:
                    return
        finally:
            del self._places[name]
            if not self._places:
                self.cancel()

    @property
    def _end(self) -> int:
        return self._dropped + len(self._chunks)

    async def _render(self) -> None:
        try:
            async for chunk in self._source:
                async with self._changed:
                    self._chunks.append(chunk)
                    self._changed.notify_all()
                    await self._changed.wait_for(self._has_room)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - readers raise it
            self._error = error if isinstance(error, Exception) else TimeoutError("given up")
        finally:
            self._ended = True
            self.joinable = False
            async with self._changed:
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._end - max(self._places.values(), default=0) < LEAD

    async def _moved(self) -> None:
        async with self._changed:
            slowest = min(self._places.values(), default=self._end)
            if slowest - self._dropped >= LEAD or (slowest == self._end and self._dropped):
                del self._chunks[: slowest - self._dropped]
                self._dropped = slowest
                self.joinable = False
            self._changed.notify_all()


def _head(form: Format, coding: str) -> dict[str, str]:
    """Return the headers of a scrape."""
    found = {"Content-Type": form.content_type, "Vary": VARY, "Cache-Control": "no-store"}
    if coding != "identity":
        found["Content-Encoding"] = coding
    return found


async def pieces(*found: bytes) -> AsyncGenerator[bytes, None]:
    """Give a body that is there already."""
    for piece in found:
        yield piece
