# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of a record, its canonical bytes, and what it must not hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import schema
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.evidence import NOW, full_record, small_record

ROOT = Path(__file__).resolve().parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/003_evidence.json").read_text())
SEAL = {"sequence": 1, "sealed_at": NOW, "folder": "x.rotated"}
OFFICIAL = Draft202012Validator(schema.RECORD)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


def refused(record: Any) -> KeyturnError:
    with pytest.raises(KeyturnError) as caught:
        records.check_record(record)
    return caught.value


@given(JSON_VALUES)
def test_canonical_form_is_a_fixed_point_and_tells_values_apart(value: Any) -> None:
    raw = records.canonical(value)
    assert raw.endswith(b"\n")
    assert not raw.endswith(b"\n\n")
    assert records.canonical(json.loads(raw)) == raw
    assert json.loads(raw) == value
    assert records.line(value).count(b"\n") == 1


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), min_size=2))
def test_canonical_form_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert records.canonical(dict(reversed(list(value.items())))) == records.canonical(value)


@pytest.mark.parametrize("raw", [b"{}", b'{"b":1,"a":2}\n', b'{"a":1,"a":1}\n', b"[1, 2]\n", b"nonsense\n", b"\xff\n"])
def test_bytes_in_any_other_form_are_refused(raw: bytes) -> None:
    with pytest.raises(KeyturnError, match="canonical"):
        records.parse(raw)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", b"bytes", {1, 2}])
def test_what_json_cannot_hold_is_refused_without_quoting_it(value: Any) -> None:
    error = refused(small_record(software={"x": value}))
    assert error.code == "evidence-invalid"


def test_docs_hold_the_schema_of_the_code() -> None:
    published = json.loads((ROOT / "docs/evidence.schema.json").read_text())
    assert published == schema.DOCUMENT
    Draft202012Validator.check_schema(published)


@pytest.mark.parametrize("event", schema.EVENTS)
def test_good_records_pass_both_validators(event: str) -> None:
    for record in (full_record(event=event), small_record("r1", event)):
        records.check_record(record)
        assert list(OFFICIAL.iter_errors(record)) == []


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


PLACES = places(full_record())
REPLACEMENTS: list[Any] = [
    None,
    True,
    0,
    -1,
    2.0,
    2.5,
    "",
    "x",
    "2026-11-21T10:00:00Z\n",
    "a\n",
    "../x",
    [],
    {},
    {"x": 1},
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([*REPLACEMENTS, "<delete>", "<extra>"]))
def test_own_validator_and_json_schema_agree_on_every_change(path: tuple[Any, ...], change: Any) -> None:
    record: Any = full_record()
    parent = record
    for key in path[:-1]:
        parent = parent[key]
    if change == "<delete>":
        del parent[path[-1]]
    elif change == "<extra>" and isinstance(parent, dict):
        parent["not-known"] = 1
    else:
        parent[path[-1]] = copy.deepcopy(change)
    assert (list(records.faults(record)) == []) == OFFICIAL.is_valid(record)


def test_a_field_that_is_not_known_is_refused() -> None:
    error = refused(small_record(fingerprint="aabb"))
    assert (error.code, error.where) == ("evidence-invalid", "$")
    assert "aabb" not in str(error)


def test_the_seal_is_not_for_the_caller_to_give() -> None:
    assert refused(small_record(seal={})).code == "evidence-invalid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rotation_id": "../../etc/x"}, "evidence-invalid"),
        ({"rotation_id": "a/b"}, "evidence-invalid"),
        ({"rotation_id": "a\n"}, "evidence-invalid"),
        ({"rotation_id": 'ev"1'}, "evidence-invalid"),
        ({"event": "../x"}, "evidence-invalid"),
        ({"secrets": [{"name": "../x", "kind": "k"}]}, "evidence-invalid"),
        ({"secrets": []}, "evidence-invalid"),
        ({"secrets": [{"name": "A", "kind": "k"}, {"name": "A", "kind": "k"}]}, "evidence-invalid"),
    ],
)
def test_trap_33_names_that_lead_elsewhere_are_refused(changes: dict[str, Any], code: str) -> None:
    assert refused(small_record(**changes)).code == code


def test_trap_33_an_active_kid_that_names_no_key_is_refused() -> None:
    keyset = {"name": "JWT", "active_kid": "k9", "keys": [{"kid": "k1", "state": "primary"}]}
    assert refused(small_record(keysets=[keyset])).where == "$.keysets.JWT"


def test_coverage_that_does_not_add_up_is_refused() -> None:
    record = full_record()
    record["coverage"][1]["new"] -= 1
    assert refused(record).where == "$.coverage[1]"


@pytest.mark.parametrize("zone", ["2026-11-21T10:00:00", "2026-11-21T10:00:00+01:00", "2026-11-21 10:00:00Z"])
def test_trap_35_a_time_without_utc_is_refused(zone: str) -> None:
    assert refused(small_record(when={"started_at": zone, "ended_at": zone})).code == "evidence-invalid"


def keyset_of(case: dict[str, Any]) -> dict[str, Any]:
    payload = json.loads(case["keyset_text"])
    previous = case["previous_summary_parsed"]
    active = payload.get("active_kid", "default")
    return {
        "name": "JWT",
        "source_mode": case["source_mode"],
        "active_kid": active,
        "previous_active_kid": previous["active_kid"] if previous else None,
        "keys": [
            {
                "kid": kid,
                "state": "primary" if kid == active else "previous",
                "since": NOW,
                "changed": case["name"] == "secret_changed_same_kid" and kid == active,
            }
            for kid in payload["keys"]
        ],
    }


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["name"]))
def test_keyset_summary_has_the_known_fields_and_no_material(case: dict[str, Any]) -> None:
    record = small_record(keysets=[keyset_of(case)])
    records.check_record(record)
    facts = records.summary(record, SEAL)
    names = ("source_mode", "active_kid", "keys_count", "rotation_state")
    expected = {name: case["summary_parsed"][name] for name in names}
    if case["name"] == "secret_changed_same_kid":  # trap 34: the original said "unchanged"
        expected["rotation_state"] = "rotated"
    assert {name: facts[name] for name in names} == expected
    assert {"event_id", "captured_at_utc"} <= facts.keys()
    written = json.loads(records.keyset_files(record)["keyset.json"])
    payload = json.loads(case["keyset_text"])
    assert set(written["keys"]) == set(payload["keys"])
    for secret in payload["keys"].values():
        assert secret not in json.dumps(written)


def test_two_keysets_get_a_file_each() -> None:
    keys = [{"kid": "k1", "state": "primary"}]
    record = small_record(keysets=[{"name": name, "active_kid": "k1", "keys": keys} for name in ("A", "B")])
    assert sorted(records.keyset_files(record)) == ["keyset.A.json", "keyset.B.json"]
    assert set(records.summary(record, SEAL)["keysets"]) == {"A", "B"}
