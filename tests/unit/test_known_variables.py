# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of a command line: each that is read or documented is known, and a slip in one is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.known_variables import KNOWN, refuse_misspelt

_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"(?<![\w/])keyturn_[a-z_]+(?![\w<.]*\.py)\b")
#: Names of things in a database, and the beginning of other names.
_OTHERS = {"keyturn_plain", "keyturn_hold_", "keyturn_secrets_", "keyturn_overlay_"}


def _names(*patterns: str) -> Iterator[str]:
    for pattern in patterns:
        for path in _ROOT.glob(pattern):
            yield from _NAME.findall(path.read_text(encoding="utf-8"))


def test_every_variable_that_is_read_or_documented_is_known_and_no_other() -> None:
    read = set(_names("playbooks/*.yml", "roles/*/tasks/*.yml", "roles/*/vars/*.yml", "roles/*/meta/*.yml"))
    told = set(_names("README.md", "docs/*.md", "roles/*/README.md"))
    assert len(read) > 40
    assert read - KNOWN == set()
    fragments = {name for name in told if name.startswith(("keyturn_secrets_", "keyturn_overlay_"))}
    assert told - KNOWN - _OTHERS - fragments == set()
    assert KNOWN - read - told == set()


def test_what_is_known_a_fragment_or_somebody_elses_is_taken() -> None:
    assert refuse_misspelt([*KNOWN, "keyturn_secrets_team", "keyturn_overlay_shared", "only", "other_only"]) == []
    assert refuse_misspelt(["keyturn_colour_of_the_day"]) == ["keyturn_colour_of_the_day"]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("keyturn_onli", "keyturn_only"),
        ("keyturn_unitl", "keyturn_until"),
        ("keyturn_secret", "keyturn_secrets"),
        ("keyturn_overlays", "keyturn_overlay"),
        ("keyturn_confrim", "keyturn_confirm"),
        ("keyturn_takeover", "keyturn_take_over"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(slip: str, meant: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        refuse_misspelt(["keyturn_reason", slip])
    assert raised.value.code == "variable-unknown"
    assert str(raised.value) == f"-e: no variable {slip}. Did you mean {meant}?"


def test_a_way_back_is_not_held_up_by_a_variable_of_the_users_own() -> None:
    assert refuse_misspelt(["keyturn_host", "keyturn_onli"], may_refuse=False) == ["keyturn_host", "keyturn_onli"]
