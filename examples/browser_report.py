"""Make a PDF and a picture of a report that code in the session has written.

python examples/browser_report.py
"""

from __future__ import annotations

import asyncio

from playwright.async_api import async_playwright

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams

CODE = """
import html, statistics
sales = {"Bern": 12.5, "Genf": 9.1, "Basel": 14.2}
rows = "".join(f"<tr><td>{html.escape(city)}<td>{amount}" for city, amount in sales.items())
mean = statistics.mean(sales.values())
open("report.html", "w").write(f"<title>Sales</title><h1>Sales</h1><table>{rows}</table><p>Mean: {mean:.1f}")
"""


async def print_report(session: AsyncSession) -> tuple[bytes, bytes]:
    """Return the report as PDF and as PNG."""
    assert await session.browser.initialize()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(await session.browser.get_endpoint_url())
        page = await browser.contexts[0].new_page()
        await page.goto("file:///home/wuying/report.html")
        pdf, png = await page.pdf(), await page.screenshot()
        print(await page.inner_text("p"))
        await browser.close()
    return pdf, png


async def main() -> None:
    params = CreateSessionParams(image_id="browser_latest")
    async with AsyncAgentBay.local() as bay, bay.session(params) as session:
        (await session.code.run_code(CODE, "python")).check()
        pdf, png = await print_report(session)
        print(f"PDF: {pdf[:5].decode()}, picture: {png[1:4].decode()}")


if __name__ == "__main__":
    asyncio.run(main())
