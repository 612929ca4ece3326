"""The metrics endpoint: negotiation, sharing, limits, deadlines, failing collectors."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import ref

import pytest
from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from processes import until
from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import aiosvc
from aiosvc.config import Settings
from aiosvc.scrape import Answer, Scraper

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def served(registry: CollectorRegistry, **options: Any) -> AsyncIterator[Client]:
    """Serve an application on *registry* and give a client that does not unpack answers."""
    app = web.Application()
    aiosvc.setup(app, registry=registry, **options)
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry of its own to each test."""
    return CollectorRegistry()


def fill(registry: CollectorRegistry, series: int) -> Counter:
    """Put a counter with many series into a registry."""
    counter = Counter("many", "Many.", ["number"], registry=registry)
    for number in range(series):
        counter.labels(number).inc(number)
    return counter


async def read(answer: ClientResponse) -> str:
    """Return an answer's text, unpacked where it is packed."""
    body = await answer.read()
    packed = answer.headers.get("Content-Encoding") == "gzip"
    return (gzip.decompress(body) if packed else body).decode()


def families(text: str) -> set[str]:
    """Return the names of an OpenMetrics text's families, as a strict parser finds them."""
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {family.name for family in parsed}


class Slow:
    """A collector that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def describe(self) -> Iterator[Metric]:
        """Give its names."""
        yield Metric("slow", "Slow.", "gauge")

    def collect(self) -> Iterator[Metric]:
        """Give its family."""
        self.asked += 1
        family = Metric("slow", "Slow.", "gauge")
        family.add_sample("slow", {}, self.asked)
        yield family


class Broken(Slow):
    """A collector that fails half way."""

    def describe(self) -> Iterator[Metric]:
        """Give its names."""
        yield Metric("broken", "Broken.", "gauge")

    def collect(self) -> Iterator[Metric]:
        """Give half of what it has."""
        self.asked += 1
        family = Metric("broken", "Broken.", "gauge")
        family.add_sample("broken", {}, 1)
        yield family
        raise RuntimeError("half way" + "!" * 10_000)


class Hanging(Slow):
    """A collector that waits for its turn, as for a network."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def describe(self) -> Iterator[Metric]:
        """Give its names."""
        yield Metric("hanging", "Hanging.", "gauge")

    def collect(self) -> Iterator[Metric]:
        """Give its family when it may."""
        self.asked += 1
        self.go.wait(30)
        family = Metric("hanging", "Hanging.", "gauge")
        family.add_sample("hanging", {}, self.asked)
        yield family


OPENMETRICS = "application/openmetrics-text;version=1.0.0"


async def test_the_format_that_was_asked_for(registry: CollectorRegistry) -> None:
    """OpenMetrics and the text format, each with its content type, and Vary."""
    fill(registry, 3)
    async with served(registry) as client:
        answer = await client.get("/metrics", headers={"Accept": OPENMETRICS})
        text = await read(answer)
        assert answer.content_type == "application/openmetrics-text"
        assert answer.headers["Vary"] == "Accept, Accept-Encoding"
        assert text.endswith("# EOF\n")
        assert "many" in families(text)
        plain = await client.get("/metrics", headers={"Accept": f"{OPENMETRICS};q=0,text/plain"})
        assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_our_own_metrics_in_every_format(registry: CollectorRegistry) -> None:
    """The endpoint's text is generate_latest's, line for line, also for what we export."""
    async with served(registry) as client:
        for _ in range(3):
            await client.get("/metrics")
            await client.get("/nowhere")
        text = await (await client.get("/metrics", headers={"Accept-Encoding": "identity"})).text()
        latest = generate_latest(registry).decode()

    def still(exposition: str) -> list[str]:
        moving = (
            *("aiosvc_", "asyncio_eventloop_", "process_", "python_gc_"),
            *("http_request_duration_seconds", "http_request_oldest"),
        )
        return [line for line in exposition.splitlines() if line and not line.startswith(moving)]

    assert still(text) == still(latest)


@pytest.mark.parametrize("series", [0, 5_000, 40_000])
async def test_gzip(registry: CollectorRegistry, series: int) -> None:
    """A body that is small, one of several chunks, and a large one unpack to what they are."""
    fill(registry, series)
    async with served(registry) as client:
        answer = await client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
        body = gzip.decompress(await answer.read())
        assert body.count(b"\nmany_total{") == series
        refused = await client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"})
        assert "Content-Encoding" not in refused.headers
        assert (await refused.read()).count(b"\nmany_total{") == series


async def test_methods(registry: CollectorRegistry) -> None:
    """HEAD renders nothing, OPTIONS says what is allowed, and everything else is not."""
    slow = Slow()
    registry.register(slow)
    async with served(registry) as client:
        head = await client.head("/metrics")
        assert (head.status, await head.read(), slow.asked) == (200, b"", 0)
        whole = await client.get("/metrics")
        for name in ("Content-Type", "Content-Encoding", "Vary", "Cache-Control"):
            assert head.headers[name] == whole.headers[name]
        options = await client.options("/metrics")
        assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            refused = await client.request(method, "/metrics", data=b"x" * 100)
            assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await client.get("/metrics/")).status == 200
        assert slow.asked == 2


