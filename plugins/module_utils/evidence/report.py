# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page for people: one file, no script, nothing loaded, every text escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

__all__ = ["duration", "render"]

_EVENTS = {
    "rotated": ("good", "Rotated", "The new version is in use."),
    "retired": ("good", "Old version retired", "The old version is used nowhere and was refused."),
    "closed": ("good", "Old version closed", "No backup holds the old version any more."),
    "check": ("plain", "Checked", "Nothing was changed."),
    "rolled_back": ("warn", "Rolled back", "The old version is in use, as before."),
    "rollback_pending": ("warn", "Rollback pending", "A host is still to be rolled back. The next run does it first."),
    "failed": ("bad", "Failed", "The rotation did not finish."),
    "stuck": ("bad", "Stuck", "A person has to act. See the messages."),
}
_TONES = {
    "ok": "good",
    "unchanged": "plain",
    "skipped": "plain",
    "stopped": "plain",
    "interrupted": "warn",
    "rolled_back": "warn",
    "failed": "bad",
}
_STATES = {"primary": "good", "compromised": "bad"}

_STYLE = """
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


class _Html(str):
    """Text that is markup already."""

    __slots__ = ()


def _visible(character: str) -> str:
    """Controls and direction marks are shown, so that no text looks like another one."""
    if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{ord(character):04x}"
    return character


def _text(value: Any) -> str:
    """Any value as markup-free text; :class:`_Html` as it is."""
    if isinstance(value, _Html):
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
        return ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return html.escape("".join(_visible(character) for character in str(value)))


def _tag(value: Any, tone: str = "plain") -> _Html:
    return _Html(f'<span class="tag {tone}">{_text(value)}</span>')


def _code(value: Any) -> _Html:
    return _Html(f"<code>{_text(value)}</code>")


def _words(name: str) -> str:
    return name.replace("_", " ")


def duration(seconds: float | None) -> str:
    """Seconds as people say it: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None:
        return "\u2013"
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:g} ms" if value < 1000 else duration(value / 1000)


def _time(value: str | None) -> str:
    """``2026-11-21T10:00:00Z`` as ``2026-11-21 10:00:00 UTC``; any other text as it is."""
    if value and value.endswith("Z") and "T" in value:
        return f"{value[:10]} {value[11:19]} UTC"
    return value or ""


def _between(start: str, end: str) -> float | None:
    try:
        moments = [datetime.strptime(text[:19] + "Z", "%Y-%m-%dT%H:%M:%S%z") for text in (start, end)]
    except ValueError:
        return None
    return (moments[1] - moments[0]).total_seconds()


def _facts(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs if value not in (None, "", [])
    )
    return f"<dl>{rows}</dl>"


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), foot: Sequence[Any] = ()
) -> str:
    right = set(numbers)

    def cells(row: Sequence[Any], kind: str) -> str:
        return "".join(
            f"<{kind}{' class=n' if place in right else ''}>{_text(cell)}</{kind}>" for place, cell in enumerate(row)
        )

    head = "".join(
        f'<th scope="col"{" class=n" if place in right else ""}>{_text(name) if name else ""}</th>'
        for place, name in enumerate(heads)
    )
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    last = f"<tfoot><tr>{cells(foot, 'td')}</tr></tfoot>" if foot else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>'


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{_text(title)}</h2>{content}</section>' if content else ""


def _passed(probe: Mapping[str, Any]) -> bool:
    return str(probe["expected"]) == str(probe["result"])


