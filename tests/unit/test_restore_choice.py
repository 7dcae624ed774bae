# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup of each host is meant, which secrets and services that concerns, and when it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import gates, keeping, plan, registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import backup_lines
from ansible_collections.keyturn.rotation.plugins.plugin_utils.backup_arguments import newest_with
from ansible_collections.keyturn.rotation.plugins.plugin_utils.restarts import affected

from tests.unit.test_catalog import GROUPS, catalog
from tests.unit.test_plan import KINDS, NOW

PLAN: dict[str, Any] = {"hosts": {"one": {"secrets": [{}]}, "two": {"secrets": [{}]}, "state": {"secrets": []}}}
_NOW = plan.parse_stamp("2026-11-21T18:00:00Z")
_RECIPIENT = "age1mrlqcq6x5z4da0nzvz0u763ypsrn3admrrx3qrwsjc8mnwqq79jsfs0lnk"


def _backup(time: str = "20261121-100000", rotation_id: str = "r1", **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "name": f"secrets-backup-{time}",
        "short_name": time,
        "time": "2026-11-21T10:00:00+00:00",
        "rotation_id": rotation_id,
        "reason": "",
        "secrets": ["KEY"],
        "services": ["api"],
        "files": ["/srv/.env"],
        "complete": True,
        "foreign": False,
        "encryption": "",
        "checksums": "ok",
        "expires": "",
    }
    return {**known, **more}


def _problems(wanted: str, one: list[dict[str, Any]], two: list[dict[str, Any]]) -> list[str]:
    return gates.backups(PLAN, {"one": {"backups": one}, "two": {"backups": two}}, wanted, _NOW)


@pytest.mark.parametrize("wanted", ["20261121-100000", "secrets-backup-20261121-100000", "r1", "latest"])
def test_a_backup_is_named_by_time_by_folder_by_rotation_or_as_the_latest(wanted: str) -> None:
    assert _problems(wanted, [_backup()], [_backup()]) == []
    assert (gates.chosen_backup([_backup("20261120-100000", "r0"), _backup()], wanted) or {})["rotation_id"] == "r1"


def test_the_latest_is_never_one_that_a_restore_made_nor_a_damaged_one() -> None:
    known = [_backup(), _backup("20261121-110000", "", reason="before restoring x"), _backup("20261121-120000", "r3")]
    known[-1]["complete"] = False
    assert (gates.chosen_backup(known, "latest") or {})["name"] == "secrets-backup-20261121-100000"
    assert gates.chosen_backup([], "latest") is None
    assert gates.chosen_backup(known, "") is None


def test_of_a_lost_file_the_newest_sound_backup_is_named() -> None:
    known = [
        _backup(path="/b/older"),
        _backup(path="/b/newer"),
        _backup(path="/b/other", files=["/srv/.env.local"]),
        _backup(path="/b/replaced", reason="before restoring x"),
        _backup(path="/b/damaged", checksums="wrong"),
        _backup(path="/b/half", complete=False),
    ]
    assert newest_with(known, "/srv/.env: does not exist.") == "/b/newer"
    assert newest_with([_backup(path="/b/one", encryption="age")], "/srv/.env: x") == "/b/one (age)"
    assert newest_with(known, "/srv/elsewhere: does not exist.") == ""


def test_every_host_must_have_it_and_it_must_be_as_it_was_made() -> None:
    assert "two: has no backup r1" in _problems("r1", [_backup()], [])[0]
    assert (
        "two: secrets-backup-20261121-100000 is not as it was made"
        in (_problems("r1", [_backup()], [_backup(checksums="wrong")])[0])
    )
    name = "secrets-backup-20261121-100000"
    assert "is not whole" in _problems(name, [_backup()], [_backup(complete=False)])[0]
    assert gates.backups(PLAN, {"one": {"backups": [_backup()]}}, "r1", _NOW) == [
        "two: did not say which backups it has."
    ]


def test_the_latest_of_several_rotations_is_refused() -> None:
    (problem,) = _problems("latest", [_backup()], [_backup("20261121-120000", "r2")])
    assert "different rotations (r1, r2)" in problem


def test_what_is_the_latest_is_not_known_where_one_is_of_a_time_to_come() -> None:
    """It was made while a clock was ahead, and another one since the clock was set right."""
    ahead = {**_backup("20271121-100000", "r0"), "time": "2027-11-21T10:00:00+00:00"}
    for known in ([_backup(), ahead], [ahead]):
        one, two = _problems("latest", known, known)
        assert one.startswith("one: secrets-backup-20271121-100000 is of a time that has not come yet")
        assert two.startswith("two: ")
    assert _problems("r0", [_backup(), ahead], [ahead]) == []


def test_rows_under_another_key_refuse_it_unless_a_person_said_so() -> None:
    row = {"table": "t", "column": "c", "total": 5, "old": 3, "null": 1, "plaintext": 0}
    result = ("db", "preflight", {"job": {"secret": "KEY"}, "coverage": [row]})
    (problem,) = gates.readable([result])
    assert "1 rows of t.c are not under the key of this backup" in problem
    assert gates.readable([result], ["KEY"]) == []


