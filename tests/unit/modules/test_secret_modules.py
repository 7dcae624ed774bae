# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules ``secret``, ``secret_info`` and ``secret_backup``, run by Ansible for real and as their own process."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.session import FINGERPRINT_CONTEXT

from tests.support.controller import Controller
from tests.support.hosts import GENERATE, Host
from tests.support.modules import Ran, run_module_process

_CANARIES = ("canary-Old-5rJ8", "canary-New-2kQ9", "canary-Else-7pW3")


def _arguments(host: Host, **more: Any) -> dict[str, Any]:
    return {"state_dir": str(host.state_dir), "rotation_id": "r1", "epoch": 1, **more}


def _assert_clean(printed: str) -> None:
    """No canary, in any simple disguise."""
    for canary in _CANARIES:
        raw = canary.encode()
        for form in (canary, canary[::-1], raw.hex(), base64.b64encode(raw).decode().rstrip("="), canary[:12]):
            assert form not in printed


def _setting(tmp_path: Path) -> tuple[Host, Path, list[dict[str, Any]]]:
    host = Host(tmp_path)
    env = host.write("app/.env", f"# app\nexport KEY='{_CANARIES[0]}'\nOTHER={_CANARIES[2]}\n".encode(), 0o640)
    new = host.write("new", _CANARIES[1].encode() + b"\n")
    stores = [{"type": "env_file", "path": str(env), "layout": "list"}]
    return host, env, [{"name": "KEY", "stores": stores, "new": {"file": str(new)}, "seal_to": [host.target("other")]}]


def test_trap_25_a_whole_life_through_ansible_prints_no_value(tmp_path: Path) -> None:
    host, env, secrets = _setting(tmp_path / "host")
    common = _arguments(host)
    looked = [{key: secret[key] for key in ("name", "stores", "seal_to")} for secret in secrets]
    backed_up = {"files": [str(env)], "secrets": ["KEY"], "services": ["api"]}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("secret_backup", {"state": "created", **backed_up}),
        *(("secret", {"state": state, "secrets": secrets}) for state in ("staged", "staged", "promoted", "retired")),
        ("secret_info", {"secrets": looked}),
        ("secret_backup", {"state": "verified"}),
        ("secret_backup", {"state": "listed"}),
        ("secret_backup", {"state": "restored", "name": "latest", "confirm_old": True}),
        ("secret_backup", {"state": "pruned", "retention_days": 90}),
    ]
    answers = tmp_path / "answers.json"
    tasks: list[dict[str, Any]] = [
        {f"keyturn.rotation.{module}": {**common, **arguments}, "register": f"answer_{number}"}
        for number, (module, arguments) in enumerate(calls)
    ]
    tasks += [{"ansible.builtin.debug": {"var": f"answer_{number}"}} for number in range(len(calls))]
    listed = ", ".join(f"answer_{number}" for number in range(len(calls)))
    tasks.append(
        {"ansible.builtin.copy": {"content": "{{ [" + listed + "] | to_json }}", "dest": str(answers), "mode": "0600"}}
    )
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    controller = Controller(tmp_path / "home")
    inventory = tmp_path / "inventory"
    inventory.write_text(
        "localhost ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n"
    )
    command = controller.command(inventory, "none", "--diff", "-vvvv")
    command[command.index("keyturn.rotation.none")] = str(play)
    done = subprocess.run(
        command, cwd=controller.home, env=controller.environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-3000:]
    _assert_clean(printed)
    answered = json.loads(answers.read_text())
    _assert_clean(json.dumps(answered))
    assert [answer["changed"] for answer in answered] == [
        True,
        True,
        False,
        True,
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    assert sorted(answered[1]["secrets"]["KEY"]["boxes"]["other"]) == ["new", "old"]
    assert answered[5]["secrets"]["KEY"]["stores"][0]["holds"] == "new"
    assert f"KEY=<old {host.mark('KEY', _CANARIES[0].encode())}>" in printed
    assert env.read_bytes() == f"# app\nexport KEY='{_CANARIES[0]}'\nOTHER={_CANARIES[2]}\n".encode()


def _run(module: str, check: bool = False, /, **arguments: Any) -> Ran:
    answer = run_module_process(module, {**arguments, "_ansible_verbosity": 4}, check)
    _assert_clean(answer.printed)
    return answer


def test_check_real_check_again_real_again(tmp_path: Path) -> None:
    host, env, secrets = _setting(tmp_path)
    for state in ("staged", "promoted"):
        changed = []
        for check in (True, False, True, False):
            before = env.read_bytes()
            answer = _run("secret", check, **_arguments(host, state=state, secrets=secrets))
            changed.append(answer["changed"])
            assert (env.read_bytes() == before) is (check or not answer["changed"])
        assert changed == [True, True, False, False]
    assert f"KEY='{_CANARIES[1]},{_CANARIES[0]}'".encode() in env.read_bytes()


def test_first_versions_are_made_where_there_is_no_store(tmp_path: Path) -> None:
    host = Host(tmp_path)
    secret = {"name": "KEY", "origin": True, "generate": GENERATE}
    answer = _run("secret", **_arguments(host, state="staged", secrets=[secret]))
    assert answer["secrets"]["KEY"]["had_old"] is False
    value = host.version("KEY", "new")
    assert value is not None
    assert value.decode() not in answer.printed


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (f"KEY={_CANARIES[0]}\nKEY={_CANARIES[2]}\n", "variable-duplicate"),
        (f"KEY=${{OTHER}}{_CANARIES[0]}\n", "variable-interpolated"),
        (f"KEY='{_CANARIES[0]}\n", "env-file-invalid"),
        (f"KEY={_CANARIES[1]}\n", "value-unchanged"),
    ],
)
def test_failures_print_no_value(tmp_path: Path, content: str, code: str) -> None:
    host, env, secrets = _setting(tmp_path)
    env.write_text(content)
    answer = _run("secret", **_arguments(host, state="staged", secrets=secrets))
    assert (answer["failed"], answer["code"]) == (True, code)
    found = _run("secret_info", **_arguments(host, secrets=[{"name": "KEY", "stores": secrets[0]["stores"]}]))
    assert [problem["code"] for problem in found["problems"]] == ([code] if code != "value-unchanged" else [])


