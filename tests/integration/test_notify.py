# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""People are told of whole rotations: one message for each event, and nothing that goes wrong with it does any harm."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.stack import SECRET, Stack

from tests.integration.test_going_back import verify_impossible
from tests.integration.test_rotation import assert_turned, evidence, status_of
from tests.support.canaries import Canaries, Search
from tests.support.catalog_file import edit, load
from tests.support.controller import Controller
from tests.support.endpoint import Asked, Endpoint, closed_port, endpoint
from tests.support.watched import Watched

pytestmark = pytest.mark.one_instance


def taken(_asked: Asked) -> tuple[int, dict[str, str], str]:
    return 202, {}, ""


def tell(stack: Stack, *recipients: dict[str, Any], **variables: Any) -> None:
    """Say in the inventory who is to be told."""
    edit(stack, {**load(stack), "keyturn_notify": list(recipients), **variables})


def events(hook: Endpoint) -> list[tuple[str, str]]:
    return [(told["event"], told["mode"]) for told in (json.loads(asked.body) for asked in hook.asked)]


def test_a_rotation_and_its_end_are_told_once_each(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url}, {"type": "slack", "url": hook.url, "on": ["overdue"]})
        checked = controller.run(stack.inventory, "rotate", "--check", only=SECRET)
        assert (checked.code, hook.asked) == (0, []), checked.output
        assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)
        assert events(hook) == [("started", "rotate"), ("succeeded", "rotate")]
        told = json.loads(hook.asked[1].body)
        assert told["secrets"] == [SECRET]
        assert told["hosts"] == list(stack.hosts)
        assert told["rotation_id"] in told["evidence"]
        assert told["retire_after"] > told["started_at"]
        assert f"keyturn_only={SECRET}" in told["do"]
        ended = controller.run(stack.inventory, "retire", only=SECRET, confirm=SECRET)
        assert ended.code == 0, ended.output
        assert events(hook)[2:] == [("succeeded", "retire")]


def test_a_failure_is_told_and_still_fails(stack: Stack, controller: Controller) -> None:
    verify_impossible(stack)
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url})
        ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code == 2, ended.output
    assert "The rotation failed and everything was brought back." in ended.output
    assert events(hook) == [("started", "rotate"), ("rolled_back", "rotate")]
    told = json.loads(hook.asked[1].body)
    assert told["stopped_at"]
    assert all("Ask every probe" in place for place in told["stopped_at"])
    assert "refused" not in hook.asked[1].body.decode(), "the text of an error stays at home"


def test_a_way_back_that_was_asked_for_is_told(stack: Stack, controller: Controller) -> None:
    controller.run(stack.inventory, "rotate", only=SECRET)
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url})
        ended = controller.run(stack.inventory, "rollback", only=SECRET)
    assert ended.code == 0, ended.output
    assert events(hook) == [("rolled_back", "rollback")]
    assert json.loads(hook.asked[0].body)["title"].endswith("as asked")


def test_nobody_who_cannot_be_told_harms_a_rotation(stack: Stack, controller: Controller, tmp_path: Path) -> None:
    """An address that is dead, a server that says no, a mistake, a missing value, a loose file: all are named."""
    loose = tmp_path / "loose"
    loose.write_text("https://hooks.invalid/x")
    loose.chmod(0o644)
    before = stack.key()
    with endpoint(lambda _asked: (500, {}, "")) as hook:
        tell(
            stack,
            {"type": "webhook", "name": "dead", "url": f"http://127.0.0.1:{closed_port()}/"},
            {"type": "teams", "url": hook.url},
            {"type": "slack"},
            {"type": "slack", "url_from": {"env": "NO_SUCH_VARIABLE"}},
            {"type": "slack", "url_from": {"file": str(loose)}},
            {"type": "slack", "url": "{{ nobody_set_this }}"},
            {"type": "command", "command": ["false"], "on": ["succeeded"]},
        )
        assert controller.run(stack.inventory, "validate").code == 2
        ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert_turned(stack, ended, before)
    for line in (
        "keyturn_notify[0] (dead): no connection",
        "keyturn_notify[1] (teams): HTTP 500",
        "keyturn_notify[2]: field 'url' is missing",
        "keyturn_notify[3].url_from: NO_SUCH_VARIABLE is not set",
        f"{loose}: others can read it",
        "keyturn_notify[5]: cannot be templated",
        "keyturn_notify[6] (command): exit code 1",
    ):
        assert line in ended.output
    assert status_of(stack) == ["overlap"]
    messages = "\n".join(evidence(stack, "rotated")["messages"])
    assert "not told of started: keyturn_notify[1] (teams): HTTP 500" in messages
    (journal,) = (stack.state_dir("db") / "rotations").glob("*/journal.jsonl")
    assert "not told of succeeded: keyturn_notify[6] (command): exit code 1" in journal.read_text()


