# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each scenario of ``extensions/molecule`` is one test; its whole output lies in ``.build/molecule``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.compose.stack import SECRETS, Stack

from tests.support.controller import kept

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))
LOGS = ROOT / ".build" / "molecule"
#: What a scenario's playbooks say once what they look at is right: an exit code alone does not tell that they looked.
_IN_FORCE = "10 values in 5 containers as their files say; accepted: POSTGRES_PASSWORD, REDIS_PASSWORD, ANON_KEY"
_LETS_IN = "one key is current; the gateway lets in: a token of now True, a token of before"
_AS_BEFORE = f"turned: nothing; {_IN_FORCE}; refused: nothing"
MARKS = {
    "compose_all": [
        "rotate ended with exit code 0 and says: have turned",
        f"turned: {', '.join(SECRETS)}; {_IN_FORCE}; "
        "refused: POSTGRES_PASSWORD of before, REDIS_PASSWORD of before, ANON_KEY of before",
    ],
    "compose_lost": [
        "rotate ended with exit code 4 and says: bring jobs back",
        "rotate ended with exit code 2 and says: everything is back",
        _AS_BEFORE,
    ],
    "compose_restore": ["restore ended with exit code 0 and says: what was there is in", _AS_BEFORE],
    "compose_sick": ["rotate ended with exit code 2 and says: (?s)worker is unhealthy", _AS_BEFORE],
    "compose_subset": [
        "rotate ended with exit code 0 and says: have turned",
        f"turned: ANON_KEY, REDIS_PASSWORD; {_IN_FORCE}; refused: REDIS_PASSWORD of before",
    ],
    "engine": [
        "400 rows: all right; lookups: 40 rows: all right; key changed; mode 600; other settings changed: []",
        "A failed rotation ends with exit code 2 and says that everything was brought back",
        "A rotation without api2 is refused before anything is staged, and api2 is named",
        "400 rows: all right; lookups: 40 rows: all right; key unchanged; mode 600; other settings changed: []",
        "Evidence verified: rotated, rolled_back, rolled_back",
    ],
    "signing": [
        "rotate ended with exit code 0 and says: has turned",
        f"turned: the issuer signs with another key, {_LETS_IN} True",
        "rotate ended with exit code 0 and says: Nothing is due",
        f"retired: the issuer signs with another key, {_LETS_IN} False",
        f"back: the issuer signs with the key of before, {_LETS_IN} True",
        "emergency ended with exit code 0 and says: the compromised version is replaced and disabled",
        "Evidence verified: rotated, retired, rotated, rolled_back, replaced",
    ],
    "signing_killed": [
        "rotate was killed in preflight, stage, reload, promote, verify, "
        "and ended with exit code 0 when it was run again",
        f"turned: the issuer signs with another key, {_LETS_IN} True",
        "retire was killed in retire, and ended with exit code 0 when it was run again",
        f"retired: the issuer signs with another key, {_LETS_IN} False",
        "Evidence verified: rotated, retired",
    ],
}
#: Scenarios whose hosts are processes of this machine.
_WITHOUT_CONTAINERS = {"signing", "signing_killed"}


@pytest.fixture(scope="module")
def compose_stack(docker_host: str) -> Iterator[None]:
    """The stack that the scenarios on Compose start where it does not run, and leave as they found it."""
    stack = Stack(ROOT / ".demo" / "molecule", docker_host)
    stack.down()  # of a run that was killed
    yield
    Stack(stack.folder, docker_host).down()


def test_every_scenario_says_what_it_has_looked_at() -> None:
    assert sorted(MARKS) == SCENARIOS


@pytest.mark.parametrize("scenario", sorted(_WITHOUT_CONTAINERS))
def test_scenario_without_containers(scenario: str) -> None:
    _run(scenario, {})


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - _WITHOUT_CONTAINERS))
@pytest.mark.usefixtures("compose_stack")
def test_scenario(scenario: str, docker_host: str) -> None:
    _run(scenario, {"DOCKER_HOST": docker_host, "KEYTURN_KEEP_STACK": "1"})


def _run(scenario: str, more: dict[str, str]) -> None:
    """Run a scenario to its end and look for its marks.

    :param more: of the environment.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{scenario}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "support" / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "kept_modules",
        "NO_COLOR": "1",
        **kept(),
        **more,
    }
    with log.open("wb") as output:
        run = subprocess.run(
            ["molecule", "test", "--scenario-name", scenario],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    told = log.read_text(encoding="utf-8", errors="replace")
    lines = told.splitlines()
    closing = "\n".join([*(line for line in lines if line.startswith(("fatal: ", "[ERROR]"))), *lines[-60:]])
    assert run.returncode == 0, f"{log.relative_to(ROOT)} ends with:\n{closing}"
    missing = [mark for mark in MARKS[scenario] if mark not in told]
    assert not missing, f"{log.relative_to(ROOT)} does not say: {missing}"
