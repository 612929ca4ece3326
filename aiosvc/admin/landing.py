"""
The page at `/` of the admin server: what there is, of which version, and since when.

Rule: one answer that needs no other; no script, no request to anywhere, and a policy that forbids
them. Whatever is written on it is escaped.
"""

import base64
import hashlib
from collections.abc import Iterable
from datetime import timedelta
from html import escape

__all__ = ["POLICY", "landing_page"]

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }
dt { margin-top: .75rem; }
dd { margin-left: 0; }
a { font-family: ui-monospace, monospace; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

#: The Content-Security-Policy of all pages without scripts.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def landing_page(title: str, version: str, uptime: float, links: Iterable[tuple[str, str]]) -> str:
    """Return the page; *uptime* is in seconds, *links* are paths and what is there."""
    items = "\n".join(
        f'<dt><a href="{escape(path)}">{escape(path)}</a></dt>\n<dd>{escape(says)}</dd>'
        for path, says in links
    )
    since = timedelta(seconds=int(uptime))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>aiosvc {escape(version)}, running for {since}.</p>
<nav aria-label="What is here">
<dl>
{items}
</dl>
</nav>
</main>
</body>
</html>
"""
