# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``generate_secret``, run by Ansible for real and as its own process."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[3]
_BYTES = {"type": "bytes", "length": 32}


def _run(check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module in a process of its own, as Ansible does on a host."""
    marks = {"_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.keyturn.rotation.plugins.modules.generate_secret"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **marks}}),
        env={**os.environ, "PYTHONPATH": str(_ROOT / ".build")},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["printed"] = done.stdout + done.stderr
    return answer


def test_check_real_check_again_real_again(tmp_path: Path) -> None:
    dest = tmp_path / "key"
    told = _run(check=True, **_BYTES, dest=str(dest))
    assert (told["changed"], dest.exists(), told["diff"]["before"]) == (True, False, {"exists": False})
    made = _run(**_BYTES, dest=str(dest))
    value = dest.read_bytes()
    assert (made["changed"], made["length"], made["type"], made["dest"]) == (True, 43, "bytes", str(dest))
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    assert made["diff"]["after"] == {"exists": True, "type": "bytes", "length": 43}
    for check in (True, False):
        again = _run(check=check, **_BYTES, dest=str(dest))
        assert (again["changed"], again["length"]) == (False, 43)
        assert again["diff"]["before"] == again["diff"]["after"]
    assert dest.read_bytes() == value
    assert sorted(tmp_path.iterdir()) == [dest], "nothing is left beside it"


def test_force_replaces_and_keeps_the_mode_private(tmp_path: Path) -> None:
    dest = tmp_path / "key"
    dest.write_bytes(b"old")
    dest.chmod(0o644)
    assert _run(check=True, **_BYTES, dest=str(dest), force=True)["changed"]
    assert dest.read_bytes() == b"old"
    assert _run(**_BYTES, dest=str(dest), force=True)["changed"]
    assert len(dest.read_bytes()) == 43
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600


def test_trap_25_value_is_printed_only_when_asked_for(tmp_path: Path) -> None:
    for spec in (_BYTES, {"type": "string", "length": 40}, {"type": "ec"}, {"type": "ed25519", "format": "pem"}):
        dest = tmp_path / json.dumps(spec)
        answer = _run(**spec, dest=str(dest))
        value = dest.read_text()
        private = json.loads(value)["d"] if spec["type"] == "ec" else value.split("\n")[value.count("\n") and 1]
        assert len(private) > 20
        assert private not in answer["printed"]
        assert "content" not in answer
        asked = _run(**spec, dest=str(dest), return_content=True)
        assert (asked["content"], asked["content_encoding"]) == (value, "utf-8")


def test_raw_bytes_come_back_as_base64(tmp_path: Path) -> None:
    dest = tmp_path / "key"
    dest.write_bytes(b"\xff\xfe")
    answer = _run(**_BYTES, encoding="raw", dest=str(dest), return_content=True)
    assert (answer["changed"], answer["content"], answer["content_encoding"]) == (False, "//4=", "base64")


def test_without_a_file_the_value_must_be_returned() -> None:
    answer = _run(**_BYTES, return_content=True)
    assert (answer["changed"], len(answer["content"])) == (False, 43)
    refused = _run(**_BYTES)
    assert (refused["failed"], refused["code"]) == (True, "dest-missing")


def test_signing_key_is_described_when_made_and_when_found(tmp_path: Path) -> None:
    spec = {"type": "ec", "curve": "P-384", "format": "pem", "dest": str(tmp_path / "key.pem")}
    made, found = _run(**spec), _run(**spec)
    assert made["kid"] == found["kid"] == found["public"]["kid"]
    assert (found["public"]["crv"], "d" in found["public"]) == ("P-384", False)
    other = _run(type="rsa", format="pem", dest=spec["dest"])
    assert (other["failed"], other["code"]) == (True, "value-other")


def test_token_is_signed_with_a_value_from_a_dotenv_file(tmp_path: Path) -> None:
    parent = "P" * 40
    (tmp_path / ".env").write_text(f"A=1\nJWT_SECRET={parent}\n")
    spec = {"type": "jwt", "payload": {"role": "anon"}, "lifetime": "10d", "dest": str(tmp_path / "jwt")}
    made = _run(**spec, key={"env_file": str(tmp_path / ".env"), "variable": "JWT_SECRET"})
    assert made["public"]["exp"] - made["public"]["iat"] == 864_000
    assert (tmp_path / "jwt").read_text() not in made["printed"]
    assert parent not in made["printed"]
    missing = _run(**{**spec, "dest": str(tmp_path / "other")})
    assert (missing["failed"], missing["code"]) == (True, "generate-invalid")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"length": 4}, "generate-invalid"),
        ({"curve": "P-256"}, "generate-invalid"),
        ({"dest": "/nowhere/at/all"}, "file-failed"),
    ],
)
def test_refusals_have_a_code_and_say_what_to_do(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    answer = _run(**{**_BYTES, "dest": str(tmp_path / "key"), **change})
    assert (answer["failed"], answer["code"]) == (True, code)
    assert answer["hint"]
    assert list(tmp_path.iterdir()) == []


def test_symbolic_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    for force in (False, True):
        answer = _run(**_BYTES, dest=str(tmp_path / "key"), force=force)
        assert (answer["failed"], answer["code"]) == (True, "file-unsafe")
    assert not (tmp_path / "elsewhere").exists()


def test_trap_23_two_runs_at_once_make_one_value(tmp_path: Path) -> None:
    dest = tmp_path / "key"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _number: _run(**_BYTES, dest=str(dest), return_content=True), range(4)))
    assert [answer["changed"] for answer in answers].count(True) == 1
    assert {answer["content"] for answer in answers} == {dest.read_text()}


def test_trap_57_a_run_that_was_taken_over_makes_nothing(tmp_path: Path) -> None:
    session = {"state_dir": str(tmp_path / "state"), "rotation_id": "r1"}
    assert _run(**_BYTES, **session, epoch=2, dest=str(tmp_path / "a"))["changed"]
    late = _run(**_BYTES, **session, epoch=1, dest=str(tmp_path / "b"))
    assert (late["failed"], late["code"]) == (True, "fenced")
    assert not (tmp_path / "b").exists()


def test_ansible_runs_it(tmp_path: Path) -> None:
    dest = tmp_path / "key.jwk"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible"), "localhost", "-c", "local", "--diff"),
            *("-m", "keyturn.rotation.generate_secret", "-a", json.dumps({"type": "ed25519", "dest": str(dest)})),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(_ROOT / ".build"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CHANGED" in done.stdout, done.stdout + done.stderr
    jwk = json.loads(dest.read_text())
    assert jwk["kid"] in done.stdout
    assert jwk["d"] not in done.stdout + done.stderr
