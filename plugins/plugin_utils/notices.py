# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are told of a rotation, who wants to hear it, and the shapes that their programs read. Pure.

A notice holds names, hosts, times and commands. It holds no value, no reason that a person wrote and no text of an
error: it goes to machines of others.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape
from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import have_turned

__all__ = [
    "EVENTS",
    "FETCHED",
    "RECIPIENT",
    "check",
    "event_of",
    "facts",
    "notice",
    "plain",
    "slack",
    "teams",
    "wanted",
]

EVENTS = ("started", "succeeded", "failed", "rolled_back", "stuck", "overdue")
_EVENT_OF = {
    "overlap": "succeeded",
    "retired": "succeeded",
    "replaced": "succeeded",
    "replacing": "failed",
    "refused": "failed",
    "kept": "failed",
    "rolled_back": "rolled_back",
    "rollback_pending": "stuck",
    "stuck": "stuck",
    "stayed": "failed",
    "retiring": "failed",
    "open": "",
}
_SOURCE = Shape(
    "where a value comes from, on the controller",
    {
        "file": Field("str", "A file of mode 0600"),
        "env": Field("str", "A variable of the environment"),
        "variable": Field("str", "An Ansible variable (vaulted)"),
    },
)
RECIPIENT = Shape(
    "recipient",
    {
        "type": Field("str", "How it is told", required=True, choices=("webhook", "slack", "teams", "mail", "command")),
        "name": Field("str", "What warnings call it"),
        "on": Field("list", f"Events, all by default: {', '.join(EVENTS)}"),
        "secrets": Field("list", "Names, or patterns as KEY_*, all by default"),
        "timeout": Field("int", "Seconds; 5 by default", minimum=1),
        "url": Field("str", "The address; it is a secret, so vault it"),
        "url_from": Field("map", "The address from a file, the environment or a variable", shape=_SOURCE),
        "token_from": Field("map", "A bearer token for a webhook", shape=_SOURCE),
        "proxy": Field("str", "An HTTP proxy: http://proxy:3128"),
        "ca_file": Field("str", "Certificates to trust"),
        "host": Field("str", "The mail server; localhost by default"),
        "port": Field("int", "Its port; 587, 465 or 25 by default, as tls says", minimum=1),
        "tls": Field("str", "starttls by default", choices=("starttls", "tls", "none")),
        "user": Field("str", "The login"),
        "password_from": Field("map", "Its password", shape=_SOURCE),
        "from": Field("str", "The sender's address"),
        "to": Field("str|list", "The addresses"),
        "command": Field("list", "A command; the message comes on its standard input as JSON"),
    },
)
#: Fields whose value may lie elsewhere: ``<field>_from`` says where.
FETCHED = ("url", "token", "password")
_NEEDED = {"mail": ("from", "to"), "command": ("command",)}
_COLORS = {"started": "Good", "succeeded": "Good", "rolled_back": "Warning", "overdue": "Warning"}
_MOST_HOSTS = 20
# Limits of Slack's Block Kit: a header, a field, a section
_HEADER, _FIELD, _SECTION, _FIELDS = 150, 2000, 3000, 10


def event_of(status: str) -> str:
    """The event behind the status in which a run ends; empty where there is nothing to tell."""
    return _EVENT_OF[status]


def check(recipient: Any, where: str) -> None:
    """Refuse a recipient that cannot be told anything.

    :raises KeyturnError: ``catalog-invalid``; what stands in it is not shown.
    """
    RECIPIENT.check(recipient, where)
    kind = recipient["type"]
    missing = [key for key in _NEEDED.get(kind, ()) if not recipient.get(key)]
    if kind not in _NEEDED and not (recipient.get("url") or recipient.get("url_from")):
        missing = ["url"]
    if missing:
        raise KeyturnError(
            "catalog-invalid", f"field {missing[0]!r} is missing", where=where, hint="See docs/notifications.md"
        )
    for source in (f"{field}_from" for field in FETCHED):
        if source in recipient and len(recipient[source]) != 1:
            raise KeyturnError(
                "catalog-invalid", "needs one of file, env, variable", where=f"{where}.{source}", hint="Name one"
            )
    unknown = sorted(set(map(str, recipient.get("on", ()))) - set(EVENTS))
    if unknown:
        raise KeyturnError(
            "catalog-invalid", f"no event {unknown[0]!r}", where=f"{where}.on", hint=f"Known: {', '.join(EVENTS)}"
        )