def _cards(record: Mapping[str, Any]) -> str:
    cards: list[tuple[str, str, str]] = []
    hosts = record.get("hosts")
    if hosts:
        expected, done = len(hosts["expected"]), len(hosts["done"])
        waived = len(hosts.get("waived", []))
        short = expected - done - waived
        label = f"hosts, {waived} waived" if waived else "hosts"
        cards.append((f"{done}/{expected}", label, "bad" if short > 0 and record["event"] != "check" else ""))
    coverage = record.get("coverage", [])
    if coverage:
        side = "old" if record["event"] == "rolled_back" else "new"
        full = sum(row[side] for row in coverage)
        left = sum(row["total"] - row["null"] for row in coverage) - full
        share = 100.0 if not left else min(99.9, 100 * full / (full + left))
        tone = "warn" if left and record["event"] in ("rotated", "retired") else ""
        cards.append((f"{share:.3g} %", f"rows on {side} key", tone))
    probes = record.get("probes", [])
    if probes:
        good = sum(1 for probe in probes if _passed(probe))
        cards.append((f"{good}/{len(probes)}", "probes as expected", "" if good == len(probes) else "bad"))
    if record.get("gap_ms") is not None:
        promised = record.get("promised", {}).get("gap_ms")
        over = promised is not None and record["gap_ms"] > promised
        cards.append((_milliseconds(record["gap_ms"]), "gap for readers", "warn" if over else ""))
    spent = record.get("taken", {}).get("seconds")
    if spent is None:
        spent = _between(record["when"]["started_at"], record["when"]["ended_at"])
    cards.append((duration(spent), "in total", ""))
    items = "".join(
        f'<div class="card {tone}"><b>{_text(big)}</b><span>{_text(small)}</span></div>' for big, small, tone in cards
    )
    return f'<div class="cards">{items}</div>'


def _about(record: Mapping[str, Any]) -> str:
    who = record["who"]
    awx = who.get("awx") or {}
    promised, taken = record.get("promised", {}), record.get("taken", {})
    pairs: list[tuple[str, Any]] = [
        ("Reason", record["why"]),
        ("Started", _time(record["when"]["started_at"])),
        ("Ended", _time(record["when"]["ended_at"])),
        ("By", who["user"]),
        ("Through sudo, from", who.get("sudo_user")),
        ("Controller", who.get("controller")),
        ("AWX", ", ".join(f"{_words(str(key))} {value}" for key, value in awx.items())),
        ("CI", who.get("ci")),
        ("Plan", _code(record["plan_digest"]) if record.get("plan_digest") else None),
    ]
    if promised.get("seconds") is not None:
        pairs.append(("Time promised, taken", f"{duration(promised['seconds'])}, {duration(taken.get('seconds'))}"))
    if promised.get("gap_ms") is not None:
        gap = record.get("gap_ms", taken.get("gap_ms"))
        pairs.append(("Gap promised, taken", f"{_milliseconds(promised['gap_ms'])}, {_milliseconds(gap)}"))
    return _section("about", "Who, when, why", _facts(pairs))


def _secrets(record: Mapping[str, Any]) -> str:
    rows = []
    for secret in record["secrets"]:
        versions = secret.get("versions") or [{}]
        for number, version in enumerate(versions):
            state = version.get("state")
            changed = secret.get("fingerprint_changed")
            rows.append(
                (
                    _Html(f"<b>{_text(secret['name'])}</b>") if number == 0 else _Html(""),
                    _words(secret["kind"]) if number == 0 else _Html(""),
                    secret.get("strategy") if number == 0 else _Html(""),
                    version.get("version"),
                    _tag(state, _STATES.get(state, "plain")) if state else None,
                    _time(version.get("at")),
                    changed if number == 0 else _Html(""),
                )
            )
    return _section(
        "secrets", "Secrets", _table(("Name", "Kind", "Strategy", "Version", "State", "Since", "Value changed"), rows)
    )


def _phases(record: Mapping[str, Any]) -> str:
    phases = record.get("phases", [])
    if not phases:
        return ""
    total = sum(phase.get("seconds") or 0 for phase in phases) or 1
    rows, before = [], 0.0
    for phase in phases:
        seconds = phase.get("seconds")
        tone = _TONES[phase["result"]]
        start, width = 100 * before / total, max(100 * (seconds or 0) / total, 0.6 if seconds else 0)
        drawn = (
            '<svg class="track" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
            '<rect class="back" width="100" height="4" rx="0"/>'
            f'<rect class="bar {tone}" x="{min(start, 100 - width):.2f}" width="{width:.2f}" height="4"/></svg>'
        )
        before += seconds or 0
        rows.append(
            (
                _words(phase["name"]),
                _tag(_words(phase["result"]), tone),
                _time(phase.get("started_at"))[11:19],
                duration(seconds),
                _Html(drawn),
            )
        )
    total_row = ("Total", _Html(""), _Html(""), duration(before), _Html(""))
    return _section(
        "phases", "Phases", _table(("Phase", "Result", "Started", "Duration", ""), rows, numbers=[3], foot=total_row)
    )


