# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the whole tree, whoever wrote the part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.release import RELEASE
from ansible_collections.keyturn.rotation.plugins.module_utils.steps import steps

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_TOOLS = {"__pycache__", "output"}
HIDDEN_BUT_OURS = {".ci", ".ansible-lint", ".editorconfig", ".gitignore", ".yamllint"}

MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in MADE_BY_TOOLS or (path.name.startswith(".") and path.name not in HIDDEN_BUT_OURS):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


FILES = list(_files(ROOT))


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def _role_options(role: str) -> dict[str, dict[str, Any]]:
    """Every option of every entry point of a role; an option of two entry points has one default."""
    spec = _load(ROOT / "roles" / role / "meta" / "argument_specs.yml")
    options: dict[str, dict[str, Any]] = {}
    for entry in spec["argument_specs"].values():
        for name, option in (entry.get("options") or {}).items():
            known = options.setdefault(name, option)
            assert known.get("default") == option.get("default"), f"{role}: {name} has two defaults"
    return options


@pytest.mark.parametrize("role", ROLES)
def test_role_has_a_readme_and_an_argument_spec(role: str) -> None:
    folder = ROOT / "roles" / role
    assert (folder / "README.md").is_file()
    assert (folder / "meta" / "argument_specs.yml").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_of_a_role_equal_its_argument_spec(role: str) -> None:
    defaults = _load(ROOT / "roles" / role / "defaults" / "main.yml") or {}
    documented = {name: option["default"] for name, option in _role_options(role).items() if "default" in option}
    assert defaults == documented


def test_action_group_names_every_module() -> None:
    runtime = _load(ROOT / "meta" / "runtime.yml")
    assert runtime["action_groups"]["rotation"] == MODULES
    assert all(set(named) <= set(MODULES) for named in runtime["action_groups"].values())


def test_requires_ansible_has_no_upper_bound() -> None:
    assert re.fullmatch(r">=\d+\.\d+\.\d+", _load(ROOT / "meta" / "runtime.yml")["requires_ansible"])


@pytest.mark.parametrize("module", MODULES)
def test_module_has_tests(module: str) -> None:
    quoted, called = rf"[\"']{module}[\"']", rf"\bkeyturn\.rotation\.{module}\b"
    imported = rf"\bplugins\.modules(\.| import [\w, (]*\b){module}\b"
    pattern = re.compile(f"{quoted}|{called}|{imported}")
    assert any(
        pattern.search(path.read_text(encoding="utf-8"))
        for path in FILES
        if path.suffix == ".py" and path.name.startswith("test_") and path != Path(__file__)
    )


@pytest.mark.parametrize("module", MODULES)
def test_module_names_the_licence_where_ansible_looks(module: str) -> None:
    head = (ROOT / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8").splitlines()[:20]
    assert any("GNU General Public License v3.0+" in line for line in head)


def _wants_header(path: Path) -> bool:
    if path.name in {"Makefile", "Dockerfile"} or path.suffix in {".py", ".sh", ".toml", ".j2"}:
        return True
    return path.suffix in {".yml", ".yaml"} and path.relative_to(ROOT).parts[:2] != ("changelogs", "changelog.yaml")


def test_each_source_file_has_its_spdx_header() -> None:
    bare = []
    for path in filter(_wants_header, FILES):
        text = path.read_text(encoding="utf-8")
        if text.strip() and "SPDX-License-Identifier: " not in "\n".join(text.splitlines()[:12]):
            bare.append(str(path.relative_to(ROOT)))
    assert bare == []


# Spelled in two halves, so that this file does not hold them.
SILENCERS = [
    "no" + "qa",
    "type: " + "ignore",
    "no" + "lint",
    "pylint: " + "disable",
    "ruff: " + "ignore",
    "fmt: " + "off",
    "pragma: no " + "cover",
    "# no" + "sec",
    "yamllint " + "disable",
    "shellcheck " + "disable",
    "skip_" + "list",
    "warn_" + "list",
    "per-file-" + "ignores",
    "ignore_" + "missing_imports",
    "ignore_" + "errors: true",
    "mypy: " + "ignore",
    "@pytest.mark." + "skip",
    "@pytest.mark." + "xfail",
    "pytest." + "skip(",
]
TEXT = {".py", ".sh", ".toml", ".yml", ".yaml", ".cfg", ".ini", ".j2", ""}


@pytest.mark.parametrize("silencer", SILENCERS)
def test_no_check_is_silenced(silencer: str) -> None:
    holders = []
    for path in FILES:
        if path.suffix in TEXT and silencer in path.read_text(encoding="utf-8"):
            holders.append(str(path.relative_to(ROOT)))
    assert holders == []


def test_sanity_has_no_ignore_file() -> None:
    assert not (ROOT / "tests" / "sanity").exists()
    assert not [path for path in FILES if re.fullmatch(r"ignore-.*\.txt|\.ansible-lint-ignore", path.name)]


def test_the_tarball_leaves_out_what_is_not_the_collection() -> None:
    galaxy = _load(ROOT / "galaxy.yml")
    assert {".build", ".venv", ".cache", ".demo", "demo", "tests"} <= set(galaxy["build_ignore"])


def test_galaxy_and_changelog_agree_on_the_version() -> None:
    galaxy = _load(ROOT / "galaxy.yml")
    released = _load(ROOT / "changelogs" / "changelog.yaml")["releases"]
    assert galaxy["version"] in released
    assert galaxy["version"] == RELEASE


def test_trap_55_rows_are_swapped_before_any_store_turns() -> None:
    tasks = yaml.safe_load((ROOT / "roles/rotation/tasks/promote.yml").read_text(encoding="utf-8"))
    (store,) = [task for task in tasks if "keyturn.rotation.secret" in task]
    assert store["keyturn.rotation.secret"]["state"] == "promoted"
    kinds = [{"kind": "encryption_key", "role": "keyturn.rotation.encryption_key", "phases": ["promote"]}]
    plan = {"phases": ["promote"], "kinds": kinds, "hosts": {}, "waves": [], "strategy": "cutover"}
    done = [step["do"] for step in steps({**plan, "escrow": {"hosts": []}})]
    assert done == ["enter", "kinds", "promote"]


def test_the_lock_file_of_npm_names_digests_and_no_registry() -> None:
    packages = json.loads((ROOT / "tests/peers/issuer/package-lock.json").read_text(encoding="utf-8"))["packages"]
    locked = {name: entry for name, entry in packages.items() if name}
    assert locked
    assert [name for name, entry in locked.items() if not entry["integrity"].startswith("sha512-")] == []
    assert [name for name, entry in locked.items() if "resolved" in entry] == []