def test_files_that_cannot_be_replaced_are_named_with_their_host() -> None:
    other = {"code": "file-unsafe", "where": "/b", "msg": "/b: is a link."}
    problems = [{"code": "file-fixed", "where": "/a", "msg": "/a: could not be replaced."}, other]
    assert gates.not_replaceable({"one": {"problems": [other]}, "two": {}}) == []
    assert gates.not_replaceable({"one": {"problems": problems}}) == [
        "one: /a: could not be replaced. Nothing was restored."
    ]


def test_backups_that_hold_different_values_are_refused_unless_a_person_said_so() -> None:
    def holds(mark: str) -> dict[str, Any]:
        return {"secrets": {"KEY": {"stores": [{"present": True, "fingerprint": mark}]}}}

    assert gates.same_in_backups({"one": holds("a"), "two": holds("a")}) == []
    (problem,) = gates.same_in_backups({"one": holds("a"), "two": holds("b")})
    assert "KEY: the backups hold different values (one against two)" in problem
    assert gates.same_in_backups({"one": holds("a"), "two": holds("b")}, ["KEY"]) == []


# -- the secrets that a run is about ----------------------------------------------------------------------------------


def _loaded(**secrets: dict[str, Any]) -> Catalog:
    variables = catalog()
    for name, changes in secrets.items():
        variables["keyturn_secrets"][name] = {**variables["keyturn_secrets"]["KEY"], **changes}
    return load_catalog(variables, GROUPS)


def _register(name: str, status: str) -> dict[str, Any]:
    content = registry.empty()
    content["secrets"][name] = {"open": "r1", "current": None}
    content["rotations"]["r1"] = {"secrets": [name], "status": status}
    return content


def test_a_file_is_restored_with_all_secrets_in_it() -> None:
    apart = [{"hosts": "api", "type": "file", "path": "/srv/apart"}]
    known = _loaded(OTHER={}, APART={"stores": apart, "data": [], "kind": "env_secret", "strategy": "replace"})
    assert plan.choose(known, registry.empty(), ["KEY"], "restore", NOW) == ["KEY", "OTHER"]
    assert plan.choose(known, registry.empty(), ["APART"], "restore", NOW) == ["APART"]
    assert plan.choose(known, registry.empty(), [], "prune", NOW) == ["APART", "KEY", "OTHER"]


@pytest.mark.parametrize("status", ["open", "rolling_back", "stuck", "retiring"])
def test_nothing_is_restored_while_a_rotation_of_a_secret_in_the_file_is_open(status: str) -> None:
    with pytest.raises(KeyturnError, match="rotation r1 of OTHER is open") as caught:
        plan.choose(_loaded(OTHER={}), _register("OTHER", status), ["KEY"], "restore", NOW)
    assert caught.value.code == "rotation-busy"
    assert plan.choose(_loaded(OTHER={}), _register("OTHER", status), [], "prune", NOW) == ["KEY", "OTHER"]


def test_a_key_of_data_at_rest_does_not_turn_without_a_backup() -> None:
    with pytest.raises(KeyturnError, match="data at rest depends on KEY") as caught:
        plan.build(_loaded(), ["KEY"], KINDS, {}, skip_backup=True)
    assert caught.value.code == "backup-needed"
    token = _loaded(KEY={"kind": "env_secret", "strategy": "replace", "data": []})
    kinds = {"env_secret": {"role": "keyturn.rotation.env_secret", "phases": []}}
    built = plan.build(token, ["KEY"], kinds, {}, skip_backup=True)
    assert (built["skip_backup"], "backup" in built["phases"]) == (True, False)
    assert built["digest"] != plan.build(token, ["KEY"], kinds, {})["digest"], "an agreed plan had a backup in it"


# -- what people see --------------------------------------------------------------------------------------------------


def test_the_services_of_the_backup_and_the_readers_of_its_files_are_affected() -> None:
    services = [{"name": "db", "wave": 0}, {"name": "api", "wave": 1}, {"name": "worker", "wave": 2}]
    work = {"secrets": [{"name": "KEY", "stores": [{"path": "/srv/.env"}]}], "services": services}
    built = {
        "secrets": [{"name": "KEY", "consumers": ["worker"]}],
        "hosts": {"one": work},
        "waves": [["db"], ["api"], ["worker"]],
    }
    said = {"backup": _backup(services=["api", "gone"]), "restored": ["/srv/.env"], "replaced": "safety"}
    found = affected(built, {"one": said}, ["db", "api", "worker", "other"])
    assert found["services"] == ["api", "worker"]
    assert found["running"] == {"one": [[], services[1:2], services[2:]]}
    assert any("the catalog does not know gone" in line for line in found["lines"])
    assert "  replaced    one: what was there is in safety" in found["lines"]
    assert not any("read none of these secrets" in line for line in found["lines"])


