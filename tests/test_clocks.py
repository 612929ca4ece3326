"""The demo while the wall clock jumps by a day and back: nothing but timestamps may notice."""

from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientSession
from processes import Program, poll, require
from prometheus_client.parser import text_string_to_metric_families

DAY = 86_400.0


def faketime() -> str:
    """Return the path of libfaketime's library for programs with threads."""
    require("faketime")
    found = next(iter(sorted(Path("/usr/lib").glob("**/libfaketimeMT.so.1"))), None)
    if found is None:
        pytest.fail("the package faketime has no libfaketimeMT.so.1")
    return str(found)


Samples = dict[str, list[tuple[dict[str, str], float]]]


async def scrape(session: ClientSession) -> Samples:
    """Return the samples of a scrape by name."""
    async with session.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def last_sampled(samples: Samples) -> float:
    """Return the wall clock's time of the last sample of the process."""
    (stamp,) = (
        value
        for labels, value in samples["aiosvc_source_last_success_timestamp_seconds"]
        if labels["source"] == "process"
    )
    return stamp


async def test_a_wall_clock_that_jumps(tmp_path: Path) -> None:
    """Durations, ages and schedules go by the monotonic clock, whatever is done to the other one."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    program = Program("demo", "--port", "0", directory=tmp_path, environment=environment)
    async with program, ClientSession(program.url) as session:
        begun = last_sampled(await scrape(session))
        for jump in (DAY, -DAY, 0.0):
            clock.write_text(f"{jump:+.0f}")
            async with session.get("/api/users/1") as response:
                assert response.status == 200
            samples = await poll(
                partial(scrape, session),
                partial(_sampled_near, begun + jump),
                f"a sample after a jump by {jump:+.0f} s",
            )
            _assert_nothing_noticed(samples)
        counts = {
            labels["endpoint"]: value
            for labels, value in samples["http_requests_total"]
            if labels["method"] == "GET"
        }
        assert counts["/api/users/{id}"] == 3
        assert await program.stop() == 0


def _sampled_near(expected: float, samples: Samples) -> bool:
    return abs(last_sampled(samples) - expected) < 3600


def _assert_nothing_noticed(samples: Samples) -> None:
    assert {value for _, value in samples["aiosvc_source_up"]} == {1.0}
    assert "aiosvc_instrumentation_errors_total" not in samples
    assert "aiosvc_exposition_errors_total" not in samples
    for name in (
        "aiosvc_sampler_lateness_seconds",
        "aiosvc_scrape_duration_seconds_sum",
        "aiosvc_source_duration_seconds",
        "http_request_duration_seconds_sum",
        "http_request_oldest_in_progress_seconds",
    ):
        assert all(0 <= value < 60 for _, value in samples[name]), name
