"""Makes the pictures of docs/page.md: `python -m tests.browser.screenshots`, or `make screenshots`.

Some rooms of an evening (`tests.browser.stage`), with what was recorded of the sample streams.
"""

import asyncio
import io
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.async_api import Browser, async_playwright

from tests.browser.conftest import find_browser
from tests.browser.stage import Stage, evening, monitor_stage
from topology.embedded import EmbeddedBroker
from topology.settings import Settings

FOLDER = Path(__file__).parents[2] / "docs" / "page"
MOST_BYTES = 150_000

ALL_SHOWN = """() => !document.querySelector(".loading") && [...document.images].every(
    (image) => image.complete || image.getBoundingClientRect().top > innerHeight
)"""


async def make() -> None:
    """Makes all of them."""
    FOLDER.mkdir(exist_ok=True)
    with EmbeddedBroker() as broker, TemporaryDirectory() as folder:
        own: dict[str, object] = {"evidence_url": folder, "stream_partitions": 1, "product_partitions": 1}
        settings = broker.configure(Settings(_env_file=None)).model_copy(update=own)
        async with monitor_stage(settings) as stage, async_playwright() as playwright:
            await evening(stage)
            browser = await playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
            listed = await stage.get("/streams/room-en/detections")
            juice = next(one["detection_id"] for one in listed["detections"] if one["product_id"] == "saleor-71")
            await _shoot(browser, stage, "rooms", "/", 900)
            await _shoot(browser, stage, "room", "/room/room-en?epoch=1&t=24000", 1120)
            await _shoot(browser, stage, "detection", f"/detection/{juice}", 1260, scheme="dark")
            await _shoot(browser, stage, "review", "/queue", 900)
            await _shoot(browser, stage, "catalogue", "/catalogue", 900)
            await _shoot(browser, stage, "product", "/product/saleor-71", 960)
            await _shoot(browser, stage, "telephone", "/", 780, width=360, scheme="dark", language="zh-CN")
            await browser.close()


async def _shoot(
    browser: Browser,
    stage: Stage,
    name: str,
    path: str,
    height: int,
    *,
    width: int = 1440,
    scheme: str = "light",
    language: str = "en",
) -> None:
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        locale=language,
        timezone_id="UTC",
    )
    page = await context.new_page()
    await page.goto(stage.url + path)
    await page.locator("main h1").wait_for()
    await page.wait_for_function(ALL_SHOWN)
    shot = Image.open(io.BytesIO(await page.screenshot(animations="disabled")))
    file = FOLDER / f"{name}.webp"
    shot.convert("RGB").save(file, "WEBP", quality=82, method=6)
    if file.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{file} is larger than {MOST_BYTES} bytes")
    await context.close()


if __name__ == "__main__":
    asyncio.run(make())
