"""One HTML page that stands by itself: no server, no network, and no code but what the engine put there.

Every text that somebody wrote is escaped where it is put in (`html.escape`), and the page's own policy takes no style
and no script but those given here, by their hashes: a description cannot become code.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .5rem; } h3 { margin: 0; font-size: 1.1rem; }
.made, .note, dt, th { opacity: .75; } code { font-family: ui-monospace, monospace; font-size: .9em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .6rem 0; } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-top: 1px solid var(--line); vertical-align: top; }
th { border: 0; font-weight: 600; } summary { cursor: pointer; padding: .2rem 0; }
a { color: var(--accent); } [hidden] { display: none; }
"""
"""What all pages look like; light and dark as the reader's system is."""


def standalone(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Return a page; `title` is text, `body` HTML whose texts were escaped."""
    styles = STYLE + style
    runs = f"script-src '{_hash(script)}'; " if script else ""
    policy = f"default-src 'none'; style-src '{_hash(styles)}'; {runs}base-uri 'none'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{styles}</style>
</head>
<body>
{body}
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def code(text: str) -> str:
    """Return text as code."""
    return f"<code>{escape(text)}</code>"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
