"""One HTML page with its images inside, which opens without a network and can be sent to somebody."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path

_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
img { max-width: 100%; height: auto; display: block }
figure { margin: 1rem 0 } figcaption { opacity: .75; font-size: .9rem; margin-top: .4rem }
.lead { font-size: 1.15rem }
.pair { display: flex; flex-wrap: wrap; gap: 1rem } .pair > * { flex: 1 1 18rem; margin: 0 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1.5rem .15rem 0; font-weight: normal }
td { font-variant-numeric: tabular-nums } th { opacity: .75 }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: .3rem; white-space: pre-wrap }
"""


def page(title: str, *parts: str) -> str:
    """A whole page of parts that are HTML."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
{chr(10).join(parts)}
</body></html>
"""


def figure(path: Path, caption: str) -> str:
    """An image file, put into the page, with a line below."""
    data = base64.b64encode(path.read_bytes()).decode()
    source, text = f"data:{_TYPES[path.suffix]};base64,{data}", html.escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, a line each; lines without a value are left out."""
    cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows if b)
    return f"<table>{cells}</table>"


def tag(name: str, text: str, kind: str = "") -> str:
    """Text in an element, such as h2, p or pre."""
    return f"<{name}{f' class={kind}' if kind else ''}>{html.escape(text)}</{name}>"
