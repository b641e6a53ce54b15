"""Log in once: a browser's profile in a context, kept from one session to the next.

python examples/browser_profile.py
"""

from __future__ import annotations

from playwright.sync_api import BrowserContext as Pages, sync_playwright

from agentbay import AgentBay, BrowserContext, CreateSessionParams, Session

SITE = "http://shop.test/"


def serve(pages: Pages) -> None:
    """Answer for the site, which greets whoever has its cookie."""
    body = "<body><script>document.body.append(document.cookie || 'please log in')</script>"
    pages.route(f"{SITE}**", lambda route: route.fulfill(body=body, content_type="text/html"))


def visit(session: Session, *, log_in: bool) -> str:
    """Return what the site says, after logging in if wanted."""
    assert session.browser.initialize()
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        pages = browser.contexts[0]
        serve(pages)
        page = pages.new_page()
        page.goto(SITE)
        text = page.inner_text("body")
        if log_in:
            page.evaluate("document.cookie = 'user=zoe; max-age=3600'")
        browser.close()
    return text


if __name__ == "__main__":
    with AgentBay.local() as bay:
        profile = bay.context.create("shop-profile").unwrap().context
        params = CreateSessionParams(image_id="browser_latest", browser_context=BrowserContext(profile.id))
        for number, log_in in enumerate((True, False), 1):
            session = bay.create(params).unwrap().session
            print(f"session {number}: {visit(session, log_in=log_in)}")
            session.delete()  # ends the browser first, which saves its profile
