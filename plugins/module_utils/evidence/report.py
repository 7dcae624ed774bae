# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page for people: one file, no script, nothing loaded, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import page
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.keyset import comparison_lines

__all__ = ["duration", "render"]

_EVENTS = {
    "rotated": ("good", "Rotated", "The new version is in use."),
    "retired": ("good", "Old version retired", "The old version is used nowhere and was refused."),
    "closed": ("good", "Old version closed", "No backup holds the old version any more."),
    "restored": ("warn", "Restored", "Files hold again what a backup holds, so values may be older ones."),
    "check": ("plain", "Checked", "Nothing was changed."),
    "captured": ("plain", "Captured", "A keyset as it was; nothing was changed."),
    "replaced": (
        "warn",
        "Compromised version replaced",
        "The new version is in use everywhere; the old one is disabled.",
    ),
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


def _between(start: str, end: str) -> float | None:
    try:
        moments = [datetime.strptime(text[:19] + "Z", "%Y-%m-%dT%H:%M:%S%z") for text in (start, end)]
    except ValueError:
        return None
    return (moments[1] - moments[0]).total_seconds()


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
        f'<div class="card {tone}"><b>{page.text(big)}</b><span>{page.text(small)}</span></div>'
        for big, small, tone in cards
    )
    return f'<div class="cards">{items}</div>'


def _about(record: Mapping[str, Any]) -> str:
    who = record["who"]
    awx = who.get("awx") or {}
    promised, taken = record.get("promised", {}), record.get("taken", {})
    pairs: list[tuple[str, Any]] = [
        ("Reason", record["why"]),
        ("Started", page.moment(record["when"]["started_at"])),
        ("Ended", page.moment(record["when"]["ended_at"])),
        ("By", who["user"]),
        ("Through sudo, from", who.get("sudo_user")),
        ("Controller", who.get("controller")),
        ("AWX", ", ".join(f"{page.words(str(key))} {value}" for key, value in awx.items())),
        ("CI", who.get("ci")),
        ("Plan", page.code(record["plan_digest"]) if record.get("plan_digest") else None),
    ]
    if promised.get("seconds") is not None:
        pairs.append(("Time promised, taken", f"{duration(promised['seconds'])}, {duration(taken.get('seconds'))}"))
    if promised.get("gap_ms") is not None:
        gap = record.get("gap_ms", taken.get("gap_ms"))
        pairs.append(("Gap promised, taken", f"{_milliseconds(promised['gap_ms'])}, {_milliseconds(gap)}"))
    return page.section("about", "Who, when, why", page.facts(pairs))


def _secrets(record: Mapping[str, Any]) -> str:
    rows = []
    for secret in record["secrets"]:
        versions = secret.get("versions") or [{}]
        for number, version in enumerate(versions):
            state = version.get("state")
            changed = secret.get("fingerprint_changed")
            rows.append(
                (
                    page.Html(f"<b>{page.text(secret['name'])}</b>") if number == 0 else page.Html(""),
                    page.words(secret["kind"]) if number == 0 else page.Html(""),
                    secret.get("strategy") if number == 0 else page.Html(""),
                    version.get("version"),
                    page.tag(state, _STATES.get(state, "plain")) if state else None,
                    page.moment(version.get("at")),
                    changed if number == 0 else page.Html(""),
                )
            )
    return page.section(
        "secrets",
        "Secrets",
        page.table(("Name", "Kind", "Strategy", "Version", "State", "Since", "Value changed"), rows),
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
                page.words(phase["name"]),
                page.tag(page.words(phase["result"]), tone),
                page.moment(phase.get("started_at"))[11:19],
                duration(seconds),
                page.Html(drawn),
            )
        )
    total_row = ("Total", page.Html(""), page.Html(""), duration(before), page.Html(""))
    return page.section(
        "phases",
        "Phases",
        page.table(("Phase", "Result", "Started", "Duration", ""), rows, numbers=[3], foot=total_row),
    )


