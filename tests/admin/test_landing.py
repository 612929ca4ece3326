"""The landing page."""

import re
from html.parser import HTMLParser

from aiosvc.admin.landing import POLICY, landing_page

from .servers import ask, running


class Elements(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def test_what_is_on_it() -> None:
    """The page has the title, the version, how long it has been up, and every link with words."""
    page = landing_page("shop", "1.2.3", 93_784.9, [("/metrics", "metrics"), ("/livez", "alive?")])
    found = Elements(page)
    assert found.links == ["/metrics", "/livez"]
    for text in ("shop", "aiosvc 1.2.3", "running for 1 day, 2:03:04", "metrics", "alive?"):
        assert text in found.text


def test_everything_is_escaped() -> None:
    """Nothing that is written on it becomes markup."""
    evil = "<img src=x onerror=alert(1)>\"'&"
    found = Elements(landing_page(evil, evil, 0, [(evil, evil)]))
    assert "img" not in found.tags
    assert "script" not in found.tags
    assert found.text.count("<img src=x onerror=alert(1)>") == 5
    assert found.links == [evil]


def test_readable_for_everybody() -> None:
    """It names its language and its parts, fits small screens, and needs no script."""
    page = landing_page("shop", "1", 0, [("/metrics", "metrics")])
    found = Elements(page)
    assert '<html lang="en">' in page
    assert {"title", "main", "h1", "nav"} <= set(found.tags)
    assert 'name="viewport"' in page
    assert "script" not in found.tags
    assert not any(name.startswith("on") for name in found.attributes)


def test_it_asks_for_nothing() -> None:
    """Its policy forbids everything but its own style, and it needs nothing else."""
    with running() as server:
        reply = ask(server, "/")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Content-Security-Policy"] == POLICY
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert not re.search(r"https?://|url\(|@import", reply.text)
    assert Elements(reply.text).links == ["/metrics", "/livez", "/readyz"]
