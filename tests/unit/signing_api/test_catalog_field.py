# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What catalog, plan, tasks and evidence make of signing keys behind an API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.keyturn.rotation.plugins.module_utils import plan, sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import Catalog, load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils import logins, signing
from ansible_collections.keyturn.rotation.plugins.plugin_utils.signing_api_arguments import api_call, api_told

_GROUPS = {"all": ["i1", "i2", "s1"], "identity": ["i1", "i2"]}
_KINDS = {"signing_key": {"role": "keyturn.rotation.signing_key", "phases": ["promote"]}}
_TOKEN = {"path": "/oauth2/token", "client": "probe"}
_URL = "https://id.example"
_SHOWN = {"name": "edge", "type": "token", "version": "old", "url": "https://edge.example/ping"}


def _variables(api: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A catalog; ``api`` are fields of ``key_api``, those that are None are taken away, and ``more`` of the secret."""
    given = {"base": _URL, "shape": "by_path", "token": _TOKEN, "client_secret": {"env": "S"}, **(api or {})}
    service = {"hosts": "identity", "manager": "systemd", "unit": "identity.service"}
    secret = {
        "kind": "signing_key",
        "key_api": {field: value for field, value in given.items() if value is not None},
        "overlap_min": "2h",
        **more,
    }
    return {
        "keyturn_state_host": "s1",
        "keyturn_services": {"identity": service},
        "keyturn_secrets": {"SIGN": secret},
    }


def _loaded(api: dict[str, Any] | None = None, **more: Any) -> Catalog:
    return load_catalog(_variables(api, **more), _GROUPS)


def _job(host: str, api: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    (job,) = plan.build(_loaded(api, **more), ["SIGN"], _KINDS, {})["hosts"][host]["signing"]
    return dict(job)


def test_the_first_host_asks_and_every_host_of_the_issuer_restarts_it() -> None:
    loaded = _loaded({"hosts": ["i2", "i1"], "restart": "identity", "wait": "1m"})
    assert (loaded.secrets["SIGN"]["strategy"], loaded.hosts_of("SIGN")) == ("overlap", ["i1", "i2", "s1"])
    made = plan.build(loaded, ["SIGN"], _KINDS, {})
    (job,) = made["hosts"]["i2"]["signing"]
    assert (job["overlap_s"], job["wait"], job["restart"], job["api"]["base"]) == (7200, 60, "identity", _URL)
    assert [made["hosts"][host]["issuers"][0]["name"] for host in ("i1", "i2")] == ["identity", "identity"]
    assert "signing" not in made["hosts"]["i1"]
    assert (made["secrets"][0]["issuer"], made["secrets"][0]["stays_listed"]) == ("identity", True)
    assert made["phases"] == list(plan.PHASES["overlap"])
    assert logins.no_gap(made)
    assert signing.planned(made["hosts"]["i2"]) == [
        f"signing keys of SIGN by the API at {_URL}, restarting identity where it does not show a change at once",
        "the former key of SIGN stays listed: this API disables none",
    ]
    waiver = {"host": "i2", "reason": "down", "until": "2099-01-01"}
    with pytest.raises(KeyturnError, match="cannot be left out"):
        plan.build(loaded, ["SIGN"], _KINDS, {"i2": waiver})


def test_an_emergency_needs_an_issuer_that_disables_keys() -> None:
    kinds = {"signing_key": {**_KINDS["signing_key"], "phases": ["replace"]}}
    with pytest.raises(KeyturnError, match="SIGN disables no keys") as raised:
        plan.build(_loaded(), ["SIGN"], kinds, {}, emergency=True)
    assert (raised.value.code, "run rotate" in raised.value.hint) == ("emergency-no-disable", True)
    disable = {"path": "/keys/{kid}/disable"}
    assert plan.build(_loaded({"disable": disable}), ["SIGN"], kinds, {}, emergency=True)["phases"][1] == "replace"


def test_the_state_host_asks_where_nobody_is_named_and_shows_tokens_itself() -> None:
    log = {"name": "failed", "type": "log", "hosts": "i1", "path": "/log", "pattern": "failed", "at_most": 0}
    disable = {"path": "/keys/{kid}/disable"}
    made = plan.build(_loaded({"disable": disable}, probes=[_SHOWN, log]), ["SIGN"], _KINDS, {})
    (job,) = made["hosts"]["s1"]["signing"]
    assert job["shown_to"] == [{"name": "edge", "version": "old", "url": _SHOWN["url"]}]
    assert made["hosts"]["s1"]["probes"] == []
    assert [probe["name"] for probe in made["hosts"]["i1"]["probes"]] == ["failed"]
    assert "stays_listed" not in made["secrets"][0]
    assert len(signing.planned(made["hosts"]["s1"])) == 1


_API_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"shape": "by_hand"}, "signing-api-invalid", "key_api"),
    ({"base": "id.example"}, "url-invalid", "key_api.base"),
    ({"promote": {"path": "/promote"}}, "signing-api-invalid", "key_api.promote"),
    ({"token": None, "client_secret": None}, "key-api-invalid", "key_api"),
    ({"client_secret": None}, "key-api-invalid", "key_api"),
    ({"bearer": {}}, "key-api-invalid", "key_api.bearer"),
    ({"bearer": {"env": "A", "file": "/a"}}, "key-api-invalid", "key_api.bearer"),
    ({"bearer": {"env_file": "/a"}}, "key-api-invalid", "key_api.bearer"),
    ({"bearer": {"value": "x"}}, "catalog-invalid", "key_api.bearer"),
    ({"headers": [{"name": "X-MFA"}]}, "key-api-invalid", "key_api.headers[0]"),
    ({"headers": [{"name": "X", "text": "a", "env": "B"}]}, "key-api-invalid", "key_api.headers[0]"),
    ({"headers": [{"name": "Authorization", "text": "Bearer x"}]}, "key-api-invalid", "key_api.headers[0]"),
    ({"client_cert": {"env": "PEM"}, "client_key": "/k"}, "key-api-invalid", "key_api.client_key"),
    ({"restart": "identiy"}, "key-api-invalid", "key_api.restart"),
    ({"hosts": "nowhere"}, "host-unknown", "key_api.hosts"),
]
_STORE = {"hosts": "s1", "type": "file", "path": "/k"}
_SECRET_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"key_table": {"database": "app", "shape": "flags"}}, "catalog-invalid", "key_api"),
    ({"kind": "env_secret", "stores": [_STORE]}, "catalog-invalid", "key_api"),
    ({"stores": [_STORE]}, "key-api-invalid", "stores"),
    ({"generate": {"type": "ec"}}, "key-api-invalid", "generate"),
    ({"strategy": "replace"}, "catalog-invalid", "strategy"),
    ({"probes": [{**_SHOWN, "version": "none"}]}, "key-api-invalid", "probes[0]"),
    ({"probes": [{**_SHOWN, "refused": True}]}, "key-api-invalid", "probes[0]"),
    ({"probes": [{**_SHOWN, "token": {"claims": {}}}]}, "key-api-invalid", "probes[0].token"),
    ({"probes": [{"type": "active_kid", "url": _URL}]}, "key-api-invalid", "probes[0]"),
    ({"probes": [{"type": "log", "path": "/l", "version": "new"}]}, "key-api-invalid", "probes[0]"),
]


@pytest.mark.parametrize(("api", "code", "place"), _API_REFUSED)
def test_an_api_that_could_not_be_asked_or_gone_back_from_is_refused(
    api: dict[str, Any], code: str, place: str
) -> None:
    with pytest.raises(KeyturnError) as refused:
        _loaded(api)
    assert (refused.value.code, refused.value.where) == (code, f"keyturn_secrets.SIGN.{place}")
    assert refused.value.hint


@pytest.mark.parametrize(("more", "code", "place"), _SECRET_REFUSED)
def test_a_secret_behind_an_api_has_nothing_that_the_issuer_keeps(more: dict[str, Any], code: str, place: str) -> None:
    with pytest.raises(KeyturnError) as refused:
        _loaded(**more)
    assert (refused.value.code, refused.value.where) == (code, f"keyturn_secrets.SIGN.{place}")


def test_an_issuer_is_no_consumer_besides_and_a_token_needs_its_request() -> None:
    with pytest.raises(KeyturnError, match="is a consumer too"):
        _loaded({"restart": "identity"}, consumers=["identity"])
    tells = {"current": {"member": "status", "is": ["current"]}}
    with pytest.raises(KeyturnError, match="no token can be had"):
        _loaded({"token": None, "client_secret": None, "list": tells}, probes=[_SHOWN])
    assert _loaded({"token": None, "client_secret": None, "list": tells}).secrets


# -- the tasks ---------------------------------------------------------------------------------------------------------


def _asked(job: dict[str, Any], task_vars: dict[str, Any], **args: Any) -> tuple[str, dict[str, Any]]:
    given = {"job": job, "boxes": {}, "rotation_id": "r1", "epoch": 1, **args}
    return api_call(given, Templar(DataLoader()), task_vars)


def test_values_travel_in_boxes_that_only_the_host_that_asks_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = sealed.new_keypair()
    pem = tmp_path / "admin.pem"
    pem.touch(0o600)
    pem.write_text("a certificate with its key\n")
    monkeypatch.setenv("S", "the-secret-of-a-client")
    values = {
        "bearer": {"variable": "vault_token"},
        "client_cert": {"file": str(pem)},
        "headers": [
            {"name": "X-MFA", "env_file": "/codes", "variable": "MFA"},
            {"name": "X-Id", "text": "{uuid}"},
            {"name": "X-Two", "variable": "vault_token"},
        ],
    }
    task_vars = {"vault_token": "the-admins-own-token", "__rotation_session": {"public": public}}
    module, given = _asked(_job("s1", values), task_vars, state="staged")
    assert (module, given["state"], given["defer"], given["name"]) == ("signing_key_api", "staged", False, "SIGN")
    for field, what, value in (
        (given["bearer"], "bearer", b"the-admins-own-token"),
        (given["client_secret"], "client", b"the-secret-of-a-client"),
        (given["client_pem"], "certificate", b"a certificate with its key"),
        (given["headers"][2], "header X-Two", b"the-admins-own-token"),
    ):
        assert sealed.open_box(field["sealed"], private, f"r1/SIGN/{what}") == value
        assert value.decode() not in str(given)
    assert given["headers"][:2] == [
        {"name": "X-MFA", "env_file": "/codes", "variable": "MFA"},
        {"name": "X-Id", "text": "{uuid}"},
    ]
    monkeypatch.delenv("S")
    with pytest.raises(KeyturnError) as missing:
        _asked(_job("s1", values), task_vars, state="staged")
    assert (missing.value.code, missing.value.where) == ("source-missing", "keyturn_secrets.SIGN.key_api.client_secret")


def test_what_lies_on_the_host_that_asks_is_read_there() -> None:
    here = {"bearer": {"host_file": "/etc/token"}, "client_secret": {"env_file": "/e", "variable": "S"}}
    tls = {"client_cert": {"host_file": "/etc/admin.pem"}, "client_key": "/etc/admin.key", "ca_file": "/etc/ca.pem"}
    job = _job("s1", {**here, **tls, "restart": "identity", "timeout": 3})
    _module, given = _asked(job, {}, state="promoted")
    assert (given["bearer"], given["client_secret"]) == ({"file": "/etc/token"}, {"env_file": "/e", "variable": "S"})
    assert (given["client_cert"], given["client_key"]) == ("/etc/admin.pem", "/etc/admin.key")
    assert (given["ca_file"], given["timeout"], given["defer"]) == ("/etc/ca.pem", 3, True)
    assert not _asked(job, {}, state="promoted", restarted=True)[1]["defer"]


def test_an_api_that_disables_nothing_is_only_looked_at() -> None:
    job = _job("s1", {"client_secret": {"host_file": "/s"}})
    assert _asked(job, {}, state="disabled", early=True)[0] == "signing_key_api_info"
    job["api"]["disable"] = {"path": "/keys/{kid}/disable"}
    module, given = _asked(job, {}, state="disabled", early=True)
    assert (module, given["early"], given["overlap_s"]) == ("signing_key_api", True, 7200)
    assert _asked(job, {}, expect="sound")[1]["expect"] == "sound"
    assert _asked(job, {}, state="replaced", disable="all")[1]["disable"] == "all"


# -- the evidence ------------------------------------------------------------------------------------------------------

_SAID = {
    "changed": True,
    "keys": [{"kid": "a", "state": "usable"}, {"kid": "b", "state": "current"}, {"kid": "x", "state": "disabled"}],
    "count": 2,
    "current_kid": "b",
    "issued_kid": "b",
    "new_kid": "b",
    "former_kid": "a",
    "before_kids": ["a"],
    "seen": True,
}


@pytest.mark.parametrize(
    ("args", "more", "says"),
    [
        ({"expect": "new"}, {}, "a -> b; listed before: a; now: a, b (2); a token issued now has b"),
        ({"expect": "old"}, {"issued_kid": ""}, "a signs again, b stays listed; listed before: a; now: a, b (2)"),
        ({"state": "replaced"}, {}, "a -> b at once, without an overlap; a is disabled"),
        ({"state": "disabled"}, {}, "a stays listed and accepted: this API disables no keys"),
        ({"expect": "sound"}, {"new_kid": ""}, ""),
        ({"state": "staged"}, {}, ""),
    ],
)
def test_the_evidence_names_kids_before_and_after(args: dict[str, Any], more: dict[str, Any], says: str) -> None:
    job = _job("s1")
    told = api_told({**_SAID, **more}, {**args, "job": job})
    assert told["signing"] == {"secret": "SIGN"}
    notes = signing.notes([("s1", "verify", told)])
    assert notes == ([f"signing keys of SIGN at {_URL}: {says}"] if says else [])
    job["api"]["disable"] = {}
    told = api_told({**_SAID, "keys": _SAID["keys"][1:], "count": 1}, {"state": "disabled", "job": job})
    assert signing.notes([("s1", "retire", told)]) == [
        f"signing keys of SIGN at {_URL}: a is disabled; listed now: b (1)"
    ]


def test_kids_read_as_those_of_a_table_and_a_step_that_is_not_seen_names_the_service() -> None:
    job = _job("s1", {"restart": "identity"})
    told = api_told({**_SAID, "seen": False}, {"state": "staged", "job": job})
    assert told["keys"] == told["turns"] == [{"tenant": "", "new_kid": "b", "old_kid": "a", "stage": "staged"}]
    assert told["stages"] == {"staged": 1}
    assert (told["issuer"]["restart"], told["issuer"]["listed"]) == ("identity", ["a", "b"])
    assert api_told({**_SAID, "new_kid": ""}, {"expect": "sound", "job": job})["turns"] == []
    assert api_told(_SAID, {"state": "staged", "job": job})["issuer"]["restart"] == ""
