# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment secrets with the catalog that their owner has: a secrets-config.yaml, as it is, and an overlay.

The first half of the tests looks at one series of runs, since each run takes its time.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt
import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.support.canaries import Canaries, Search
from tests.support.controller import Controller, Ended, registry
from tests.support.env_project import AUTO, CASE, HELD, OWNER, PASSWORD, VECTORS, EnvProject, read_env

_TURNED = sorted(set(AUTO) - set(HELD))
#: The lines that release what is held back.
_RELEASED = {name: {"held": False} for name in HELD}


@dataclass
class _Series:
    """Runs in a row, and the files as each left them."""

    project: EnvProject
    controller: Controller
    ended: dict[str, Ended] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    canaries: Canaries = field(default_factory=Canaries)

    def keep(self, name: str) -> None:
        """Remember the files as they are."""
        self.files[name] = self.project.bytes()
        self.values[name] = self.project.values()
        self.project.add_values(self.canaries)

    def run(self, name: str, playbook: str, *arguments: str, **variables: Any) -> None:
        """Run a playbook and keep what it leaves."""
        self.ended[name] = self.controller.run(self.project.inventory, playbook, *arguments, **variables)
        self.keep(name)

    def changed(self, name: str, before: str) -> list[str]:
        """Variables of the main file that a run has changed."""
        old, new = self.values[before], self.values[name]
        return sorted(variable for variable in old if old[variable] != new[variable])


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> _Series:
    """Look, turn all, turn what is due, turn what was held back, and bring everything back."""
    folder = tmp_path_factory.mktemp("series")
    made = _Series(EnvProject(folder), Controller(folder / "controller"))
    made.keep("before")
    made.run("validate", "validate")
    made.run("plan", "plan", only="all")
    made.run("all", "rotate", "-vvv", "--diff", only="all", reason="quarter")
    made.run("due", "rotate")
    made.project.write(overlay=_RELEASED)
    made.run("held", "rotate", only=",".join(HELD))
    made.run("status", "status")
    made.run("held back", "rollback", only=HELD[0])
    made.run("all back", "rollback", only="JWT_SECRET")
    return made


