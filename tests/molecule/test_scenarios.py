# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each scenario of ``extensions/molecule`` is one test; its whole output lies in ``.build/molecule``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))
LOGS = ROOT / ".build" / "molecule"


def test_there_are_scenarios() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{scenario}.log"
    with log.open("wb") as output:
        run = subprocess.run(
            ["molecule", "test", "--scenario-name", scenario],
            cwd=ROOT / "extensions",
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    closing = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:])
    assert run.returncode == 0, f"{log.relative_to(ROOT)} ends with:\n{closing}"
