# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has and lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import host_facts
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.modules import ROOT

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nID=debian\n'
UBUNTU = "NAME='Ubuntu'\nID=ubuntu\nID_LIKE=debian\n"
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\n'
SUSE = '# a comment\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n'


@pytest.mark.parametrize(
    ("release", "family", "psycopg"),
    [
        (DEBIAN, "debian", "python3-psycopg"),
        (UBUNTU, "debian", "python3-psycopg"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "debian", "python3-psycopg"),
        ("ID=fedora\n", "fedora", "python3-psycopg3"),
        (ROCKY, "fedora", "python3-psycopg3"),
        ("ID=alpine\n", "alpine", "py3-psycopg"),
        ("ID=arch\n", "arch", "python-psycopg"),
        (SUSE, "suse", "python3-psycopg"),
        ("ID=opensuse-tumbleweed\n", "suse", "python3-psycopg"),
        ("ID=plan9\n", "pip", "psycopg[binary]"),
        ("", "pip", "psycopg[binary]"),
    ],
)
def test_the_package_is_named_as_the_distribution_calls_it(release: str, family: str, psycopg: str) -> None:
    assert host_facts.family(release) == family
    assert host_facts.package_name("psycopg", release) == psycopg
    for library in ("cryptography", "jwt", "docker", "jmespath"):
        assert host_facts.package_name(library, release)


def test_an_interpreter_of_its_own_needs_the_name_on_pypi() -> None:
    assert host_facts.package_name("jwt", DEBIAN) == "python3-jwt"
    assert host_facts.package_name("jwt", DEBIAN, own_python=True) == "PyJWT"


def test_quotes_and_escapes_of_os_release_are_taken_off() -> None:
    found = host_facts.parse_os_release(
        'A=plain\nB="with \\"quotes\\" and \\$"\nC=\'single\'\n#D=no\nnonsense\n E=x \n'
    )
    assert found == {"A": "plain", "B": 'with "quotes" and $', "C": "single", "E": "x"}


def test_libraries_that_are_there_are_not_missing() -> None:
    assert host_facts.missing_libraries(["cryptography", "psycopg"]) == []


def test_a_library_that_is_missing_or_broken_or_of_another_project_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "__init__.py").write_text("raise RuntimeError('built for another interpreter')\n")
    (tmp_path / "jwt.py").write_text("# the other project of this name has no PyJWT\n")
    script = (
        "import json, sys; sys.path.append(sys.argv[1]);"
        "from ansible_collections.keyturn.rotation.plugins.module_utils.host_facts import missing_libraries;"
        "print(json.dumps(missing_libraries(['docker', 'jwt', 'jmespath', 'psycopg', 'jwt'])))"
    )
    # Without site packages: of these five libraries there are only the two that were made above.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, str(ROOT / ".build")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [entry["library"] for entry in found] == ["docker", "jwt", "jmespath", "psycopg"]
    assert all(entry["package"] for entry in found)


def test_a_library_nobody_knows_is_refused() -> None:
    with pytest.raises(KeyturnError, match="there is no library 'pyscopg'") as caught:
        host_facts.missing_libraries(["pyscopg"])
    assert caught.value.code == "library-unknown"


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    found = host_facts.disk_free(str(tmp_path / "not" / "yet" / "there"))
    assert 0 < found <= stat.f_blocks * stat.f_frsize
    assert host_facts.disk_free("/not-there-at-all") > 0


@pytest.mark.parametrize(
    ("mode", "loose"), [(0o700, False), (0o755, False), (0o775, True), (0o777, True), (0o1777, True)]
)
def test_a_folder_that_others_may_write_to_is_told(tmp_path: Path, mode: int, loose: bool) -> None:
    tmp_path.chmod(mode)
    assert host_facts.loose_folder(str(tmp_path)) == (str(tmp_path) if loose else "")
    assert host_facts.loose_folder(str(tmp_path / "not yet there")) == ""


def test_the_clock_counts_seconds_since_1970() -> None:
    before = time.time()
    assert before <= host_facts.clock() <= time.time()


@pytest.mark.parametrize(("script", "found"), [("exit 0", True), ("exit 1", False), (None, False)])
def test_docker_compose_is_asked_whether_it_is_there(
    tmp_path: Path, script: str | None, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docker without its plugin ends with 1, as this one does."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    monkeypatch.setattr(host_facts, "_SYSTEM_PATHS", "")
    if script:
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\ntest "$1 $2" = "compose version" || exit 3\n{script}\n')
        program.chmod(0o755)
    assert host_facts.has_compose() is found
