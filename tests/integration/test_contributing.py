# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the contributor's page work as they stand there."""

from __future__ import annotations

import base64
import json
import re
import runpy
from pathlib import Path

import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import open_layout

from tests.support.controller import Controller, registry
from tests.support.local import LOCAL

_ROOT = Path(__file__).resolve().parents[2]


def example(name: str) -> str:
    """The code block that begins with this file name."""
    text = (_ROOT / "docs/contributing.md").read_text()
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found.group(1)


def make_inventory(folder: Path) -> Path:
    env = folder / ".env"
    env.touch(0o600)
    env.write_text("A=1\nAPI_TOKEN=first-value-of-this-token\n")
    catalog = yaml.safe_load(example("catalog.yml"))
    catalog.update(keyturn_state_host="one", env_path=str(env), keyturn_state_dir=str(folder / "state"))
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.yml").write_text(yaml.safe_dump(catalog))
    inventory = {
        "all": {
            "vars": LOCAL,
            "children": {"api": {"hosts": {"one": {}}}},
        }
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    return folder / "inventory.yml"


def test_a_new_kind(tmp_path: Path) -> None:
    collections = tmp_path / "collections"
    tasks = collections / "ansible_collections/example/kinds/roles/marker/tasks"
    tasks.mkdir(parents=True)
    for name in ("promote", "rollback"):
        (tasks / f"{name}.yml").write_text("---\n" + example(f"roles/marker/tasks/{name}.yml"))
    inventory = make_inventory(tmp_path)
    paths = f"{collections}:{_ROOT / '.build'}"
    controller = Controller(tmp_path / "home", {"ANSIBLE_COLLECTIONS_PATH": paths})
    ended = controller.run(inventory, "rotate", only="API_TOKEN")
    assert ended.code == 0, ended.output
    (rotation_id,) = registry(tmp_path / "state")["rotations"]
    assert (tmp_path / "state/marker").read_text() == rotation_id
    assert "first-value-of-this-token" not in (tmp_path / ".env").read_text()
    back = controller.run(inventory, "rollback", only="API_TOKEN")
    assert back.code == 0, back.output
    assert not (tmp_path / "state/marker").exists()
    assert (tmp_path / ".env").read_text() == "A=1\nAPI_TOKEN=first-value-of-this-token\n"


def test_a_new_store(tmp_path: Path) -> None:
    module = tmp_path / "json_file.py"
    module.write_text(example("json_file.py"))
    names = runpy.run_path(str(module))
    path = tmp_path / "settings.json"
    path.write_text('{"other": 1, "KEY": "old"}')
    store = names["JsonFileStore"](str(path), open_layout("single", "KEY", ",", ""))
    workspace = Workspace()
    assert store.read(workspace) == {"KEY": b"old"}
    record = store.record(workspace)
    store.plan(workspace, {"KEY": b"new"}, record)
    assert workspace.commit() == [str(path)]
    assert json.loads(path.read_text()) == {"other": 1, "KEY": "new"}
    workspace = Workspace()
    store.plan(workspace, {"KEY": b"old"}, record)
    workspace.commit()
    assert path.read_text() == '{"other": 1, "KEY": "old"}'


def test_a_new_envelope() -> None:
    envelope = Envelope(load_spec(yaml.safe_load(example("envelope.yml"))), base64.b64encode(bytes(range(32))))
    cell = envelope.seal(b"a value")
    assert len(base64.urlsafe_b64decode(cell)) == 12 + 16 + 7
    assert envelope.open(cell) == b"a value"
    assert Envelope(load_spec("aes256gcm-b64"), base64.urlsafe_b64encode(bytes(range(32)))).open(cell) is None
