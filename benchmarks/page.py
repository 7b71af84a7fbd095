"""What does the page cost? `python -m benchmarks.page [--rooms 1000] [--seconds 60]`; JSON in build/. Needs a Chromium.

A page follows a monitor of so many rooms, in which 200 detections a second are told. Then a user types, filters and
scrolls while that goes on (`tests.browser.stage.TRACE`).
"""

import asyncio
import json
import statistics
import time
from pathlib import Path

import click
import psutil
from playwright.async_api import CDPSession, async_playwright

from tests.browser.conftest import find_browser
from tests.browser.stage import TRACE, change, crowd, monitor_stage
from topology.embedded import EmbeddedBroker
from topology.settings import Settings, load_settings

PER_SECOND = 200
LISTS = 20

FIRST_CARD = """new MutationObserver((_, observer) => {
  if (!document.querySelector(".tile")) return;
  window.firstCard = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true })"""
FILES = """performance.getEntriesByType("resource").filter(({ name }) => name.includes("/page/"))
    .reduce((sum, { transferSize }) => sum + transferSize, 0)"""


async def _heap_and_work(session: CDPSession) -> tuple[float, float]:
    """Returns the page's heap after a collection, in MB, and how long its thread has worked, in seconds."""
    await session.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in (await session.send("Performance.getMetrics"))["metrics"]}
    return found["JSHeapUsedSize"] / 1e6, found["TaskDuration"]


async def _run(settings: Settings, rooms: int, seconds: int) -> dict[str, float]:
    async with monitor_stage(settings) as stage, async_playwright() as playwright:
        names = await crowd(stage, rooms)
        process = psutil.Process()
        before = sum(process.cpu_times()[:2])
        for _ in range(LISTS):
            await stage.get("/streams")
        list_ms = 1_000 * (sum(process.cpu_times()[:2]) - before) / LISTS
        browser = await playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.add_init_script(FIRST_CARD)
        await page.goto(stage.url)
        await page.locator(".tile").first.wait_for()
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        changing = asyncio.create_task(change(stage, names, PER_SECOND))
        await page.locator(".tile", has_text="since").first.wait_for()
        heap_before, work_before = await _heap_and_work(session)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        heap_after, work_after = await _heap_and_work(session)
        taken = await page.evaluate(TRACE)
        changing.cancel()
        row = {
            "rooms": rooms,
            "first_card_ms": await page.evaluate("window.firstCard"),
            "files_kb": await page.evaluate(FILES) / 1_000,
            "heap_before_mb": heap_before,
            "heap_after_mb": heap_after,
            "core_share": (work_after - work_before) / (time.monotonic() - began),
            "action_p50_ms": statistics.median(taken),
            "action_worst_ms": max(taken),
            "list_cpu_ms": list_ms,
        }
        await browser.close()
    return {name: round(value, 3) for name, value in row.items()}


@click.command(help=__doc__)
@click.option("--rooms", default=1_000, show_default=True)
@click.option("--seconds", default=60, show_default=True)
def main(rooms: int, seconds: int) -> None:
    """Runs the benchmark."""
    with EmbeddedBroker() as broker:
        row = asyncio.run(_run(broker.configure(load_settings()), rooms, seconds))
    print(json.dumps(row))
    Path("build").mkdir(exist_ok=True)
    Path("build/page.json").write_text(json.dumps(row) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
