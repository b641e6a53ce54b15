"""Order in a web shop that runs in the session itself, with Playwright over the session's browser.

python examples/browser_shop.py
"""

from __future__ import annotations

from playwright.sync_api import sync_playwright

from agentbay import AgentBay, CreateSessionParams, Session

SHOP = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer("<title>Shop</title><form method=post><label>Name <input name=name></label>"
                    "<label>Kind <select name=kind><option>tea<option>coffee</select></label><button>Order</button>")
    def do_POST(self):
        order = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        open("orders.txt", "a").write(f"{order['kind'][0]} for {order['name'][0]}\\n")
        self.answer("<title>Thanks</title><h1>Thank you</h1>")
    def answer(self, html):
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(html.encode())
    def log_message(self, *_): pass

HTTPServer(("127.0.0.1", 8000), Shop).serve_forever()
"""


def order(session: Session) -> str:
    """Fill in the form, and return the heading of the page that follows."""
    assert session.browser.initialize()
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(session.browser.get_endpoint_url())
        page = browser.contexts[0].new_page()
        page.goto("http://127.0.0.1:8000")
        page.get_by_label("Name").fill("Zoë")
        page.get_by_label("Kind").select_option("coffee")
        page.get_by_role("button", name="Order").click()
        heading = page.get_by_role("heading").inner_text()
        browser.close()
    return heading


if __name__ == "__main__":
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        session.file_system.write_file("shop.py", SHOP).unwrap()
        session.command.start("python3 shop.py")
        session.command.run("until curl -s 127.0.0.1:8000 >/dev/null; do sleep 0.05; done", timeout=30).check()
        print("the page says:", order(session))
        print("the shop has noted:", session.file_system.read_file("orders.txt").content.strip())