def _runs(record: Mapping[str, Any]) -> str:
    runs = record.get("runs", [])
    if not runs or (len(runs) == 1 and not runs[0].get("interrupted")):
        return ""
    rows = [
        (
            _code(run["run_id"]),
            run["epoch"],
            run.get("user"),
            _time(run.get("started_at")),
            _tag("interrupted", "warn") if run.get("interrupted") else _tag("ran to its end"),
        )
        for run in runs
    ]
    return _section("runs", "Runs of this rotation", _table(("Run", "Epoch", "By", "Started", ""), rows, numbers=[1]))


def _hosts(record: Mapping[str, Any]) -> str:
    hosts = record.get("hosts")
    if not hosts:
        return ""
    done = set(hosts["done"])
    waived = {item["host"] for item in hosts.get("waived", [])}
    lost = set(hosts.get("lost", []))
    names = [*hosts["expected"], *sorted((done | waived | lost) - set(hosts["expected"]))]

    def tone(name: str) -> tuple[str, str]:
        if name in lost:
            return "bad", " · lost"
        if name in waived:
            return "warn", " · waived"
        return ("good", "") if name in done else ("plain", " · not done")

    items = "".join(f"<li>{_tag(name + tone(name)[1], tone(name)[0])}</li>" for name in names)
    content = f'<p>{len(done)} of {len(hosts["expected"])} hosts done.</p><ul class="hosts">{items}</ul>'
    if waived:
        rows = [(item["host"], item["reason"], _time(item.get("until"))) for item in hosts["waived"]]
        content += "<h3>Waived</h3>" + _table(("Host", "Reason", "Until"), rows)
    return _section("hosts", "Hosts", content)


_COUNTS = ("total", "new", "old", "plaintext", "null", "unknown")


def _column(row: Mapping[str, Any]) -> _Html:
    place = " · ".join(str(row[part]) for part in ("database", "host") if row.get(part))
    more = f'<br><span class="soft small">{_text(place)}</span>' if place else ""
    return _Html(f"{_code(row['table'] + '.' + row['column'])}{more}")


def _coverage(record: Mapping[str, Any]) -> str:
    coverage = record.get("coverage", [])
    content = ""
    if coverage:
        rows = []
        for row in coverage:
            left = row["old"] + row["plaintext"] + row["unknown"]
            verdict = _tag("complete", "good") if not left else _tag(f"{left} left", "warn")
            rows.append((_column(row), *(row[count] for count in _COUNTS), verdict))
        foot = ("All", *(sum(row[count] for row in coverage) for count in _COUNTS), _Html(""))
        heads = ("Column", "Total", "New", "Old", "Plaintext", "Null", "Unknown", "")
        content = _table(heads, rows, numbers=range(1, 7), foot=foot if len(coverage) > 1 else ())
    cleared = record.get("cleared", [])
    if cleared:
        content += "<h3>Cleared</h3>" + _table(
            ("Column", "Rows"), [(_column(row), row.get("rows")) for row in cleared], numbers=[1]
        )
    return _section("coverage", "Coverage of the data", content)


def _probes(record: Mapping[str, Any]) -> str:
    rows = [
        (
            probe["name"],
            probe["type"],
            probe.get("host"),
            probe["version"],
            probe["expected"],
            _tag(probe["result"], "good" if _passed(probe) else "bad"),
        )
        for probe in record.get("probes", [])
    ]
    heads = ("Probe", "Type", "Host", "Version", "Expected", "Result")
    return _section("probes", "Probes", _table(heads, rows) if rows else "")


