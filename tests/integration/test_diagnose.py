# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle of a real stack, with a host that is gone and a service that is down: it helps, and holds no secret."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import yaml
from demo.stack import SECRET, Stack

from tests.support.canaries import Canaries, Search
from tests.support.catalog_file import edit, load
from tests.support.watched import Watched


def known(stack: Stack) -> Canaries:
    """Every secret of the stack, and one that somebody has put into the catalog."""
    canaries = Canaries()
    for host in ("api1", "api2"):
        key = stack.key(host)
        assert key is not None
        canaries.add(f"key of {host}", key)
        canaries.add(f"key of {host}, text", base64.urlsafe_b64encode(key).decode().rstrip("="))
    for role, dsn in (("owner", stack.database.owner_dsn), ("application", stack.database.app_dsn)):
        canaries.add(f"password of the {role}", dsn.split(":")[2].split("@")[0])
    canaries.add("fingerprint key", (stack.state_dir("db") / "fingerprint.key").read_bytes())
    return canaries


def test_a_bundle_helps_and_holds_no_secret(stack: Stack, tmp_path: Path) -> None:
    watched = Watched(tmp_path / "c")
    before = known_keys(stack)
    assert watched.run(stack.inventory, "rotate", only=SECRET).code == 0
    canaries = known(stack)
    for number, key in enumerate(before):
        canaries.add(f"old key {number}", key)
    word = "mistake-" + base64.urlsafe_b64encode(b"0123456789abcdefghij").decode()
    canaries.add("word in the catalog", word)
    variables = load(stack)
    variables["keyturn_secrets"][SECRET]["probes"].append({"type": "command", "command": ["true", word]})
    edit(stack, variables)
    stack.stop_services("api2")
    inventory = yaml.safe_load(stack.inventory.read_text())
    inventory["all"]["hosts"]["gone"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    stack.inventory.write_text(yaml.safe_dump(inventory))

    to = tmp_path / "bundle"
    checked = watched.run(stack.inventory, "diagnose", "--check", diagnose_to=str(to))
    assert (checked.code, to.exists()) == (0, False), checked.output
    ended = watched.run(stack.inventory, "diagnose", diagnose_to=str(to))
    assert ended.code == 0, ended.output
    assert f"  bundle      {to}" in ended.output
    assert "  missing     gone" in ended.output

    hosts = json.loads((to / "hosts.json").read_text())
    assert hosts["gone"] == {"failed": "cannot be reached"}
    assert hosts["api1"]["health"]["api1"]["status"] == "healthy"
    assert hosts["api2"]["health"]["api2"]["status"] == "unhealthy"
    assert any(entry["path"] == "registry.json" for entry in hosts["db"]["state"])
    assert SECRET in (to / "status.txt").read_text()
    (journal,) = (to / "journals").iterdir()
    assert '"phase": "verify"' in journal.read_text()
    (evidence,) = (to / "evidence").iterdir()
    assert json.loads(evidence.read_text())["event"] == "rotated"
    assert json.loads((to / "versions.json").read_text())["hosts"]["db"]["libraries"]["psycopg"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in to.rglob("*") if path.is_file()} == {0o600}

    found = Search()
    canaries.search_files(found, [to])
    assert found.found == {}
    assert found.files > 6


def known_keys(stack: Stack) -> list[bytes]:
    return [key for key in (stack.key(host) for host in ("api1", "api2")) if key is not None]


def test_a_catalog_that_is_broken_is_in_the_bundle(stack: Stack, tmp_path: Path) -> None:
    watched = Watched(tmp_path / "c")
    variables = load(stack)
    variables["keyturn_secrets"][SECRET]["kindd"] = "x"
    edit(stack, variables)
    to = tmp_path / "bundle.tar.gz"
    ended = watched.run(stack.inventory, "diagnose", diagnose_to=str(to))
    assert ended.code == 0, ended.output
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert watched.run(stack.inventory, "diagnose", diagnose_to=str(to)).code == 2, "it replaces nothing"
