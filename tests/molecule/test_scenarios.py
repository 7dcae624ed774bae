# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each scenario of ``extensions/molecule`` is one test; its whole output lies in ``.build/molecule``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))
LOGS = ROOT / ".build" / "molecule"
#: What a scenario's playbooks say once what they look at is right: an exit code alone does not tell that they looked.
MARKS = {
    "engine": [
        "400 rows: all right; lookups: 40 rows: all right; key changed; mode 600; other settings changed: []",
        "A failed rotation ends with exit code 2 and says that everything was brought back",
        "A rotation without api2 is refused before anything is staged, and api2 is named",
        "400 rows: all right; lookups: 40 rows: all right; key unchanged; mode 600; other settings changed: []",
        "Evidence verified: rotated, rolled_back, rolled_back",
    ],
}


def test_every_scenario_says_what_it_has_looked_at() -> None:
    assert sorted(MARKS) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, docker_host: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{scenario}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
        "DOCKER_HOST": docker_host,
        "NO_COLOR": "1",
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
