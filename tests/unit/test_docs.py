# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents name exists, and what they show works."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.secrets_config import translate
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import PHASES
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import run_probes

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMING_FROM = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
#: Where a relative link in the README leads once it is shown by Galaxy.
_BLOB = "https://github.com/keyturn/rotation/blob/main/"
_GROUPS = {"all": ["api1", "api2", "agents1", "db1"], "api": ["api1", "api2"], "agents": ["agents1"]}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(text: str, language: str) -> Iterator[str]:
    """The fenced blocks of a language, also those inside of lists."""
    for found in re.finditer(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(found.group(2))


def _anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def tests_by_file() -> dict[str, set[str]]:
    """The names of the test functions in each file, as pytest collects them."""
    return {
        _name(path): {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        for folder in ("unit", "integration", "molecule")
        for path in (ROOT / "tests" / folder).rglob("test_*.py")
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_each_test_that_is_named_exists(document: Path, tests_by_file: dict[str, set[str]]) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", document.read_text(encoding="utf-8"))
    assert [f"{path}::{name}" for path, name in named if name not in tests_by_file.get(path, set())] == []


@pytest.mark.parametrize("document", COMING_FROM, ids=_name)
def test_each_statement_has_a_command_and_a_test(document: Path) -> None:
    lines = document.read_text(encoding="utf-8").splitlines()
    start = lines.index("| statement | command | test |")
    rows = [line for line in lines[start + 2 :] if line.startswith("|")]
    assert len(rows) > 20
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row
        assert re.search(r"`tests/[\w/]+\.py::\w+`", cells[2]), row


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_each_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        base, path = (ROOT, target[len(_BLOB) :]) if target.startswith(_BLOB) else (document.parent, target)
        if re.match(r"[a-z]+:", path):
            continue
        path, _hash, anchor = path.partition("#")
        found = (base / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_the_readme_links_work_on_galaxy_and_the_others_in_a_checkout(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    if document.name == "README.md":
        assert [target for target in targets if not target.startswith("https://")] == []
    else:
        assert [target for target in targets if target.startswith(_BLOB)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_everything_of_the_collection_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    kinds = {
        "playbooks": ".yml",
        "plugins/modules": ".py",
        "plugins/callback": ".py",
        "plugins/filter": ".py",
        "roles": "",
    }
    known = {path.stem for folder, ending in kinds.items() for path in (ROOT / folder).glob(f"*{ending}")}
    named = set(re.findall(r"\bkeyturn\.rotation\.(\w+)", text)) - {"plugins"}
    assert named - known == set()
    playbooks = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    run = re.findall(r"(?:ansible-playbook|import_playbook:)[^\n`]*? keyturn\.rotation\.(\w+)", text)
    assert set(run) - playbooks == set()


def test_the_readme_names_every_playbook_and_every_variable_of_a_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    variables = set()
    for path in (ROOT / "playbooks").glob("*.yml"):
        assert f"| `keyturn.rotation.{path.stem}` |" in text
        variables |= set(re.findall(r"\bkeyturn_\w+", path.read_text(encoding="utf-8")))
    assert [name for name in sorted(variables) if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_each_variable_that_is_named_is_used(document: Path) -> None:
    used: set[str] = set()
    for folder in ("playbooks", "roles", "plugins"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".yml", ".py"):
                used |= set(re.findall(r"\bkeyturn_[a-z_]*[a-z]", path.read_text(encoding="utf-8")))
    named = set(re.findall(r"\bkeyturn_[a-z_]*[a-z]", document.read_text(encoding="utf-8")))
    fragments = {name for name in named if re.match(r"keyturn_(secrets|overlay)_", name)}
    assert named - used - fragments == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_each_phase_to_stop_after_is_one(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"keyturn_until(?:=|: )(\w+)", text))
    assert named - {phase for phases in PHASES.values() for phase in phases} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_examples_in_yaml_and_json_parse(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert all(yaml.safe_load(block) is not None for block in _blocks(text, "yaml"))
    arguments = re.findall(r"-[ae] *(?:\\\n *)?'(\{.*?\})'", text, re.DOTALL)
    assert all(isinstance(json.loads(argument), dict) for argument in arguments)
    assert len(arguments) == len(re.findall(r"-[ae] *(?:\\\n *)?'\{", text))


def _catalogs() -> list[Any]:
    """Examples that are a whole catalog."""
    found = []
    for path in DOCUMENTS:
        blocks = [yaml.safe_load(block) for block in _blocks(path.read_text(encoding="utf-8"), "yaml")]
        whole = [block for block in blocks if isinstance(block, dict) and "keyturn_state_host" in block]
        found += [pytest.param(block, id=f"{_name(path)}-{number}") for number, block in enumerate(whole)]
    return found


def test_the_documents_with_a_catalog_are_seen() -> None:
    assert len(_catalogs()) >= 2 + len(COMING_FROM)


@pytest.mark.parametrize("variables", _catalogs())
def test_each_catalog_loads(variables: dict[str, Any]) -> None:
    if "keyturn_catalog_file" in variables:
        text = json.loads((ROOT / "tests" / "vectors" / "002_secrets_config.json").read_text())["yaml"]
        variables = {**variables, **translate(yaml.safe_load(text), variables["keyturn_project"], "the file")}
    catalog = load_catalog(variables, _GROUPS)
    for secret in catalog.secrets.values():
        for entry in secret.get("data", ()):
            assert load_spec(entry["envelope"]).authenticated


@pytest.mark.parametrize(
    "line",
    [
        "auth.token phase=fast_lookup hit=true",
        "auth.token phase=full_scan",
        "auth.jwt phase=fast_path",
        "auth.jwt phase=db_fallback",
    ],
)
def test_the_probe_of_log_lines_finds_them(tmp_path: Path, line: str) -> None:
    document = ROOT / "docs" / "coming-from" / "jwk-aes-key.md"
    (probe,) = list(yaml.safe_load(list(_blocks(document.read_text(encoding="utf-8"), "yaml"))[-1])["probes"])
    log = tmp_path / "log"
    *command, pattern, path = probe["command"]
    assert (pattern, path) == ("auth.token phase=fast_lookup hit=true", "/srv/app/log/current")
    probe["command"] = [*command, line, str(log)]

    def unused(secret: str, version: str) -> bytes:
        raise AssertionError(f"{secret} {version} was read")

    log.write_text("service started\n")
    assert [result["passed"] for result in run_probes([probe], unused)] == [False]
    log.write_text(f"service started\ninfo {line} account=7\n")
    assert [result["passed"] for result in run_probes([probe], unused)] == [True]


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        ("auth.jwt phase=fast_path", [True, True, False, True]),
        ("auth.jwt phase=db_fallback", [False, False, False, True]),
        ("auth.token phase=fast_lookup hit=true", [False, True, True, True]),
        ("auth.token phase=full_scan", [False, True, False, True]),
    ],
)
def test_the_log_probes_of_signing_keys_read_the_lines_of_the_service(
    tmp_path: Path, line: str, passed: list[bool]
) -> None:
    document = ROOT / "docs" / "coming-from" / "rotate-all-jwks.md"
    probes = yaml.safe_load(list(_blocks(document.read_text(encoding="utf-8"), "yaml"))[-1])["probes"]
    log = tmp_path / "log"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    log.write_text(f"{now} service started\n{now} info {line} account=7\n")
    asked = [{**probe, "path": str(log), "started_at": now} for probe in probes]

    def unused(secret: str, version: str) -> bytes:
        raise AssertionError(f"{secret} {version} was read")

    assert [result["passed"] for result in run_probes(asked, unused)] == passed
    log.write_text(f"{now} service started\n" + f"{now} info {line}\n" * 11)
    assert [result["passed"] for result in run_probes(asked, unused)][3] == ("full_scan" not in line)