@pytest.mark.parametrize("check", [True, False])
def test_people_are_told_which_values_change_what_restarts_and_which_overlap_is_astray(check: bool) -> None:
    services = [{"name": "web", "wave": 1}, {"name": "api", "wave": 0}]
    names = ("KEY", "OTHER", "THIRD")
    stores = [{"name": name, "stores": [{"path": "/srv/.env"}]} for name in names]
    built = {
        "secrets": [{"name": name, "consumers": ["web"]} for name in names],
        "hosts": {"one": {"secrets": stores, "services": services}, "two": {"secrets": stores, "services": []}},
        "waves": [["api"], ["web"]],
    }
    said = {"backup": _backup(), "restored": ["/srv/.env"], "replaced": ""}
    answers = {
        "one": {**said, "differing": ["KEY", "OTHER", "THIRD"], "astray": ["OTHER", "THIRD"]},
        "two": {**said, "differing": [], "astray": []},
    }
    lines = affected(built, answers, ["api", "web"], check=check, overlaps={"KEY": "r1", "OTHER": "r2"})["lines"]
    words = ("would restore", "would change", "would restart", "would")
    restore, change, again, match = words if check else ("restored   ", "changed    ", "restarts   ", "does")
    assert lines == [
        "",
        f"  {restore} one: secrets-backup-20261121-100000: /srv/.env",
        f"  {change} one: the values of KEY, OTHER, THIRD",
        f"  {restore} two: secrets-backup-20261121-100000: /srv/.env",
        f"  {change} two: no value of the catalog",
        f"  {again} api, web",
        f"  warning     OTHER: rotation r2 is in overlap and {match} not match these files any more. End it: "
        "ansible-playbook keyturn.rotation.rollback -e keyturn_only=OTHER",
    ]
    quiet = affected(built, answers, ["api", "web"], restarts=False)["lines"]
    assert quiet[-1] == "  note        not restarted, as asked: api, web"


def test_a_service_that_the_catalog_knows_and_that_reads_nothing_of_it_is_named_as_that() -> None:
    services = [{"name": "api", "wave": 0}]
    work = {"secrets": [{"name": "KEY", "stores": [{"path": "/srv/.env"}]}], "services": services}
    built = {"secrets": [{"name": "KEY", "consumers": ["api"]}], "hosts": {"one": work}, "waves": [["api"]]}
    said = {"backup": _backup(services=["api", "web", "db", "gone"]), "restored": [], "replaced": ""}
    found = affected(built, {"one": said}, {"api": {}, "db": {}, "web": {}})
    assert found["services"] == ["api"]
    warnings = [line for line in found["lines"] if line.startswith("  warning")]
    assert [line for line in warnings if "the catalog does not know" in line] == [
        "  warning     the catalog does not know gone, which the backup names: restart it yourself"
    ]
    (known,) = (line for line in warnings if "does not know" not in line)
    assert "read none of these secrets now" in known
    assert known.endswith("keyturn.rotation.restart -e keyturn_restart=db,web")


def test_the_list_says_what_each_backup_holds_and_how_it_is() -> None:
    damaged = _backup("20261122-100000", checksums="wrong", encryption="age", expires="2027-02-20T10:00:00+00:00")
    other = _backup("20251031-143000", "", foreign=True, complete=False, checksums="none")
    lines = backup_lines({"one": {"backups": [other, _backup(), damaged]}, "two": {"backups": []}})
    text = "\n".join(lines)
    assert text.index("20261122-100000") < text.index("20261121-100000") < text.index("20251031-143000")
    for words in ("NOT as it was made", "encrypted with age", "checksums ok", "made by another program", "two: none"):
        assert words in text


# -- keyturn_backup and keyturn_escrow --------------------------------------------------------------------------------


def test_what_is_not_said_has_a_default() -> None:
    assert keeping.backup_policy(None) == {
        "directory": "",
        "retention_days": 90,
        "keep": 5,
        "filename_format": "secrets-backup-%Y%m%d-%H%M%S",
        "gitignore": True,
        "encrypt": {},
    }
    escrow = {"hosts": "box", "directory": "/srv/escrow", "recipients": [_RECIPIENT]}
    assert keeping.escrow_policy(escrow, lambda value, _where: [str(value)])["at_retire"] == "keep"
    assert keeping.escrow_policy(None, lambda value, _where: [str(value)]) == {}


@pytest.mark.parametrize(
    "given",
    [
        "secrets-backup-20251031-143000",
        {"retention_day": 3},
        {"retention_days": -1},
        {"keep": -1},
        {"directory": "../elsewhere"},
        {"filename_format": "%H"},
        {"encrypt": {"type": "zip"}},
        {"encrypt": {"type": "age"}},
        {"encrypt": {"type": "age", "recipients": ["age1nobody"]}},
        {"encrypt": {"type": "ansible_vault", "key_from": {"file": "a", "env": "B"}}},
    ],
)
def test_a_policy_that_is_wrong_is_refused(given: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        keeping.backup_policy(given)
    assert caught.value.code in ("catalog-invalid", "format-invalid", "recipient-invalid")
    assert "keyturn_backup" in str(caught.value)


def test_an_escrow_without_a_recipient_is_refused() -> None:
    escrow = {"hosts": "box", "directory": "/srv/escrow", "recipients": []}
    with pytest.raises(KeyturnError) as caught:
        keeping.escrow_policy(escrow, lambda value, _where: [str(value)])
    assert caught.value.code == "recipient-invalid"
