# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a service's log are shown without anything that is a value, or looks like one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import kept_values, mask_lines, values_in

_VALUE = "canary old/5d1e90cc+7ab4"
_MASK = "********"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"began with {_VALUE}.", f"began with {_MASK}."),
        (f"cannot reach postgres://app:{quote(_VALUE, safe='')}@db/app", f"cannot reach postgres://app:{_MASK}@db/app"),
        (f"{_VALUE}{_VALUE}", _MASK * 2),
        ("\x1b[31mcanary \x1b[0mold/5d1e90cc+7ab4\x07", _MASK),
    ],
)
def test_a_known_value_is_masked_wherever_it_stands(line: str, shown: str) -> None:
    assert mask_lines([line], [_VALUE]) == [shown]


def test_a_value_of_several_lines_is_masked_in_each_of_them() -> None:
    value = "begin of the value\n  and more of it\n\nend of it"
    lines = mask_lines(["a begin of the value", "and more of it b", "end of it", "fine"], [value])
    assert lines == [f"a {_MASK}", f"{_MASK} b", _MASK, "fine"]
    text = "\n".join(mask_lines(value.split("\n"), [value]))
    assert not any(part in text for part in ("begin of", "end of it"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("PASSWORD=short next", f"PASSWORD={_MASK} next"),
        ("db_password: 'two words' next", f"db_password: {_MASK} next"),
        ('{"apiKey": "abc", "n": 1}', f'{{"apiKey": {_MASK}, "n": 1}}'),
        ("Authorization: Bearer abc next", f"Authorization: {_MASK} next"),
        ("signing-key=abc", f"signing-key={_MASK}"),
    ],
)
def test_what_is_called_a_secret_is_masked_although_nobody_knows_it(line: str, shown: str) -> None:
    assert mask_lines([line], []) == [shown]


@pytest.mark.parametrize(
    ("word", "masked"),
    [
        ("kZ8vQ2mN5xB7cL1pR4tY", True),
        ("deadbeef00deadbeef00", True),
        ("kZ8vQ2mN5xB7cL1pR4t", False),
        ("internationalizations", False),
        ("2026-11-21T12:30:15.123456+00:00", False),
        ("00000000000000000000", False),
    ],
)
def test_a_long_word_of_mixed_characters_is_masked_and_a_time_is_not(word: str, masked: bool) -> None:
    assert mask_lines([f"at {word} now"], []) == [f"at {_MASK if masked else word} now"]


def test_lines_are_cut_after_they_were_masked_and_hold_nothing_that_steers_a_terminal() -> None:
    (line,) = mask_lines(["x " * 145 + _VALUE], [_VALUE])
    assert line == "x " * 145 + _MASK
    assert len(mask_lines(["y " * 400], [])[0]) == 300
    assert mask_lines(["a\x1b[2Jb\x00c\rd\te"], []) == ["abcd\te"]
    assert mask_lines([], ["value"]) == []
    assert mask_lines(["", "b"], []) == ["", "b"]


def test_values_of_a_containers_environment_and_the_passwords_in_its_urls() -> None:
    environment = ["A=secret-a", "B=abc", "PLAIN", "C=", "URL=postgres://app:p%40ss%2Fword@db/app"]
    found = values_in(environment)
    assert found == ["secret-a", "postgres://app:p%40ss%2Fword@db/app", "p%40ss%2Fword", "p@ss/word"]
    assert mask_lines(["the password is p@ss/word, said db"], found) == [f"the password is {_MASK}, said db"]
    assert mask_lines(["abc stays: it is too short"], values_in(["B=abc"])) == ["abc stays: it is too short"]


def test_values_that_a_host_keeps(tmp_path: Path) -> None:
    for name, kept in (("new", "value-new"), ("old", "value-old"), ("meta", "no value")):
        path = tmp_path / "secrets/KEY" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kept)
    assert sorted(kept_values(str(tmp_path))) == ["value-new", "value-old"]
    assert kept_values(str(tmp_path / "nothing")) == []