def _runs(record: Mapping[str, Any]) -> str:
    runs = record.get("runs", [])
    if not runs or (len(runs) == 1 and not runs[0].get("interrupted")):
        return ""
    rows = [
        (
            page.code(run["run_id"]),
            run["epoch"],
            run.get("user"),
            page.moment(run.get("started_at")),
            page.tag("interrupted", "warn") if run.get("interrupted") else page.tag("ran to its end"),
        )
        for run in runs
    ]
    return page.section(
        "runs", "Runs of this rotation", page.table(("Run", "Epoch", "By", "Started", ""), rows, numbers=[1])
    )


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

    items = "".join(f"<li>{page.tag(name + tone(name)[1], tone(name)[0])}</li>" for name in names)
    content = f'<p>{len(done)} of {len(hosts["expected"])} hosts done.</p><ul class="hosts">{items}</ul>'
    if waived:
        rows = [(item["host"], item["reason"], page.moment(item.get("until"))) for item in hosts["waived"]]
        content += "<h3>Waived</h3>" + page.table(("Host", "Reason", "Until"), rows)
    return page.section("hosts", "Hosts", content)


_COUNTS = ("total", "new", "old", "plaintext", "null", "unknown")


def _column(row: Mapping[str, Any]) -> page.Html:
    place = " · ".join(str(row[part]) for part in ("database", "host") if row.get(part))
    more = f'<br><span class="soft small">{page.text(place)}</span>' if place else ""
    return page.Html(f"{page.code(row['table'] + '.' + row['column'])}{more}")


def _coverage(record: Mapping[str, Any]) -> str:
    coverage = record.get("coverage", [])
    content = ""
    if coverage:
        rows = []
        for row in coverage:
            left = row["old"] + row["plaintext"] + row["unknown"]
            verdict = page.tag("complete", "good") if not left else page.tag(f"{left} left", "warn")
            rows.append((_column(row), *(row[count] for count in _COUNTS), verdict))
        foot = ("All", *(sum(row[count] for row in coverage) for count in _COUNTS), page.Html(""))
        heads = ("Column", "Total", "New", "Old", "Plaintext", "Null", "Unknown", "")
        content = page.table(heads, rows, numbers=range(1, 7), foot=foot if len(coverage) > 1 else ())
    cleared = record.get("cleared", [])
    if cleared:
        content += "<h3>Cleared</h3>" + page.table(
            ("Column", "Rows"), [(_column(row), row.get("rows")) for row in cleared], numbers=[1]
        )
    return page.section("coverage", "Coverage of the data", content)


def _probes(record: Mapping[str, Any]) -> str:
    rows = [
        (
            probe["name"],
            probe["type"],
            probe.get("host"),
            probe["version"],
            probe["expected"],
            page.tag(probe["result"], "good" if _passed(probe) else "bad"),
        )
        for probe in record.get("probes", [])
    ]
    heads = ("Probe", "Type", "Host", "Version", "Expected", "Result")
    return page.section("probes", "Probes", page.table(heads, rows) if rows else "")


def _keysets(record: Mapping[str, Any]) -> str:
    keysets = record.get("keysets", [])
    marked = any("fingerprint" in key for keyset in keysets for key in keyset["keys"])
    rows = [
        (
            page.Html(f"<b>{page.text(keyset['name'])}</b>") if number == 0 else page.Html(""),
            page.code(key["kid"]),
            page.tag(key["state"], _STATES.get(key["state"], "plain")),
            page.moment(key.get("since")),
            *([page.code(key.get("fingerprint"))] if marked else []),
            "active" if key["kid"] == keyset["active_kid"] else page.Html(""),
            page.tag("changed", "warn") if key.get("changed") else page.Html(""),
        )
        for keyset in keysets
        for number, key in enumerate(keyset["keys"])
    ]
    heads = ("Keyset", "Kid", "State", "Since", *(["Fingerprint"] if marked else []), "", "")
    content = page.table(heads, rows) if rows else ""
    for keyset in keysets:
        lines = comparison_lines(keyset)
        if lines:
            against = f"Since {keyset['compared_with']}" if keyset["compared_with"] else "Comparison"
            content += (
                f"<h3>{page.text(against)}</h3><ul>{''.join(f'<li>{page.text(line)}</li>' for line in lines)}</ul>"
            )
    return page.section("keysets", "Keysets", content)