def _table(output: str) -> list[list[str]]:
    """The rows of the plan's table in columns, by where the head's words begin."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith("SECRET "))
    words = ("SECRET", "KIND", "TURNED", "NEXT DUE", "HOSTS", "FILES", "SERVICES")
    edges = [lines[start].index(word) for word in words]
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("  ") or line.startswith("  host "):
            break
        rows.append([line[begin:end].strip() for begin, end in zip(edges, [*edges[1:], None])])
    return rows


def test_the_catalog_of_its_owner_is_right_as_it_is(series: _Series) -> None:
    ended = series.ended["validate"]
    assert ended.code == 0, ended.output
    assert all(name in ended.output for name in VECTORS["parsed"]["secrets"])
    assert (series.project.folder / "secrets-config.yaml").read_text() == VECTORS["yaml"]


def test_the_plan_is_a_table_and_changes_nothing(series: _Series) -> None:
    ended = series.ended["plan"]
    assert ended.code == 0, ended.output
    assert series.files["plan"] == series.files["before"]
    rows = _table(ended.output)
    first = {row[0]: row for row in rows if row[0]}
    assert sorted(first) == _TURNED
    assert {tuple(row[1:4]) for row in first.values()} == {("env_secret", "never", "now"), ("env_secret", "never", "-")}
    assert first["JWT_SECRET"][3] == "now"
    project = series.project
    at = next(number for number, row in enumerate(rows) if row[0] == "DASHBOARD_PASSWORD")
    assert [row[4:] for row in rows[at : at + 4]] == [
        ["one", str(project.files["main"]), "supabase-kong"],
        ["one", str(project.files["docker"]), ""],
        ["two", f"{project.files['other']} (AUTH_URL, inside url)", ""],
        ["two", f"{project.files['kong']} (inside a pattern)", ""],
    ]


def test_trap_09_what_others_depend_on_is_held_back_with_the_line_to_add(series: _Series) -> None:
    for run in ("plan", "all"):
        for name in HELD:
            assert f"held back   {name}: " in series.ended[run].output
            assert f"{name}: {{held: false}}  # nothing depends on it" in series.ended[run].output
    assert series.ended["all"].code == 2
    last = series.ended["all"].output[-3000:]
    assert f"held back: {', '.join(HELD)}" in last
    assert series.changed("all", "before") == _TURNED
    (record,) = _evidence(series, _TURNED)
    assert [name for name in HELD if not any(f"held back: {name}" in text for text in record["messages"])] == []


def _evidence(series: _Series, names: list[str]) -> list[dict[str, Any]]:
    folders = sorted((series.project.state("one") / "evidence").glob("*.rotated"))
    records = [json.loads((folder / "evidence.json").read_text()) for folder in folders]
    return [record for record in records if sorted(entry["name"] for entry in record["secrets"]) == names]


def test_a_literal_copy_that_the_catalog_does_not_name_is_reported(series: _Series) -> None:
    project = series.project
    line = series.files["before"]["main"].count(b"\n") + 1
    for words in (
        f"{project.files['main']} line {line} GRAFANA_TOKEN on one holds LOGFLARE_API_KEY (literal)",
        f"{project.project / 'docker-compose.yml'} line 1 on one holds CRAWL4AI_API_KEY (base64)",
    ):
        assert words in series.ended["plan"].output
        (record,) = _evidence(series, _TURNED)
        assert any(words in text for text in record["messages"])
    assert series.values["all"]["GRAFANA_TOKEN"] == series.values["before"]["LOGFLARE_API_KEY"]


def _values_in(content: bytes) -> dict[str, str]:
    found = dict(
        line.split("=", 1) for line in content.decode("utf-8-sig").splitlines() if "=" in line and line[0] != "#"
    )
    return {name.removeprefix("export ").strip(): text.strip() for name, text in found.items()}


def test_trap_31_files_stay_as_they_are_but_for_the_values(series: _Series) -> None:
    """What was written in place of each value is put back as text: the rest is the same to the byte."""
    for name in ("main", "docker", "other"):
        before, after = series.files["before"][name], series.files["all"][name]
        old, new = _values_in(before), _values_in(after)
        assert list(old) == list(new)
        text = after
        for variable in old:
            text = text.replace(new[variable].encode(), old[variable].encode())
        assert text == before
    before, after = series.files["before"]["kong"], series.files["all"]["kong"]
    new = after.split(b'"')[1]
    assert after.replace(new, PASSWORD.encode()) == before
    assert series.values["all"]["CRAWL_URL"] == "http://crawl/?key=${CRAWL4AI_API_KEY}"
    assert series.files["all"]["other"].startswith("\ufeff# of the other host\r\nexport JWT_SECRET='".encode())
    assert b'"   # for browsers\r\n' in series.files["all"]["other"]
    assert not series.files["all"]["main"].endswith(b"\n")


def test_owner_and_mode_of_the_files_stay(series: _Series) -> None:
    for name, path in series.project.files.items():
        status = path.stat()
        expected = OWNER if name in ("other", "kong") else (os.getuid(), os.getgid(), 0o600)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == expected


def _env(series: _Series, run: str, name: str) -> dict[str, str]:
    path = series.project.folder / "look.env"
    path.write_bytes(series.files[run][name])
    return read_env(path)


def assert_signed(values: dict[str, str], parent: str, *names: str) -> None:
    """Tokens as the catalog has them, by a verifier of others."""
    for name in names:
        claims = jwt.decode(values[name], parent, algorithms=["HS256"])
        assert list(claims) == ["role", "iss", "iat", "exp"]
        assert (claims["role"], claims["iss"]) == ({"ANON_KEY": "anon"}.get(name, "service_role"), "supabase")
        assert abs(claims["iat"] - time.time()) < 7200
        years = {"ANON_KEY": 1}.get(name, 5)
        assert abs(claims["exp"] - claims["iat"] - years * 365.25 * 86400) < 2 * 86400


def test_trap_30_and_32_tokens_are_signed_anew_with_their_parent_on_every_host(series: _Series) -> None:
    values, other = series.values["all"], _env(series, "all", "other")
    assert other["JWT_SECRET"] == values["JWT_SECRET"] != series.values["before"]["JWT_SECRET"]
    assert other["ANON_KEY"] == values["ANON_KEY"]
    assert_signed(values, values["JWT_SECRET"], "ANON_KEY", "SERVICE_ROLE_KEY")
    docker = _env(series, "all", "docker")
    assert {name: docker[name] for name in docker if name in _TURNED} == {
        name: values[name] for name in docker if name in _TURNED
    }


def test_a_url_and_a_yaml_file_with_the_password_follow(series: _Series) -> None:
    password = series.values["all"]["DASHBOARD_PASSWORD"]
    assert len(password) == 40
    assert password != PASSWORD
    url = _env(series, "all", "other")["AUTH_URL"]
    parts = urlsplit(url)
    assert unquote(parts.password or "") == password
    assert (parts.scheme, parts.username, parts.hostname, parts.port) == ("https", "birch", "kong", 8443)
    assert url.endswith("@kong:8443/auth?x=1")
    assert b"\r\nAUTH_URL=https://birch:" in series.files["all"]["other"], "no quotes where there were none"
    assert yaml.safe_load(series.files["all"]["kong"])["users"] == [{"name": "birch", "password": password}]


def test_trap_15_services_restart_once_in_the_order_of_the_catalog(series: _Series) -> None:
    order = series.project.restarts.read_text().split()
    used = {service for name in _TURNED for service in VECTORS["parsed"]["secrets"][name].get("restart_services", ())}
    first = order[: len(used)]
    assert sorted(first) == sorted(used)
    pairs = [pair for pair in CASE["must_come_before"] if set(pair) <= used]
    assert pairs
    assert [pair for pair in pairs if first.index(pair[0]) > first.index(pair[1])] == []


def test_trap_36_a_second_run_changes_nothing(series: _Series) -> None:
    ended = series.ended["due"]
    assert ended.code == 0, ended.output
    assert "Nothing is due and nothing is open" in ended.output
    assert series.files["due"] == series.files["all"]


def test_a_line_in_the_overlay_turns_what_was_held_back(series: _Series) -> None:
    ended = series.ended["held"]
    assert ended.code == 0, ended.output
    assert series.changed("held", "all") == HELD
    assert "held back   " not in ended.output
    assert len(series.values["held"]["PG_META_CRYPTO_KEY"]) == 48


def test_the_status_names_dates_and_rotations_of_all(series: _Series) -> None:
    ended = series.ended["status"]
    assert ended.code == 0, ended.output
    lines = {line.split()[0]: line for line in ended.output.splitlines() if line.startswith("  ")}
    today = time.strftime("%Y-%m-%d", time.gmtime())[:7]
    assert f" {today}-" in lines["JWT_SECRET"]
    assert "90 d" in lines["JWT_SECRET"]
    assert "fresh" in lines["JWT_SECRET"]
    assert "never turned" in lines["NGC_API_KEY"]


def test_trap_37_going_back_brings_every_byte_back(series: _Series) -> None:
    for run in ("held back", "all back"):
        assert series.ended[run].code == 0, series.ended[run].output
    assert series.files["held back"] == series.files["all"]
    assert series.files["all back"] == series.files["before"]
    assert series.project.statuses() == ["rolled_back", "rolled_back"]


def test_trap_25_no_value_is_in_any_output_or_evidence(series: _Series) -> None:
    found = Search()
    for name, ended in series.ended.items():
        series.canaries.search_bytes(found, name, ended.output.encode())
    evidence = series.project.state("one") / "evidence"
    series.canaries.search_files(found, [evidence])
    series.canaries.search_bytes(found, "register", json.dumps(registry(series.project.state("one"))).encode())
    assert found.found == {}
    assert len(series.canaries.names) > 100
    again = Search()
    series.canaries.search_files(again, [series.project.project / "backups"])
    assert again.found, "where they belong, they are found"


def test_backups_lie_in_the_project_as_the_catalog_says(series: _Series) -> None:
    folder = series.project.project / "backups/secrets"
    first = min(path for path in folder.iterdir() if not path.name.startswith("."))
    assert re.fullmatch(r"secrets-backup-\d{8}-\d{6}", first.name)
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    for name, path in (("main", ".env"), ("docker", "supabase/docker/.env")):
        assert (first / path).read_bytes() == series.files["before"][name]
        assert stat.S_IMODE((first / path).stat().st_mode) == 0o600
    metadata = json.loads((first / "metadata.json").read_text())
    assert sorted(metadata["rotated_secrets"]) == _TURNED
    assert "supabase-auth" in metadata["affected_services"]


# -- runs of their own -----------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> EnvProject:
    """A project as nobody has touched it."""
    return EnvProject(tmp_path)


def test_trap_30_a_child_alone_is_signed_with_the_parent_that_there_is(
    project: EnvProject, controller: Controller
) -> None:
    before, files = project.values(), project.bytes()
    ended = controller.run(project.inventory, "rotate", only="ANON_KEY")
    assert ended.code == 0, ended.output
    after = project.values()
    assert sorted(name for name in before if before[name] != after[name]) == ["ANON_KEY"]
    assert_signed(after, before["JWT_SECRET"], "ANON_KEY")
    assert project.values("other")["ANON_KEY"] == after["ANON_KEY"]
    assert project.bytes()["kong"] == files["kong"]


def test_one_of_a_group_turns_again_and_goes_back_by_itself(project: EnvProject, controller: Controller) -> None:
    first, alone = "DASHBOARD_PASSWORD", {"only": "DASHBOARD_PASSWORD"}
    before = project.values()
    controller.run(project.inventory, "rotate", only=f"JWT_SECRET,{first}")
    turned = project.bytes()
    ended = controller.run(project.inventory, "rotate", until="stage", **alone)
    assert f"way back    ansible-playbook keyturn.rotation.rollback -e keyturn_only={first}" in ended.output
    refused = controller.run(project.inventory, "rollback", only="JWT_SECRET")
    assert refused.code == 2
    assert f"rollback, with keyturn_only={first}." in refused.output
    back = controller.run(project.inventory, "rollback", **alone)
    assert back.code == 0, back.output
    assert project.bytes() == turned
    assert project.statuses() == ["overlap", "rolled_back"]
    assert controller.run(project.inventory, "rotate", **alone).code == 0
    again = project.values()
    back = controller.run(project.inventory, "rollback", only="JWT_SECRET")
    assert back.code == 0, back.output
    after = project.values()
    assert {name: after[name] for name in after if after[name] != before[name]} == {first: again[first]}
    assert controller.run(project.inventory, "retire", confirm=first, **alone).code == 0
    assert project.statuses() == ["rolled_back", "rolled_back", "retired"]


def test_a_parent_loses_its_way_back_when_a_child_turns_again_and_that_is_said(
    project: EnvProject, controller: Controller
) -> None:
    controller.run(project.inventory, "rotate", only="JWT_SECRET")
    words = (
        "JWT_SECRET, SERVICE_ROLE_KEY can no longer be brought back to the version before: they turned together with"
    )
    for playbook in ("plan", "rotate"):
        ended = controller.run(project.inventory, playbook, only="ANON_KEY")
        assert ended.code == 0, ended.output
        assert f"{words} ANON_KEY in rotation" in ended.output
    refused = controller.run(project.inventory, "retire", only="JWT_SECRET", confirm="JWT_SECRET")
    assert refused.code == 2
    assert "ANON_KEY turned again in" in refused.output


@pytest.fixture
def unwritable(project: EnvProject) -> Iterator[Path]:
    """A folder that can be made unwritable for root too."""
    folder = project.files["other"].parent
    yield folder
    subprocess.run(["chattr", "-i", str(folder)], check=True)


def test_trap_37_a_second_host_that_fails_in_promote_takes_the_first_back(
    project: EnvProject, controller: Controller, unwritable: Path
) -> None:
    """The folder of the second host becomes read-only once everything is staged."""
    files = project.bytes()
    process = controller.start(project.inventory, "rotate", only="JWT_SECRET")
    while not list((project.state("two") / "secrets").glob("*/*/meta.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    subprocess.run(["chattr", "+i", str(unwritable)], check=True)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 2, output
    assert "two" in output
    assert str(project.files["other"]) in output
    assert "promote" in _entered(project)
    assert "restart" not in _entered(project)
    assert project.bytes() == files
    assert project.statuses() == ["rolled_back"]
    assert not list(project.folder.rglob(".keyturn.*"))
    (record,) = (project.state("one") / "evidence").glob("*.rolled_back/evidence.json")
    assert "cannot be written" in record.read_text()


def test_a_folder_that_cannot_be_written_is_named_by_the_plan_and_before_anything_is_made(
    project: EnvProject, controller: Controller, unwritable: Path
) -> None:
    files = project.bytes()
    subprocess.run(["chattr", "+i", str(unwritable)], check=True)
    planned = controller.run(project.inventory, "plan", only="JWT_SECRET")
    ended = controller.run(project.inventory, "rotate", only="JWT_SECRET")
    assert (planned.code, ended.code) == (2, 2), planned.output + ended.output
    words = f"two: {project.files['other']}: could not be replaced: nothing can be written into {unwritable}"
    assert words in planned.output
    assert words in ended.output
    assert _entered(project) == ["preflight"]
    assert (project.bytes(), project.statuses(), project.restarts.exists()) == (files, ["rolled_back"], False)


def _entered(project: EnvProject) -> list[str]:
    return [phase for rotation in registry(project.state("one"))["rotations"].values() for phase in rotation["entered"]]


_BROUGHT = {
    "OPENAI_API_KEY": "sk-a-key-that-its-vendor-made-0123456789",
    "NGC_API_KEY": "nvapi-another-one-that-came-by-mail-98765",
    "DASHBOARD_USERNAME": "the-name-that-people-have-chosen",
}


def test_values_that_a_person_brings_come_from_a_file_the_environment_or_the_vault(tmp_path: Path) -> None:
    brought = tmp_path / "brought.key"
    brought.touch(0o644)
    brought.write_text(f"{_BROUGHT['NGC_API_KEY']}\n")
    brought.chmod(0o644)
    sources = {
        "OPENAI_API_KEY": {"env": "NEW_OPENAI_KEY"},
        "NGC_API_KEY": {"file": str(brought)},
        "DASHBOARD_USERNAME": {"variable": "vault_new_username"},
    }
    overlay = {name: {"value_from": source} for name, source in sources.items()}
    project = EnvProject(tmp_path / "hosts", overlay=overlay)
    secret = VaultSecret(b"the password of the vault")
    (tmp_path / "hosts/group_vars").mkdir()
    encrypted = VaultLib([("default", secret)]).encrypt(
        yaml.safe_dump({"vault_new_username": _BROUGHT["DASHBOARD_USERNAME"]}), secret
    )
    (tmp_path / "hosts/group_vars/all.yml").write_bytes(encrypted)
    (tmp_path / "vault-password").write_text("the password of the vault")
    vault = ("--vault-password-file", str(tmp_path / "vault-password"))
    controller = Controller(tmp_path / "controller", {"NEW_OPENAI_KEY": _BROUGHT["OPENAI_API_KEY"]})
    before = project.bytes()
    refused = controller.run(project.inventory, "rotate", *vault, only=",".join(_BROUGHT))
    assert refused.code == 2, refused.output
    assert "others can read it" in refused.output
    assert project.bytes() == before

    brought.chmod(0o600)
    ended = controller.run(project.inventory, "rotate", "-vvv", "--diff", *vault, only=",".join(_BROUGHT))
    assert ended.code == 0, ended.output
    assert {name: project.values()[name] for name in _BROUGHT} == _BROUGHT
    inner = project.values("docker")
    assert (inner["OPENAI_API_KEY"], inner["DASHBOARD_USERNAME"]) == (
        _BROUGHT["OPENAI_API_KEY"], _BROUGHT["DASHBOARD_USERNAME"],
    )  # fmt: skip
    back = controller.run(project.inventory, "rollback", *vault, only="OPENAI_API_KEY")
    assert back.code == 0, back.output
    assert project.bytes() == before
    output = refused.output + ended.output + back.output
    assert [name for name, value in _BROUGHT.items() if value in output] == []


def test_what_cannot_be_turned_is_refused_and_says_what_to_do(project: EnvProject, controller: Controller) -> None:
    """A value that nobody brought; one held back by name; one that is made from another variable."""
    before = project.bytes()
    missing = controller.run(project.inventory, "rotate", only="NGC_API_KEY")
    assert missing.code == 2
    assert "a person brings it" in missing.output
    assert "value_from" in missing.output
    held = controller.run(project.inventory, "rotate", only="POSTGRES_PASSWORD")
    assert held.code == 2, held.output
    assert "server: {type: postgres" in held.output
    assert "Nothing is turned" in held.output
    main = project.files["main"]
    text = main.read_text().replace(project.values()["SECRET_KEY_BASE"], '"${CRAWL4AI_API_KEY}-more"')
    main.write_text(text)
    interpolated = controller.run(project.inventory, "rotate", only="SECRET_KEY_BASE")
    assert interpolated.code == 2, interpolated.output
    assert "refers to another variable" in interpolated.output
    assert main.read_text() == text
    assert {name: content for name, content in project.bytes().items() if name != "main"} == {
        name: content for name, content in before.items() if name != "main"
    }
