# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a production keyset must be: each check of the policy, and the role that fails with all of them at once."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets import call
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Keyset
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.policy import (
    Policy,
    Sources,
    judge_keys,
    judge_sources,
    strength,
)

from tests.support.play import run_tasks

VECTORS = Path(__file__).parents[2] / "vectors"
GOOD = "q7Zr2Nf9XbK4mT8vWc1LpY6hSd3GjE5u"
ALSO = "M9cV3xQ7rD1kZ5tB8nW2yH6fJ4gP0sLa"


def _codes(found: list[dict[str, str]]) -> list[str]:
    return [finding["code"] for finding in found]


@pytest.mark.parametrize(
    ("keys", "codes"),
    [
        ({"a": GOOD, "b": ALSO}, []),
        ({"a": GOOD[:31]}, ["key-short"]),
        ({"a": "a" * 64}, ["key-weak"]),
        ({"a": "abcabcabcabcabcabcabcabcabcabcabcabc"}, ["key-weak"]),
        ({"a": "dev-insecure-change-me"}, ["key-default"]),
        ({"a": "Please-Change-Me-before-production-0123456789"}, ["key-default"]),
        ({"a": GOOD, "b": GOOD}, ["key-twice"]),
        ({"a": GOOD, "b": ALSO, "c": GOOD[::-1]}, ["keys-many"]),
        ({"a": "short", "b": "a" * 40}, ["key-short", "key-weak"]),
    ],
)
def test_keys(keys: dict[str, str], codes: list[str]) -> None:
    found = judge_keys(Keyset("a", keys), Policy(max_keys=2), "/srv/keyset.json")
    assert _codes(found) == codes
    assert all(finding["msg"].startswith("/srv/keyset.json: ") for finding in found)
    assert not [key for key in keys.values() for finding in found if key in finding["msg"]]


def test_random_keys_of_the_usual_forms_are_strong_enough() -> None:
    for _number in range(300):
        raw = os.urandom(32)
        for key in (raw.hex(), base64.b64encode(raw).decode(), raw[:16].hex(), base64.urlsafe_b64encode(raw).decode()):
            assert judge_keys(Keyset("a", {"a": key}), Policy(min_bits=80), "f") == []
    assert strength("a" * 100) == 0
    assert strength("ab" * 16) == 32


_STRICT = json.loads((VECTORS / "003_evidence.json").read_text())["strict_checks"]
#: About keys; the others are about a database and TLS.
_ABOUT_KEYS = [case for case in _STRICT if case["strict"] and case["name"] not in ("no_database", "no_tls")]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in _ABOUT_KEYS])
def test_what_the_service_refuses_is_refused_here_and_weak_keys_too(case: dict[str, Any]) -> None:
    sources = Sources(
        file=case["RGS_JWT_KEYSET_FILE"],
        command=case["RGS_JWT_KEYSET_COMMAND"],
        inline=case["RGS_JWT_KEYSET"],
        secret=case["RGS_JWT_SIGNING_SECRET"],
    )
    found = judge_sources(sources, Policy(external=case["strict_external_keyset"]), "/srv/.env")
    stricter = case["name"] == "weak_secret_accepted"
    assert bool(found) == ("error" in case["result"] or stricter)
    assert not found or not [text for text in (sources.inline,) if text and text in str(found)]


@pytest.mark.parametrize(
    ("sources", "used", "codes"),
    [
        (Sources(file="/f", command="c", inline="a:b", secret="s"), "file", ["inline-material"]),
        (Sources(command="c"), "command", []),
        (Sources(inline="a:b"), "inline", ["external-missing", "inline-material"]),
        (Sources(file=" ", secret=GOOD), "secret", ["external-missing"]),
        (Sources(secret="dev-insecure-change-me"), "secret", ["external-missing", "key-default"]),
        (Sources(), "", ["external-missing", "keys-missing"]),
    ],
)
def test_sources_in_the_order_in_which_readers_look(sources: Sources, used: str, codes: list[str]) -> None:
    assert sources.in_use() == used
    assert _codes(judge_sources(sources, Policy(), "/srv/.env")) == codes


def _look(tmp_path: Path, **params: Any) -> list[str]:
    common = {"state_dir": str(tmp_path / "state"), "policy": {"owner": "root"}, "environments": []}
    return _codes(call.run_info({**common, **params}, False)["findings"])


def test_files_and_environments_of_a_host(tmp_path: Path) -> None:
    path = tmp_path / "keyset.json"
    path.write_text(json.dumps({"active_kid": "a", "keys": {"a": GOOD}}))
    path.chmod(0o600)
    keysets = [{"name": "K", "stores": [{"type": "file", "path": str(path)}]}]
    assert _look(tmp_path, keysets=keysets) == []
    os.chown(path, 1234, 1234)
    assert _look(tmp_path, keysets=keysets) == ["file-owner"]
    assert _look(tmp_path, keysets=keysets, policy=None) == []
    path.chmod(0o644)
    assert _look(tmp_path, keysets=keysets) == ["file-loose"]
    env = tmp_path / ".env"
    env.write_text(f"KEYS=a:{GOOD}\nACTIVE=a\nSECRET=dev-insecure-change-me\nFILE={path}\n")
    shape = {"type": "env_file", "path": str(env), "variable": "KEYS", "active_variable": "ACTIVE"}
    inline = [{"name": "K", "stores": [shape]}]
    assert _look(tmp_path, keysets=inline) == ["external-missing", "inline-material"]
    assert _look(tmp_path, keysets=inline, policy={"external": False}) == []
    environment = {"env_file": str(env), "file": "FILE", "inline": "KEYS", "secret": "SECRET", "command": None}
    assert _look(tmp_path, keysets=[], environments=[environment]) == ["inline-material"]
    assert _look(tmp_path, keysets=[], environments=[{"env_file": str(env), "secret": "SECRET"}]) == [
        "external-missing",
        "key-default",
    ]
    assert _look(tmp_path, keysets=[], environments=[{"env_file": "/nowhere/.env"}]) == ["file-missing"]


def test_the_role_fails_with_all_reasons_and_passes_without_any(tmp_path: Path) -> None:
    path = tmp_path / "keyset.json"
    path.touch(0o600)
    variables = {
        "keyset_policy_keysets": [{"name": "K", "stores": [{"type": "file", "path": str(path)}]}],
        "keyset_policy_state_dir": str(tmp_path / "state"),
    }
    task = {"ansible.builtin.include_role": {"name": "keyturn.rotation.keyset_policy"}, "vars": variables}
    weak = "aaaabbbb" * 6
    path.write_text(json.dumps({"active_kid": "a", "keys": {"a": weak, "b": GOOD[:20]}}))
    failed = run_tasks(tmp_path, {"one": {}}, [task])
    assert failed.code == 2
    assert "the key of kid a looks like" in failed.output
    assert "the key of kid b has 20 bytes" in failed.output
    assert weak not in failed.output
    assert GOOD[:20] not in failed.output
    path.write_text(json.dumps({"active_kid": "b", "keys": {"b": ALSO}}))
    passed = run_tasks(tmp_path, {"one": {}}, [task])
    assert passed.code == 0, passed.output