def _signing_keys(record: Mapping[str, Any]) -> str:
    content = ""
    for entry in record.get("signing_keys", []):
        rows = [
            (
                key["tenant"],
                page.code(key["kid"]),
                page.tag(key["state"], _STATES.get(key["state"], "plain")),
                page.code(key.get("public_sha256")),
            )
            for key in entry["keys"]
        ]
        content += f"<h3>{page.text(entry['name'])}</h3>"
        content += page.table(("Tenant", "Kid", "State", "SHA-256 of the public key"), rows)
        shown = len({key["tenant"] for key in entry["keys"]})
        if shown < entry["tenants"]:
            content += f"<p>The first {shown} of {entry['tenants']} tenants.</p>"
    return page.section("signing-keys", "Signing keys", content)


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
    content = page.table(("Service", "Before", "After"), rows) if rows else ""
    if health.get("worse"):
        items = "".join(f"<li>{page.text(item)}</li>" for item in health["worse"])
        content += f"<h3>Worse than before</h3><ul>{items}</ul>"
    elif rows:
        content += '<p class="soft small">No service is worse than before.</p>'
    return page.section("health", "Health", content)


def _backups(record: Mapping[str, Any]) -> str:
    rows = [
        (item["host"], page.code(item["path"]), page.moment(item.get("expires")) or page.tag("no end", "warn"))
        for item in record.get("backups", [])
    ]
    return page.section(
        "backups", "What still opens with the old key", page.table(("Host", "Place", "Until"), rows) if rows else ""
    )


def _messages(record: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{page.text(message)}</li>" for message in record.get("messages", []))
    return page.section("messages", "Messages", f"<ul>{items}</ul>" if items else "")


def _seal(record: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    previous = "".join(
        f"<li>{page.text(name)}: {page.code(value) if value else 'first of its chain'}</li>"
        for name, value in seal["previous"].items()
    )
    before = page.code(seal["inventory_previous"]) if seal["inventory_previous"] else "none, this is the first"
    software = page.facts((page.words(str(name)), value) for name, value in record.get("software", {}).items())
    facts = page.facts(
        [
            ("Record", f"number {seal['sequence']} of this inventory, sealed {page.moment(seal['sealed_at'])}"),
            ("Record before", before),
            ("Before, per secret", page.Html(f"<ul>{previous}</ul>")),
            ("Signed by", page.code(seal["signer"]) if seal["signer"] else "not signed"),
            ("Check", page.code("sha256sum -c fingerprint.sha256")),
        ]
    )
    return (page.section("software", "Software", software) if record.get("software") else "") + page.section(
        "seal", "Seal", facts
    )


def render(record: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    """The page of one record, HTML5.

    :param record: in the shape of ``schema.RECORD``, checked.
    :param seal: ``sequence``, ``sealed_at``, ``inventory_previous``, ``previous``, ``signer``.
    """
    tone, title, meaning = _EVENTS[record["event"]]
    names = ", ".join(secret["name"] for secret in record["secrets"])
    what = "Event" if record["event"] in ("captured", "restored") else "Rotation"
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
        _signing_keys(record),
        _health(record),
        _backups(record),
        _messages(record) if tone != "bad" else "",
        _seal(record, seal),
    )
    header = (
        f"<header>{page.tag(title, tone)}<h1>{page.text(names)}</h1>"
        f'<p class="soft">{page.text(meaning)} {what} {page.code(record["rotation_id"])}</p></header>\n'
    )
    return page.document(f"{title}: {names}", header + "\n".join(part for part in parts if part))
