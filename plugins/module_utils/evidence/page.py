# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pages for people are made of: one file, no script, nothing loaded, every text escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["STYLE", "Html", "code", "document", "facts", "moment", "section", "table", "tag", "text", "words"]

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f8;--card:#fff;--ink:#1c2329;--soft:#5b6670;--line:#e2e6ea;--bar:#8fb0cf;
--good:#1b6e44;--good-bg:#e4f3ea;--warn:#8a5a00;--warn-bg:#fcf1d8;--bad:#a3262b;--bad-bg:#fbe6e6;--plain-bg:#edf0f2}
@media (prefers-color-scheme:dark){:root{--page:#14181b;--card:#1c2226;--ink:#e6eaed;--soft:#9aa6af;--line:#2d353b;
--bar:#4d7296;--good:#7fd3a4;--good-bg:#17352a;--warn:#e9c06c;--warn-bg:#3a2f16;--bad:#f2a1a3;--bad-bg:#452123;
--plain-bg:#283036}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.5rem 3rem}
h1{font-size:1.65rem;line-height:1.25;margin:.5rem 0 .15rem;font-weight:650;letter-spacing:-.01em;
overflow-wrap:anywhere}
h2{font-size:1.02rem;margin:0 0 .75rem;font-weight:650}
h3{font-size:.85rem;margin:1rem 0 .25rem;font-weight:600;color:var(--soft)}
p{margin:.25rem 0}
.soft{color:var(--soft)}
.small{font-size:.85rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem;margin-top:1rem}
.tag{display:inline-block;padding:.08rem .55rem;border-radius:999px;font-size:.82rem;font-weight:600;
background:var(--plain-bg);color:var(--soft);white-space:nowrap}
.good{background:var(--good-bg);color:var(--good)}.warn{background:var(--warn-bg);color:var(--warn)}
.bad{background:var(--bad-bg);color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin-top:1.5rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.85rem 1rem}
.card b{display:block;font-size:1.4rem;line-height:1.25;font-weight:650;letter-spacing:-.01em}
.card span{color:var(--soft);font-size:.85rem}
.card.bad,.card.warn{border-color:transparent}.card.bad span,.card.warn span{color:inherit}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.25rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th{font-size:.82rem;font-weight:600;color:var(--soft);text-align:left;padding:.1rem .75rem .4rem 0;white-space:nowrap;
border-bottom:1px solid var(--line)}
td{padding:.42rem .75rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
tr:last-child>td{border-bottom:0}
th:last-child,td:last-child{padding-right:0}
th.n,td.n{text-align:right;white-space:nowrap;padding-right:1.25rem}
tfoot td{font-weight:600;border-bottom:0}
tbody:not(:last-child) tr:last-child>td{border-bottom:1px solid var(--line)}
.track{display:block;width:100%;min-width:8rem;height:.55rem;margin-top:.45rem}
.track .bar{fill:var(--bar)}.track .bar.warn{fill:var(--warn)}.track .bar.bad{fill:var(--bad)}
.track .back{fill:var(--plain-bg)}
code{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
ul{margin:.25rem 0;padding-left:1.1rem}li{margin:.15rem 0;overflow-wrap:anywhere}
.hosts{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.35rem}.hosts li{margin:0}
@media (max-width:36rem){main{padding:1.5rem 1rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{:root{--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc}body{font-size:10.5pt}main{max-width:none;
padding:0}section,.card,tr{break-inside:avoid}h2{break-after:avoid}.tag,.track,.card{print-color-adjust:exact;
-webkit-print-color-adjust:exact}}
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def _visible(character: str) -> str:
    """Controls and direction marks are shown, so that no text looks like another one."""
    if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{ord(character):04x}"
    return character


def text(value: Any) -> str:
    """Any value as markup-free text; :class:`Html` as it is."""
    if isinstance(value, Html):
        return value
    if value is None or value == "":
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, int):
        value = f"{value:,}".replace(",", "\u2009")
    if isinstance(value, Mapping):
        return ", ".join(f"{text(key)}: {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return html.escape("".join(_visible(character) for character in str(value)))


def tag(value: Any, tone: str = "plain") -> Html:
    """A word in a coloured frame: ``good``, ``warn``, ``bad`` or ``plain``."""
    return Html(f'<span class="tag {tone}">{text(value)}</span>')


def code(value: Any) -> Html:
    """Names and digests, in a fixed width."""
    return Html(f"<code>{text(value)}</code>")


def words(name: str) -> str:
    """``rolled_back`` as ``rolled back``."""
    return name.replace("_", " ")


def moment(value: str | None) -> str:
    """``2026-11-21T10:00:00Z`` as ``2026-11-21 10:00:00 UTC``; any other text as it is."""
    if value and value.endswith("Z") and "T" in value:
        return f"{value[:10]} {value[11:19]} UTC"
    return value or ""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and what they are, without those that are empty."""
    rows = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs if value not in (None, "", [])
    )
    return f"<dl>{rows}</dl>"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), foot: Sequence[Any] = ()
) -> str:
    """A table.

    :param numbers: columns that are set to the right.
    :param foot: the last row.
    """
    right = set(numbers)

    def cells(row: Sequence[Any], kind: str) -> str:
        return "".join(
            f"<{kind}{' class=n' if place in right else ''}>{text(cell)}</{kind}>" for place, cell in enumerate(row)
        )

    head = "".join(
        f'<th scope="col"{" class=n" if place in right else ""}>{text(name) if name else ""}</th>'
        for place, name in enumerate(heads)
    )
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    last = f"<tfoot><tr>{cells(foot, 'td')}</tr></tfoot>" if foot else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>'


def section(name: str, title: str, content: str) -> str:
    """A framed part of the page; nothing where it has no content."""
    return f'<section id="{name}"><h2>{text(title)}</h2>{content}</section>' if content else ""


def document(title: str, content: str, style: str = "") -> str:
    """A whole page, HTML5, whose policy lets it run and load nothing.

    :param title: plain text.
    :param content: markup for its one main part.
    :param style: further rules of CSS.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        f"{content}\n</main>\n</body>\n</html>\n"
    )
