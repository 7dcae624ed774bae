# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module says, at its loudest: to Ansible, and to the journal of its host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.release import __version__
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import refusal_of

from tests.support.canaries import Canaries
from tests.support.modules import ROOT

#: Runs a module whose call to the host's journal goes to standard error; the others are the module's own.
_LOUD = """
import runpy, sys, syslog
syslog.syslog = lambda *words: print(words, file=sys.stderr)
{more}
runpy.run_module("ansible_collections.keyturn.rotation.plugins.modules.{module}", run_name="__main__")
"""
_PEM = "-----BEGIN PRIVATE KEY-----\n{0}\n'quoted' \\ {0}\n-----END PRIVATE KEY-----\n"


def loud(module: str, arguments: dict[str, Any], more: str = "") -> tuple[dict[str, Any], str]:
    """The answer of a module with everything on that makes it say more, and all it printed."""
    settings = {"_ansible_verbosity": 4, "_ansible_diff": True, "_ansible_tracebacks_for": ["error", "warning"]}
    if not __version__.startswith("2.19."):  # which always puts the arguments into the answer
        settings["_ansible_inject_invocation"] = True
    done = subprocess.run(
        [sys.executable, "-c", _LOUD.format(module=module, more=more)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **settings}}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".build")},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout), done.stdout + done.stderr


@pytest.fixture
def value() -> str:
    return os.urandom(24).hex()


@pytest.fixture
def canaries(value: str) -> Canaries:
    made = Canaries()
    made.add("the value", value)
    return made


def reencrypt(value: str) -> dict[str, Any]:
    columns = [{"table": "t", "column": "c", "envelope": "aes256gcm-b64"}]
    return {
        "name": "A",
        "database": "app",
        "dsn": {"value": value},
        "columns": columns,
        "keys": {"new": {"value": value}},
    }


@pytest.mark.parametrize("form", ["{0}", _PEM], ids=["text", "pem"])
def test_trap_25_no_answer_and_no_journal_repeats_a_value(
    tmp_path: Path, value: str, canaries: Canaries, form: str
) -> None:
    text = form.format(value)
    state = {"state_dir": str(tmp_path / "state"), "rotation_id": "r1"}
    both = {"name": "A", "new": {"value": text, "file": "/nowhere"}, "old": {"value": text}}
    for module, arguments, code in (
        ("secret", {**state, "state": "staged", "secrets": [both]}, "reference-invalid"),
        ("reencrypt_info", {**state, **reencrypt(text)}, "dsn-failed"),
        ("reencrypt", {**state, **reencrypt(text), "state": "prepared"}, "dsn-failed"),
        (
            "generate_secret",
            {**state, "type": "jwt", "payload": {}, "lifetime": "1d", "key": {"value": text, "file": "/nowhere"},
             "dest": str(tmp_path / "token")},
            "reference-invalid",
        ),
        (
            "secret_probe",
            {**state, "values": {"A": {"new": {"value": text}, "old": text}},
             "probes": [{"type": "command", "command": ["true"], "version": "new"}]},
            "reference-invalid",
        ),
    ):  # fmt: skip
        answer, printed = loud(module, arguments)
        assert answer["code"] == code
        assert "invocation" in answer
        assert canaries.find(printed.encode()) == set(), module


def test_trap_28_no_exception_text_leaves_the_host(tmp_path: Path, value: str, canaries: Canaries) -> None:
    """With tracebacks on, ansible-core adds the text of an exception that is being handled."""
    crash = f"""
def crash(*_):
    raise ValueError("cannot use {value}")
from ansible_collections.keyturn.rotation.plugins.module_utils.secret import staging
staging.resolve = crash
"""
    secrets = [{"name": "A", "new": {"value": value}}]
    state = {"state_dir": str(tmp_path / "state"), "rotation_id": "r1", "state": "staged"}
    answer, printed = loud("secret", {**state, "secrets": secrets}, crash)
    assert answer["msg"].startswith("internal error ValueError at ")
    assert "Traceback" in answer["exception"]
    assert canaries.find(printed.encode()) == set()


@pytest.mark.parametrize(
    ("module", "arguments", "file"),
    [
        ("rotation_state", {"action": "acquire", "mode": "rotate", "secrets": ["A"]}, "registry.mutex"),
        ("rotation_host", {"state": "closed"}, "host/mutex"),
        ("rotation_host", {"state": "closed"}, "host/session-r1.key"),
    ],
)
def test_a_file_that_the_system_refuses_is_named_with_the_reason(
    tmp_path: Path, module: str, arguments: dict[str, Any], file: str
) -> None:
    """As on a state folder that is read-only; a folder in the file's place is refused to root too."""
    refused = tmp_path / file
    refused.mkdir(parents=True)
    answer, _printed = loud(module, {**arguments, "state_dir": str(tmp_path), "rotation_id": "r1", "epoch": 1})
    assert answer["msg"] == (
        f"{refused}: cannot be used (Is a directory). "
        "Check space, permissions and the file system, then run the same command again."
    )
    assert (answer["code"], answer["where"]) == ("file-failed", str(refused))


def test_only_what_the_system_refused_is_told(value: str) -> None:
    assert refusal_of(ValueError(value)) is None
    assert refusal_of(OSError(value)) is None
    assert refusal_of(ConnectionRefusedError(111, value)) is None
    assert refusal_of(FileNotFoundError(2, "gone", "a relative name")) is None
    refused = refusal_of(PermissionError(13, value, "/etc/app.env"))
    assert refused is not None
    assert "/etc/app.env: cannot be used (Permission denied)" in str(refused)
    assert value not in str(refused)