def test_stores_that_disagree_print_no_value(tmp_path: Path) -> None:
    host, env, secrets = _setting(tmp_path)
    other = host.write("other.env", f"KEY={_CANARIES[2]}\n".encode())
    secrets[0]["stores"].append({"type": "env_file", "path": str(other)})
    answer = _run("secret", **_arguments(host, state="staged", secrets=secrets))
    assert answer["code"] == "stores-disagree"
    assert str(env) in answer["msg"]


def test_info_keeps_the_fingerprint_key_in_check_mode_too(tmp_path: Path) -> None:
    host = Host(tmp_path, marks=False)
    env = host.write(".env", _CANARIES[0].encode().join((b"KEY=", b"\n")))
    box = sealed.seal(b"the inventory's key", host.public, FINGERPRINT_CONTEXT)
    secrets = [{"name": "KEY", "stores": [{"type": "env_file", "path": str(env)}]}]
    before = set(host.tree())
    for given in ({"accept_fingerprint": box}, {}):
        answer = _run("secret_info", True, **_arguments(host, secrets=secrets, **given))
        assert len(answer["secrets"]["KEY"]["stores"][0]["fingerprint"]) == 16
    assert {Path(path).name for path in set(host.tree()) - before} == {"fingerprint-r1.box"}


def test_backup_in_check_mode_writes_nothing(tmp_path: Path) -> None:
    host, env, _secrets = _setting(tmp_path)
    before = host.tree()
    made = _run("secret_backup", True, **_arguments(host, state="created", files=[str(env)]))
    assert (made["changed"], host.tree()) == (True, before)
    _run("secret_backup", **_arguments(host, state="created", files=[str(env)]))
    env.write_text(f"KEY={_CANARIES[1]}\n")
    told = _run("secret_backup", True, **_arguments(host, state="restored", name="latest"))
    assert (told["restored"], env.read_text()) == ([str(env)], f"KEY={_CANARIES[1]}\n")
    assert "redacted" in told["diff"][0]["before"]
    answer = _run("secret_backup", **_arguments(host, state="restored"))
    assert "name" in answer["msg"]
