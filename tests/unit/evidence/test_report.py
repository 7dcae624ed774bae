# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page for people, parsed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.report import duration, render
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.schema import EVENTS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evidence import NOW, full_record, small_record
from tests.support.page import Page

SEAL: dict[str, Any] = {
    "sequence": 7,
    "sealed_at": NOW,
    "inventory_previous": "ab" * 32,
    "previous": {"JWK_AES_KEY": "cd" * 32, "AGENT_TOKEN": None},
    "signer": None,
}
EVIL = "<script>alert(1)</script>&\"'\u202e\u0000\u2028</style><b onload=x>"


def page(record: dict[str, Any]) -> Page:
    return Page(render(record, SEAL))


def test_the_full_page_has_every_part_in_order() -> None:
    assert list(page(full_record()).sections) == [
        "",
        "about",
        "secrets",
        "phases",
        "runs",
        "hosts",
        "coverage",
        "probes",
        "signing-keys",
        "health",
        "backups",
        "messages",
        "software",
        "seal",
    ]


def test_phases_have_their_durations() -> None:
    rows = page(full_record()).tables["phases"]
    assert rows[0] == ["Phase", "Result", "Started", "Duration", ""]
    assert [row[0] for row in rows[1:]] == [
        "plan", "preflight", "backup", "stage", "migrate", "promote", "restart", "verify", "retire", "Total",
    ]  # fmt: skip
    assert rows[5][1:4] == ["ok", "10:00:00", "1 min 14 s"]
    assert rows[9][1] == "skipped"
    assert rows[-1][3] == "2 min 21 s"


def test_trap_24_hosts_are_counted_and_the_waived_is_named() -> None:
    shown = page(full_record())
    assert "3/4hosts, 1 waived" in shown.sections[""]
    assert "3 of 4 hosts done." in shown.sections["hosts"]
    assert "agent-2 · waived" in shown.sections["hosts"]
    assert shown.tables["hosts"][1] == ["agent-2", "in the workshop until Monday", "2026-11-30 00:00:00 UTC"]


def test_trap_43_a_lost_host_stands_out() -> None:
    hosts = {"expected": ["a", "b"], "done": ["a"], "lost": ["b"]}
    text = render(small_record("r1", "rollback_pending", hosts=hosts), SEAL)
    assert '<span class="tag bad">b · lost</span>' in text
    assert "Rollback pending" in Page(text).sections[""]


def test_coverage_adds_up_to_the_last_line() -> None:
    rows = page(full_record()).tables["coverage"]
    assert rows[0] == ["Column", "Total", "New", "Old", "Plaintext", "Null", "Unknown", ""]
    assert rows[1] == [
        "jwks_keys.private_jwkapp · db-1", "248\u2009117", "248\u2009101", "0", "0", "16", "0", "complete",
    ]  # fmt: skip
    assert rows[3][:3] == ["All", "249\u2009029", "249\u2009013"]
    assert rows[5] == ["api_tokens.token_lookupapp · db-1", "5\u2009230"]


def test_coverage_with_rows_left_is_never_called_whole() -> None:
    record = full_record()
    row = record["coverage"][0]
    row["new"], row["old"] = row["new"] - 1, 1
    shown = page(record)
    assert shown.tables["coverage"][1][-1] == "1 left"
    assert "99.9 %rows on new key" in shown.sections[""]


def test_probes_that_went_otherwise_are_marked() -> None:
    record = full_record()
    record["probes"][0]["result"] = "refused"
    text = render(record, SEAL)
    assert "2/3probes as expected" in Page(text).sections[""]
    assert text.count('<span class="tag bad">refused</span>') == 1


def test_trap_49_backups_that_open_with_the_old_key_are_named() -> None:
    rows = page(full_record()).tables["backups"]
    assert rows[1] == ["api-1", "/var/lib/keyturn/backups/secrets-backup-20261121-100012", "2026-12-21 10:00:12 UTC"]
    assert rows[2][2] == "no end"


def test_the_seal_names_what_came_before() -> None:
    text = page(full_record()).sections["seal"]
    assert "number 7" in text
    assert "ab" * 32 in text
    assert "AGENT_TOKEN: first of its chain" in text
    assert "not signed" in text


@pytest.mark.parametrize("event", EVENTS)
def test_a_small_record_makes_a_short_page(event: str) -> None:
    shown = page(small_record("r1", event))
    assert list(shown.sections) == ["", "about", "secrets", "seal"]
    assert "1 min 00 s" in shown.sections[""]


@pytest.mark.parametrize("event", ["failed", "stuck"])
def test_messages_come_first_when_a_person_has_to_act(event: str) -> None:
    assert list(page(full_record(event=event)).sections)[1] == "messages"


def test_the_page_runs_nothing_and_loads_nothing() -> None:
    text = render(full_record(), SEAL)
    assert "default-src 'none'" in text
    shown = Page(text)
    assert shown.tags.isdisjoint({"script", "link", "img", "iframe", "object", "a", "form", "base"})
    assert not [name for name, _value in shown.attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert "url(" not in text


def with_text(value: Any, text: str) -> Any:
    """The same record with every free text replaced."""
    if isinstance(value, dict):
        return {
            key: item
            if key in ("event", "result", "state", "version") and item != "accepted"
            else with_text(item, text)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_text(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_every_text_is_escaped_and_hidden_characters_are_shown() -> None:
    record = with_text(full_record(), EVIL)
    record["health"]["before"] = {EVIL: EVIL}
    record["health"]["worse"] = [{EVIL: [EVIL]}]
    record["who"]["awx"] = {EVIL: EVIL}
    record["software"] = {EVIL: EVIL}
    text = render(record, {**SEAL, "previous": {EVIL: None}})
    shown = Page(text)
    assert "script" not in shown.tags
    assert not [name for name, _value in shown.attributes if name.startswith("on")]
    assert "\\u202e\\u0000\\u2028" in text
    assert not re.search("[\u202e\u0000\u2028]", text)
    assert "<script>alert(1)</script>" in shown.sections["messages"]


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1))
def test_any_text_gives_a_page_that_parses(text: str) -> None:
    shown = page(with_text(full_record(), text))
    assert list(shown.sections)[-1] == "seal"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"), (0, "0 s"), (0.04, "0.04 s"), (0.42, "0.42 s"), (3.25, "3.2 s"), (9.96, "10 s"),
        (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min"), (7800, "2 h 10 min"),
    ],
)  # fmt: skip
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
