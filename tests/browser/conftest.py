"""A browser and monitors for the tests of the page. Both live as long as their module: starting them takes seconds."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.stage import Relay, Stage, evening, monitor_stage
from topology.embedded import EmbeddedBroker
from topology.settings import Settings

_BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def find_browser() -> str:
    """Returns the browser to drive; skips the test where there is none."""
    found = os.environ.get("COPE_TEST_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium-headless-shell")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = find_browser()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        await running.close()


@pytest.fixture(scope="module")
def settings(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of monitors that no other test's topics reach."""
    own: dict[str, object] = {"evidence_url": str(tmp_path_factory.mktemp("evidence"))}
    own |= {"topic_prefix": f"page-{os.getpid()}-", "stream_partitions": 1, "product_partitions": 1}
    return embedded_broker.configure(Settings(_env_file=None)).model_copy(update=own)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(browser: Browser, settings: Settings) -> AsyncIterator[Stage]:
    """A monitor of some rooms (`evening`)."""
    async with monitor_stage(settings) as one:
        await evening(one)
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def relay(stage: Stage) -> AsyncIterator[Relay]:
    """A line to the monitor, which a test may cut."""
    async with Relay(stage.port) as one:
        yield one