def test_a_list_that_is_none_harms_no_rotation(stack: Stack, controller: Controller) -> None:
    before = stack.key()
    edit(stack, {**load(stack), "keyturn_notify": "{{ nobody_set_this }}"})
    assert_turned(stack, controller.run(stack.inventory, "rotate", only=SECRET), before)


def test_addresses_and_values_are_nowhere_in_what_a_run_leaves(stack: Stack, tmp_path: Path) -> None:
    words = {name: secrets.token_urlsafe(24) for name in ("file", "environment", "vault", "token")}
    own = tmp_path / "given"
    own.mkdir(mode=0o700)
    key = stack.env_file("api1").read_text().split()[-1].partition("=")[2]
    canaries = Canaries()
    canaries.add("old key", key)
    for name, word in words.items():
        canaries.add(f"address from {name}", word)
    with endpoint(taken) as hook:
        for name in ("file", "token"):
            (own / name).touch(0o600)
        (own / "file").write_text(f"{hook.url}/{words['file']}\n")
        (own / "token").write_text(words["token"])
        vault = stack.folder / "group_vars/all/secrets.yml"
        known = yaml.safe_load(vault.read_text())
        vault.write_text(yaml.safe_dump({**known, "vault_hook": f"{hook.url}/{words['vault']}"}))
        tell(
            stack,
            {"type": "slack", "url_from": {"file": str(own / "file")}},
            {"type": "teams", "url_from": {"env": "HOOK"}},
            {"type": "webhook", "url": "{{ vault_hook }}", "token_from": {"file": str(own / "token")}},
            {"type": "webhook", "url": "http://127.0.0.1:1/{{ vault_hook | basename }}"},
        )
        controller = Watched(tmp_path / "c", {"HOOK": f"{hook.url}/{words['environment']}"})
        ended = controller.rotation("rotate", stack.inventory, "rotate", only=SECRET)
        assert ended.code == 0, ended.output[-3000:]
    assert {asked.path.lstrip("/") for asked in hook.asked} == {words[n] for n in ("file", "environment", "vault")}
    for asked in hook.asked:
        assert canaries.find(asked.body) == set()
    found = Search()
    canaries.search_files(found, [controller.left, *(stack.state_dir(host) / "evidence" for host in ("db",))])
    places = {place: names for place, names in found.found.items() if "/trace/" not in place}
    assert places == {}


_ALONE = """
- hosts: db
  gather_facts: false
  tasks:
    - keyturn.rotation.notify: {event: overdue, about: {secrets: [KEY]}}
      register: told
    - ansible.builtin.assert:
        that: told.message.event == 'overdue' and told.told | length == 1 and told.not_told == []
"""


def test_the_module_by_itself_and_the_playbook_tell(stack: Stack, controller: Controller, tmp_path: Path) -> None:
    (tmp_path / "alone.yml").write_text(_ALONE)
    with endpoint(taken) as hook:
        tell(stack, {"type": "webhook", "url": hook.url})
        command = controller.command(stack.inventory, "tell")
        command[command.index("keyturn.rotation.tell")] = str(tmp_path / "alone.yml")
        for check in (["--check"], []):
            done = subprocess.run(
                [*command, *check],
                env=controller.environment,
                cwd=tmp_path,
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout
            assert len(hook.asked) == (0 if check else 1)
        ended = controller.run(
            stack.inventory, "tell", event="failed", only="A,B", commands=["rotate A,B (exit code 2)"]
        )
        assert ended.code == 0, ended.output
    told = json.loads(hook.asked[1].body)
    assert (told["event"], told["secrets"], told["commands"]) == ("failed", ["A", "B"], ["rotate A,B (exit code 2)"])


@pytest.mark.parametrize("kind", ["slack", "teams"])
def test_shapes_of_others_are_sent_as_they_need_them(stack: Stack, controller: Controller, kind: str) -> None:
    with endpoint(taken) as hook:
        tell(stack, {"type": kind, "url": hook.url, "on": ["rolled_back"]})
        verify_impossible(stack)
        controller.run(stack.inventory, "rotate", only=SECRET)
    (asked,) = hook.asked
    assert ("blocks" if kind == "slack" else "attachments") in json.loads(asked.body)