async def test_names(registry: CollectorRegistry) -> None:
    """name[] restricts the answer; names that nobody has give an empty one."""
    fill(registry, 2)
    async with served(registry) as client:
        some = await read(await client.get("/metrics?name[]=many_total&name[]=active_connections"))
        assert {line.split("{")[0].split(" ")[0] for line in some.splitlines()} == {
            "#", "many_total", "active_connections",
        }  # fmt: skip
        none = await client.get("/metrics?name[]=nobody")
        assert (none.status, await read(none)) == (200, "")


async def test_one_failing_collector(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs its own families, whole; it is counted each time and logged once."""
    registry.register(Broken())
    registry.register(Slow())
    async with served(registry) as client:
        for _ in range(2):
            answer = await client.get("/metrics", headers={"Accept": OPENMETRICS})
            text = await read(answer)
            assert answer.status == 200
            assert "\nbroken" not in text
            assert "\nslow" in text
            assert text.endswith("# EOF\n")
        text = await read(await client.get("/metrics"))
    assert 'aiosvc_exposition_errors_total{collector="Broken"} 3.0' in text
    assert len([r for r in caplog.records if "collector Broken failed" in r.getMessage()]) == 1


async def test_one_hanging_collector(registry: CollectorRegistry) -> None:
    """It is not waited for beyond the deadline, not asked twice, and back when it answers."""
    hanging = Hanging()
    registry.register(hanging)
    registry.register(Slow())
    async with served(registry, scrape_timeout=0.4) as client:
        for _ in range(2):
            answer = await client.get("/metrics")
            text = await read(answer)
            assert answer.status == 200
            assert "\nhanging" not in text
            assert "\nslow" in text
        assert hanging.asked == 1
        hanging.go.set()
        for _ in range(100):
            if "\nhanging" in await read(await client.get("/metrics")):
                break
        else:
            pytest.fail("it never came back")


async def test_collectors_do_not_block_the_loop(registry: CollectorRegistry) -> None:
    """A collector that takes its time runs in a thread, and the loop goes on."""
    hanging = Hanging()
    registry.register(hanging)
    async with served(registry) as client:
        asking = asyncio.create_task(client.get("/metrics"))
        for _ in range(500):
            if hanging.asked:
                break
            await asyncio.sleep(0.01)
        assert (await client.get("/nowhere")).status == 404
        hanging.go.set()
        assert "\nhanging" in await read(await asking)


async def test_nothing_is_kept_of_what_was_given(registry: CollectorRegistry) -> None:
    """What a collector made for a scrape is gone after it, and what it keeps itself is untouched."""
    made: list[ref[Metric]] = []
    own = Metric("own", "Own.", "gauge")
    for number in range(1000):
        own.add_sample("own", {"number": str(number)}, number)

    class Given(Slow):
        def collect(self) -> Iterator[Metric]:
            family = Metric("slow", "Slow.", "gauge")
            family.add_sample("slow", {}, 1)
            made.append(ref(family))
            return iter([family, own])

    registry.register(Given())
    async with served(registry) as client:
        for number in range(3):
            text = await read(await client.get("/metrics"))
            assert text.count("\nown{") == 1000
            assert len(made) >= number + 1
            assert all(family() is None for family in made)
    assert len(own.samples) == 1000


async def test_strict_scrapes(registry: CollectorRegistry) -> None:
    """With scrape_strict a failing collector makes the answer a 500."""
    registry.register(Broken())
    async with served(registry, scrape_strict=True) as client:
        assert (await client.get("/metrics")).status == 500
    other = CollectorRegistry()
    fill(other, 10_000)
    async with served(other, scrape_strict=True) as client:
        body = gzip.decompress(await (await client.get("/metrics")).read())
        assert body.count(b"\nmany_total{") == 10_000


async def test_scrapes_at_once_share_one_gathering(registry: CollectorRegistry) -> None:
    """Scrapes that overlap get the same body, and the collectors are asked once."""
    slow = Slow()
    registry.register(slow)
    fill(registry, 30_000)
    async with served(registry) as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(8)))
        bodies = {await answer.read() for answer in answers}
    assert {answer.status for answer in answers} == {200}
    assert len(bodies) == 1
    assert slow.asked == 1


async def test_too_many_scrapes(registry: CollectorRegistry) -> None:
    """One more than the limit is answered 503 at once, and the next one later is well."""
    fill(registry, 60_000)
    async with served(registry, max_scrapes=2) as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
        [refused, *_] = [answer for answer in answers if answer.status == 503]
        assert "2 scrapes are in progress" in await refused.text()
        assert refused.headers["Retry-After"] == "1"
        for answer in answers:
            await answer.read()
        text = gzip.decompress(await (await client.get("/metrics")).read()).decode()
    assert 'aiosvc_scrapes_total{code="503"} 3.0' in text
    assert 'aiosvc_scrapes_total{code="200"} 2.0' in text
    assert "aiosvc_scrapes_in_progress 1.0" in text


async def test_a_deadline(registry: CollectorRegistry) -> None:
    """A scrape that is not ready before the scraper's own timeout is a 503, and not for ever."""
    fill(registry, 60_000)
    async with served(registry, scrape_strict=True) as client:
        header = {"X-Prometheus-Scrape-Timeout-Seconds": "0.004"}
        late = await client.get("/metrics", headers=header)
        assert late.status == 503
        assert "deadline" in await late.text()
        assert (await client.get("/metrics")).status == 200
        for odd in ("nan", "-1", "x", "inf", "1e999"):
            header = {"X-Prometheus-Scrape-Timeout-Seconds": odd}
            assert (await client.get("/metrics", headers=header)).status == 200


async def test_scrapers_that_leave(registry: CollectorRegistry) -> None:
    """Scrapers that leave half way leave nothing behind, and the next one is well."""
    fill(registry, 60_000)
    async with served(registry) as client:
        url = client.make_url("/metrics")
        for _ in range(20):
            async with ClientSession(headers={"Accept-Encoding": "identity"}) as session:
                answer = await session.get(url)
                await answer.content.readany()
                answer.close()
        for _ in range(200):
            text = await (await client.get("/metrics?name[]=aiosvc_scrapes_in_progress")).read()
            if b"in_progress 1.0" in gzip.decompress(text):
                break
            await asyncio.sleep(0.02)
        assert b"in_progress 1.0" in gzip.decompress(text)
        # One that is cancelled ends a few turns of the loop later.
        await until(
            lambda: "aiosvc scrape" not in {task.get_name() for task in asyncio.all_tasks()},
            "the end of every scrape",
        )


async def waiting(scraper: Scraper, hanging: Hanging, **headers: str) -> asyncio.Task[Answer]:
    """Return a scrape that waits for a collector."""
    asked = hanging.asked
    scrape = asyncio.create_task(scraper.answer(headers, ()))
    while hanging.asked == asked:  # noqa: ASYNC110 - it is asked in a thread
        await asyncio.sleep(0.001)
    return scrape


async def body(answer: Answer) -> bytes:
    """Return the body of an answer that is not packed."""
    return b"".join([piece async for piece in answer.body])


async def test_a_scraper_that_leaves_before_the_first_byte(registry: CollectorRegistry) -> None:
    """Where its handler is cancelled for that, the next one has its place, and is well."""
    hanging = Hanging()
    registry.register(hanging)
    scraper = Scraper(registry, Settings(max_scrapes=1))
    for _ in range(3):
        scrape = await waiting(scraper, hanging)
        scrape.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scrape
        hanging.go.set()
        answer = await scraper.answer({}, ())
        assert answer.status == 200
        assert b"\nhanging " in await body(answer)
        hanging.go.clear()
    scraper.close()


async def test_a_scrape_that_its_only_reader_has_left(registry: CollectorRegistry) -> None:
    """Nobody joins it any more, though it may not have ended yet."""
    hanging = Hanging()
    registry.register(hanging)
    scraper = Scraper(registry, Settings())
    scrape = await waiting(scraper, hanging)
    scrape.cancel()
    next_one = asyncio.create_task(scraper.answer({}, ()))
    with pytest.raises(asyncio.CancelledError):
        await scrape
    hanging.go.set()
    answer = await next_one
    assert answer.status == 200
    await body(answer)
    scraper.close()


@pytest.mark.parametrize("own", ["60", "2"])
async def test_scrapes_with_other_deadlines(registry: CollectorRegistry, own: str) -> None:
    """What a scraper gets depends on its own deadline, and not on that of another at once."""
    hanging = Hanging()
    registry.register(hanging)
    scraper = Scraper(registry, Settings(scrape_timeout=60))
    name = "X-Prometheus-Scrape-Timeout-Seconds"
    other = await waiting(scraper, hanging, **{name: "2" if own == "60" else "60"})
    scrape = asyncio.create_task(scraper.answer({name: own}, ()))
    hurried, patient = (other, scrape) if own == "60" else (scrape, other)
    assert (await hurried).status == 200
    assert b"\nhanging " not in await body(await hurried)
    hanging.go.set()
    assert b"\nhanging " in await body(await patient)
    assert hanging.asked == 1
    scraper.close()


async def test_the_loop_goes_on_during_a_scrape(registry: CollectorRegistry) -> None:
    """While a large scrape is rendered the event loop has many turns."""
    fill(registry, 100_000)
    turns = 0
    done = False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async with served(registry) as client:
        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        turns = 0
        await (await client.get("/metrics")).read()
        done = True
        await counting
    assert turns > 20


async def test_it_measures_itself(registry: CollectorRegistry) -> None:
    """Scrapes, their duration and size, and the series of each family are in the next scrape."""
    fill(registry, 7)
    async with served(registry) as client:
        await client.get("/metrics")
        text = gzip.decompress(await (await client.get("/metrics")).read()).decode()
    assert 'aiosvc_series{family="many_total"} 7.0' in text
    assert "aiosvc_scrape_duration_seconds_count 1.0" in text
    size = next(line for line in text.splitlines() if line.startswith("aiosvc_exposition_bytes"))
    assert float(size.split()[1]) > 1000
