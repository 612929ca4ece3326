"""The contract of all adapters: the same samples for the same situations, whatever serves."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from contract import DRIVERS, SITUATIONS, Driver, Served, Situation, serving_apps

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DRIVERS, ids=str)
async def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Serve each driver's application in turn."""
    driver: Driver = request.param
    async with serving_apps(driver, tmp_path_factory.mktemp(str(driver))) as found:
        yield found


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
async def test_contract(served: Served, situation: Situation) -> None:
    """Whatever serves, the metrics say of a situation exactly what the table says."""
    for need in situation.needs:
        if need in served.driver.cannot:
            pytest.skip(f"{need}: {served.driver.cannot[need]}")
    before = await served.numbers()
    try:
        expected = await situation.act(served)
        await served.moved(before, expected)
    finally:
        served.release()


async def test_scrape_is_no_request(served: Served) -> None:
    """What a scrape itself does is in no http_* series."""
    before = await served.numbers()
    await served.moved(before, {})