def _keysets(record: Mapping[str, Any]) -> str:
    rows = [
        (
            _Html(f"<b>{_text(keyset['name'])}</b>") if number == 0 else _Html(""),
            _code(key["kid"]),
            _tag(key["state"], _STATES.get(key["state"], "plain")),
            _time(key.get("since")),
            "active" if key["kid"] == keyset["active_kid"] else _Html(""),
        )
        for keyset in record.get("keysets", [])
        for number, key in enumerate(keyset["keys"])
    ]
    return _section("keysets", "Keysets", _table(("Keyset", "Kid", "State", "Since", ""), rows) if rows else "")


def _service_state(value: Any) -> Any:
    """One word for a service's health, whatever shape it was captured in."""
    if isinstance(value, Mapping):
        return next((value[key] for key in ("health", "status", "state") if value.get(key) not in (None, "")), value)
    return value


def _health(record: Mapping[str, Any]) -> str:
    health = record.get("health", {})
    sides = [health.get(side, {}) for side in ("before", "after")]
    sides = [side["services"] if isinstance(side.get("services"), Mapping) else side for side in sides]
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows = [(name, *(_service_state(side[name]) if name in side else None for side in sides)) for name in names]
    content = _table(("Service", "Before", "After"), rows) if rows else ""
    if health.get("worse"):
        items = "".join(f"<li>{_text(item)}</li>" for item in health["worse"])
        content += f"<h3>Worse than before</h3><ul>{items}</ul>"
    elif rows:
        content += '<p class="soft small">No service is worse than before.</p>'
    return _section("health", "Health", content)


def _backups(record: Mapping[str, Any]) -> str:
    rows = [
        (item["host"], _code(item["path"]), _time(item.get("expires")) or _tag("no end", "warn"))
        for item in record.get("backups", [])
    ]
    return _section(
        "backups", "What still opens with the old key", _table(("Host", "Place", "Until"), rows) if rows else ""
    )


def _messages(record: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{_text(message)}</li>" for message in record.get("messages", []))
    return _section("messages", "Messages", f"<ul>{items}</ul>" if items else "")


def _seal(record: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    previous = "".join(
        f"<li>{_text(name)}: {_code(value) if value else 'first of its chain'}</li>"
        for name, value in seal["previous"].items()
    )
    before = _code(seal["inventory_previous"]) if seal["inventory_previous"] else "none, this is the first"
    software = _facts((_words(str(name)), value) for name, value in record.get("software", {}).items())
    facts = _facts(
        [
            ("Record", f"number {seal['sequence']} of this inventory, sealed {_time(seal['sealed_at'])}"),
            ("Record before", before),
            ("Before, per secret", _Html(f"<ul>{previous}</ul>")),
            ("Signed by", _code(seal["signer"]) if seal["signer"] else "not signed"),
            ("Check", _code("sha256sum -c fingerprint.sha256")),
        ]
    )
    return (_section("software", "Software", software) if record.get("software") else "") + _section(
        "seal", "Seal", facts
    )


def render(record: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    """The page of one record, HTML5.

    :param record: in the shape of ``schema.RECORD``, checked.
    :param seal: ``sequence``, ``sealed_at``, ``inventory_previous``, ``previous``, ``signer``.
    """
    tone, title, meaning = _EVENTS[record["event"]]
    names = ", ".join(secret["name"] for secret in record["secrets"])
    parts = (
        _cards(record),
        _messages(record) if tone == "bad" else "",
        _about(record),
        _secrets(record),
        _phases(record),
        _runs(record),
        _hosts(record),
        _coverage(record),
        _probes(record),
        _keysets(record),
        _health(record),
        _backups(record),
        _messages(record) if tone != "bad" else "",
        _seal(record, seal),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}: {_text(names)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header>{_tag(title, tone)}<h1>{_text(names)}</h1>"
        f'<p class="soft">{_text(meaning)} Rotation {_code(record["rotation_id"])}</p></header>\n'
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