def wanted(recipient: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether this recipient asked for this event, and for one of its secrets."""
    if told["event"] not in recipient.get("on", EVENTS):
        return False
    patterns = recipient.get("secrets")
    return patterns is None or any(
        fnmatch.fnmatchcase(name, str(pattern)) for name in told["secrets"] for pattern in patterns
    )


def notice(event: str, about: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The message, the same for every recipient.

    :param about: ``secrets``, and what is known of ``rotation_id``, ``mode``, ``status``, ``hosts``, ``lost``,
        ``who``, ``started_at``, ``retire_after``, ``stopped_at``, ``evidence``, ``state_host``, ``commands``.
    :param now: the time, UTC.
    """
    names = [str(name) for name in about.get("secrets", ())]
    only = ",".join(names)
    status, mode = str(about.get("status") or ""), str(about.get("mode") or "")
    who = about.get("who") or {}
    return {
        "schema_version": 1,
        "event": event,
        "title": _title(event, status, mode, names),
        "secrets": names,
        "rotation_id": str(about.get("rotation_id") or ""),
        "mode": mode,
        "status": status,
        "hosts": sorted(map(str, about.get("hosts", ()))),
        "lost": sorted(map(str, about.get("lost", ()))),
        "who": " on ".join(str(who[key]) for key in ("user", "controller") if who.get(key)),
        "started_at": str(about.get("started_at") or ""),
        "at": now,
        "retire_after": str(about.get("retire_after") or ""),
        "stopped_at": [str(place) for place in about.get("stopped_at", ())],
        "evidence": str(about.get("evidence") or ""),
        "state_host": str(about.get("state_host") or ""),
        "commands": [str(command) for command in about.get("commands", ())],
        "do": _to_do(event, status, only),
    }


def _title(event: str, status: str, mode: str, names: Sequence[str]) -> str:
    shown = ", ".join(names) or "secrets"
    if event == "started":
        begun = {
            "retire": f"Retiring the previous version of {shown}",
            "rollback": f"Going back: {shown}",
            "emergency": f"Replacing a compromised version of {shown}",
        }
        return begun.get(mode, f"Turning {shown}")
    if event == "succeeded" and status == "replaced":
        return f"{shown}: the compromised version is replaced and disabled"
    if event == "succeeded":
        return f"{shown}: the previous version is retired" if status == "retired" else f"{shown} {have_turned(names)}"
    if event == "rolled_back":
        after = "as asked" if mode == "rollback" else "after a failure"
        return f"{shown}: everything is back on the version before, {after}"
    if event == "stuck":
        pending = status == "rollback_pending"
        return f"{shown}: rolled back, but not on every host" if pending else f"{shown}: the way back did not finish"
    if event == "overdue":
        return f"{shown}: due for a long time and not turned"
    words = {
        "retiring": "retire did not finish",
        "kept": "the previous version was not retired",
        "stayed": "the way back was refused, and nothing was changed",
        "replacing": "the compromised version is not replaced everywhere yet",
        "refused": "the emergency was refused, and the compromised version is in use as before",
    }
    return f"{shown}: {words.get(status, 'could not be done')}"


def _to_do(event: str, status: str, only: str) -> str:
    asked = f" -e keyturn_only={only}" if only else ""
    back = f"ansible-playbook keyturn.rotation.rollback{asked}"
    emergency = f"ansible-playbook keyturn.rotation.emergency{asked} -e keyturn_confirm={only}"
    if event == "succeeded" and status not in ("retired", "replaced"):
        return f"Nothing. The way back, until it is retired: {back}"
    if event == "rolled_back":
        return "Look at the evidence, mend the cause, and turn it again"
    if event == "stuck":
        first = "Bring the lost hosts back" if status == "rollback_pending" else "Mend what the evidence says"
        return f"{first}, then run: {back}"
    if event == "overdue":
        return f"Find out why with status and plan, then run: ansible-playbook keyturn.rotation.rotate{asked}"
    if event == "failed":
        again = {
            "retiring": f"Run again: ansible-playbook keyturn.rotation.retire{asked}",
            "kept": f"Look at the evidence, mend the cause, then run: ansible-playbook keyturn.rotation.retire{asked}",
            "stayed": f"Look at the evidence, mend the cause, then run: {back}",
            "replacing": f"Run again: {emergency}",
            "refused": f"Look at the evidence, mend the cause, then run: {emergency}",
        }
        return again.get(status, "Run ansible-playbook keyturn.rotation.status and look at the log")
    return "Nothing"


def facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a notice says, as pairs for people; what is empty is left out."""
    hosts = told["hosts"]
    more = f" and {len(hosts) - _MOST_HOSTS} more" if len(hosts) > _MOST_HOSTS else ""
    evidence = f"{told['state_host']}:{told['evidence']}" if told["evidence"] else ""
    rows = [
        ("Secrets", ", ".join(told["secrets"])),
        ("Rotation", told["rotation_id"]),
        ("Hosts", ", ".join(hosts[:_MOST_HOSTS]) + more),
        ("Lost", ", ".join(told["lost"])),
        ("Stopped at", "; ".join(told["stopped_at"])),
        ("Not done", "; ".join(told["commands"])),
        ("Started", " by ".join(filter(None, (told["started_at"], told["who"])))),
        ("Retire after", told["retire_after"]),
        ("Evidence", evidence),
        ("To do", told["do"]),
    ]
    return [(name, text) for name, text in rows if text]


def plain(told: Mapping[str, Any]) -> str:
    """The text of a mail."""
    lines = [told["title"], "", *(f"{name + ':':14}{text}" for name, text in facts(told)), "", f"Sent {told['at']}"]
    return "\n".join(lines) + "\n"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def slack(told: Mapping[str, Any]) -> dict[str, Any]:
    """A message for an incoming webhook of Slack (Block Kit); plain text, so that no name becomes a mention."""

    def text(content: str, length: int) -> dict[str, Any]:
        return {"type": "plain_text", "text": _cut(content, length), "emoji": False}

    rows = [(name, content) for name, content in facts(told) if name != "To do"]
    escaped = told["title"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": _cut(escaped, _SECTION),
        "blocks": [
            {"type": "header", "text": text(told["title"], _HEADER)},
            {"type": "section", "fields": [text(f"{name}\n{content}", _FIELD) for name, content in rows[:_FIELDS]]},
            {"type": "section", "text": text(told["do"], _SECTION)},
        ],
    }


def teams(told: Mapping[str, Any]) -> dict[str, Any]:
    """A message for the Workflows app of Microsoft Teams: one Adaptive Card."""
    body: Sequence[Mapping[str, Any]] = [
        {
            "type": "TextBlock",
            "text": _cut(told["title"], _SECTION),
            "weight": "Bolder",
            "size": "Medium",
            "wrap": True,
            "color": _COLORS.get(told["event"], "Attention"),
        },
        {
            "type": "FactSet",
            "facts": [{"title": name, "value": _cut(content, _FIELD)} for name, content in facts(told)],
        },
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}
