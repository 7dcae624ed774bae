# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status as a page with a picture, and as a cryptographic inventory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.latest import latest
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import seal
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.plugin_utils.crypto_inventory import crypto_inventory
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import only_these, status_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.status_page import status_page
from ansible_collections.keyturn.rotation.plugins.plugin_utils.timeline import picture, versions_of
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evidence import NOW, full_record, small_record
from tests.support.page import Page
from tests.support.play import run_tasks
from tests.support.standing import HOSTILE, planned, row, turned


def materials(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the inventory says of each asset, by its reference."""
    return {
        component["bom-ref"]: component["cryptoProperties"]["relatedCryptoMaterialProperties"]
        for component in content["components"]
    }


def inventory(of: dict[str, Any]) -> dict[str, Any]:
    text = crypto_inventory(of)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content: dict[str, Any] = json.loads(text)
    return content


# -- the table and the page ----------------------------------------------------------------------------------------


def test_the_page_has_every_secret_with_age_due_state_and_evidence_overdue_first() -> None:
    shown = Page(status_page(planned(), {}))
    head, *rows = shown.tables["secrets"]
    assert head == ["Secret", "Kind", "State", "Age", "Next due", "Rotation", "Last evidence"]
    assert [cells[0] for cells in rows] == ["LATE_KEY", "DUE_TOKEN", "NEVER_KEY", "FRESH_KEY", "OPEN_KEY", "NO_PERIOD"]
    assert rows[0][2:] == ["overdue by 110 d", "200 d of 90 d", "2026-08-03", "superseded", "rotated 2026-05-05"]
    assert rows[2][3] == "never turned"
    assert "1 overdue" in shown.sections[""]
    assert list(shown.sections) == ["", "secrets", "timeline", "notes"]


def test_the_table_names_the_last_evidence() -> None:
    lines = status_lines(planned(), {})
    assert lines[2].endswith("LAST EVIDENCE")
    assert next(line for line in lines if "LATE_KEY" in line).endswith("rotated 2026-05-05")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["LATE_KEY", "DUE_TOKEN"], {"LATE_KEY", "DUE_TOKEN"}),
        (["FRESH_KEY"], {"FRESH_KEY"}),
        (["all"], {entry["name"] for entry in planned()["secrets"]}),
        ([], {entry["name"] for entry in planned()["secrets"]}),
    ],
)
def test_the_table_has_the_secrets_that_are_asked_for(names: list[str], shown: set[str]) -> None:
    lines = status_lines({**planned(), "secrets": only_these(planned()["secrets"], names)}, {})
    every = {entry["name"] for entry in planned()["secrets"]}
    assert {line.split()[0] for line in lines if line.split()} & every == shown


def test_a_secret_that_is_none_is_not_shown_as_nothing() -> None:
    with pytest.raises(KeyturnError, match=r"no secret 'LATE_KE'.*LATE_KEY"):
        only_these(planned()["secrets"], ["FRESH_KEY", "LATE_KE"])


def test_the_page_runs_nothing_and_loads_nothing() -> None:
    text = status_page(planned(), {})
    assert "default-src 'none'" in text
    shown = Page(text)
    assert shown.tags.isdisjoint({"script", "link", "img", "iframe", "object", "a", "form", "base", "image", "use"})
    assert not [name for name, _value in shown.attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_hostile_names_are_escaped_and_hidden_characters_shown() -> None:
    of = planned()
    for entry in of["secrets"]:
        entry.update(kind=HOSTILE, status=HOSTILE, held_back=HOSTILE)
        entry["evidence"] = {"event": HOSTILE, "at": HOSTILE, "folder": HOSTILE, "record": HOSTILE}
    of["secrets"][0]["name"] = HOSTILE
    of["rotations"][HOSTILE] = turned("2026-01-01", HOSTILE)
    text = status_page(of, {})
    shown = Page(text)
    assert shown.tags.isdisjoint({"script", "b onload"})
    assert not [name for name, _value in shown.attributes if name.startswith("on")]
    assert not re.search("[\u202e\u0000\u2028]", text)
    assert "<script>alert(1)</script>" in shown.sections["timeline"]
    assert HOSTILE not in crypto_inventory(of)
    inventory(of)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1))
def test_any_name_gives_a_page_that_parses_and_an_inventory_that_fits(name: str) -> None:
    of = planned()
    of["secrets"][0]["name"] = name
    of["rotations"] = {name: turned("2026-01-01", name)}
    assert "timeline" in Page(status_page(of, {})).sections
    assert f"secret/{name}@{name}" in materials(inventory(of))


def test_no_secret_at_all_is_a_page_and_an_inventory_too() -> None:
    of = {"now": "2026-11-21T10:00:00.000Z", "secrets": [], "rotations": {}, "evidence": {}, "grace_s": 0}
    assert "Nothing is overdue" in Page(status_page(of, {})).sections[""]
    assert inventory(of)["components"] == []


# -- versions in time ----------------------------------------------------------------------------------------------


def test_versions_follow_each_other_and_one_that_was_rolled_back_ends_there() -> None:
    rotations = {
        "r1": turned("2026-01-01", "A", status="superseded"),
        "r2": turned("2026-02-01", "A", status="rolled_back", ended_at="2026-02-03T00:00:00.000Z"),
        "r3": turned("2026-03-01", "A", "B", status="retired", ended_at="2026-03-02T00:00:00.000Z"),
        "r4": {"secrets": ["A"], "status": "rolled_back", "started_at": "2026-04-01T00:00:00.000Z"},
    }
    found = versions_of("A", rotations)

    def at(day: str) -> float:
        return parse_stamp(f"{day}T00:00:00Z")

    assert [(each.rotation_id, each.began, each.ended, each.rolled_back) for each in found] == [
        ("r1", at("2026-01-01"), at("2026-03-01"), False),
        ("r2", at("2026-02-01"), at("2026-02-03"), True),
        ("r3", at("2026-03-01"), None, False),
    ]
    assert found[2].kept_until == at("2026-03-02")
    assert [each.rotation_id for each in versions_of("B", rotations)] == ["r3"]


def test_a_version_lasts_until_its_secret_turned_again_also_where_the_rest_of_its_group_went_back() -> None:
    back = turned("2026-01-01", "B", status="rolled_back", ended_at="2026-02-03T00:00:00.000Z")
    rotations = {"r1": {**back, "followed": {"A": "r2"}}, "r2": turned("2026-02-01", "A")}
    ends = {name: [(v.ended, v.rolled_back) for v in versions_of(name, rotations)] for name in ("A", "B")}
    assert ends["A"] == [(parse_stamp("2026-02-01T00:00:00Z"), False), (None, False)]
    assert ends["B"] == [(parse_stamp("2026-02-03T00:00:00Z"), True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=6, unique=True), st.integers(1, 4000), st.integers(-2000, 400))
def test_nothing_is_drawn_outside_of_the_picture(days: list[int], period: int, due_in: int) -> None:
    now = parse_stamp("2026-11-21T10:00:00Z")
    rotations = {
        f"r{day}": turned(
            NOW[:10], "A", turned_at=f"{2017 + day // 365}-{day % 12 + 1:02d}-{day % 28 + 1:02d}T00:00:00.000Z"
        )
        for day in days
    }
    drawn = picture([row("A", period, due_in)], rotations, now).partition("</svg>")[0]
    for x, width in re.findall(r'<rect class="[^"]*" x="([0-9.-]+)" y="[0-9.-]+" width="([0-9.-]+)"', drawn):
        assert 200 <= float(x) <= 988
        assert 0 < float(width) <= 800
    dates = re.findall(r'class="axis"[^>]*>([0-9-]{10})<', drawn)
    assert dates == sorted(set(dates))
    assert len(dates) <= 8


# -- the inventory -------------------------------------------------------------------------------------------------


def test_versions_are_assets_with_states_and_dates() -> None:
    found = materials(inventory(planned()))
    assert found["secret/LATE_KEY@r-late"] == {
        "type": "secret-key",
        "id": "LATE_KEY@r-late",
        "state": "active",
        "creationDate": "2026-05-05T00:00:00Z",
        "activationDate": "2026-05-05T00:00:00Z",
        "expirationDate": "2026-08-03T00:00:00Z",
    }
    states = {ref: material.get("state") for ref, material in found.items()}
    assert states["secret/LATE_KEY@r-first"] == "destroyed"
    assert states["secret/FRESH_KEY@r-before"] == "deactivated"
    assert states["secret/FRESH_KEY@r-fresh"] == "active"
    assert (states["secret/OPEN_KEY"], states["secret/OPEN_KEY@r-open"]) == ("active", "pre-activation")
    assert found["secret/NEVER_KEY"] == {"type": "password", "id": "NEVER_KEY", "state": "active"}


def test_keys_of_a_keyset_are_known_by_their_keyed_fingerprints() -> None:
    found = materials(inventory(planned()))
    assert found["keyset/JWT/k2"] == {
        "type": "secret-key", "id": "0123456789abcdef", "state": "active", "activationDate": "2026-11-01T00:00:00Z",
    }  # fmt: skip
    assert found["keyset/JWT/k1"]["state"] == "deactivated"
    assert found["keyset/JWT/k9"] == {"type": "secret-key", "id": "JWT/k9"}


def test_the_inventory_of_the_same_state_has_the_same_bytes() -> None:
    one, other = planned(), planned()
    other["secrets"].reverse()
    other["rotations"] = dict(reversed(list(other["rotations"].items())))
    assert crypto_inventory(one) == crypto_inventory(other)
    other["secrets"][0]["status"] = "closed"
    later = {**planned(), "now": "2026-11-22T10:00:00.000Z"}
    assert json.loads(crypto_inventory(later))["serialNumber"] != json.loads(crypto_inventory(one))["serialNumber"]


def test_dates_are_utc_to_the_second() -> None:
    for material in materials(inventory(planned())).values():
        for key, value in material.items():
            assert not key.endswith("Date") or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value)


# -- what was sealed last ------------------------------------------------------------------------------------------


def test_the_last_evidence_is_found_and_a_damaged_chain_does_not_stop_the_status(tmp_path: Path) -> None:
    assert latest(str(tmp_path / "nothing")) == {}
    keyset = {"name": "JWT", "active_kid": "k1", "keys": [{"kid": "k1", "state": "primary"}]}
    seal(str(tmp_path), full_record(), now=NOW)
    seal(str(tmp_path), small_record("r1", "rotated", "JWT", keysets=[keyset]), now=NOW)
    digest = seal(str(tmp_path), small_record("r1", "retired", "JWT", "AGENT_TOKEN"), now=NOW).digest
    found = latest(str(tmp_path))
    assert {name: entry["event"] for name, entry in found.items()} == {
        "AGENT_TOKEN": "retired", "JWK_AES_KEY": "rotated", "JWT": "retired",
    }  # fmt: skip
    assert (found["JWT"]["record"], found["JWT"]["folder"]) == (digest, "r1.retired")
    assert found["JWT"]["keyset"] == keyset
    (tmp_path / "chains/JWT.jsonl").write_text("nonsense")
    assert latest(str(tmp_path))["JWT"]["event"] == "damaged"
    assert latest(str(tmp_path))["AGENT_TOKEN"]["event"] == "retired"


@pytest.mark.parametrize("check", [True, False])
def test_the_playbooks_module_writes_private_files(tmp_path: Path, check: bool) -> None:
    (tmp_path / "page.html").write_text("before")
    (tmp_path / "page.html").chmod(0o644)
    show = {"planned": planned(), "what": "status", "to": "../page.html", "inventory_to": str(tmp_path / "bom.json")}
    ended = run_tasks(
        tmp_path, {"one": {}}, [{"keyturn.rotation.rotation_show": show}], *(["--check"] if check else [])
    )
    assert ended.code == 0, ended.output
    assert (tmp_path / "page.html").read_text() == status_page(planned(), {})
    assert (tmp_path / "bom.json").read_text() == crypto_inventory(planned())
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("page.html", "bom.json")} == {0o600}
