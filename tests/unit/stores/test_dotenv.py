# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dotenv files: every byte is kept but those of the value that is named.

The view of python-dotenv and Docker Compose is followed; Node's reader cuts ``abc#def`` and is not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import (
    Document,
    edit,
    encode,
    parse,
    render,
)
from hypothesis import example, given
from hypothesis import strategies as st

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "002_env_files.json").read_text())
_CASES = [
    pytest.param(file, id=f"{case['name']}-{number}")
    for case in _VECTORS["cases"]
    for number, file in enumerate(case["files"])
]
_READER = "python_dotenv_no_interpolation"


def _values(data: bytes) -> dict[str, str | None]:
    """As a reader takes them: the last line of a name wins."""
    return {line.name: line.value for line in parse(data).lines if line.name}


def _find(data: bytes, name: str) -> Any:
    return parse(data).find(name, "/srv/.env")


@pytest.mark.parametrize("file", _CASES)
def test_vectors_are_read_as_python_dotenv_reads_them(file: dict[str, Any]) -> None:
    assert _values(file["before"].encode()) == file["before_values_by_reader"][_READER]


@pytest.mark.parametrize("file", _CASES)
def test_trap_31_vectors_change_by_the_named_values_only(file: dict[str, Any]) -> None:
    """Each name that is there once, and that readers agree about, gets its value; all else stays to the byte."""
    before: bytes = file["before"].encode()
    document = parse(before)
    changed: dict[str, str] = {}
    refused: dict[str, str] = {}
    data = before
    for name, value in file["new_values"].items():
        try:
            line = document.find(name, file["path"])
        except KeyturnError as error:
            refused[name] = error.code
            continue
        if line is None or line.value is None:
            continue
        data = edit(data, {name: encode(value, line.quote, name=name)}, file["path"])
        changed[name] = value
    assert _values(data) == {**_values(before), **changed}
    lines = list(zip(document.lines, parse(data).lines))
    assert len(document.lines) == len(parse(data).lines)
    for old, new in lines:
        assert (old.before, old.after, old.quote) == (new.before, new.after, new.quote)
        assert old.raw == new.raw or old.name in changed
    allowed = {"JWT_SECRET": "variable-duplicate", "POSTGRES_PASSWORD": "variable-interpolated"}
    assert refused.items() <= allowed.items()
    expected = {name: value for name, value in file["new_values"].items() if name in _values(before)}
    bare = {name for name in expected if _values(before)[name] is None}
    assert set(changed) | set(refused) | bare == set(expected)


def test_vectors_that_readers_take_differently_are_refused() -> None:
    unbalanced, nul, not_env, empty = (case["value"].encode() for case in _VECTORS["negative_cases"][:4])
    for data in (unbalanced, nul):
        with pytest.raises(KeyturnError, match="line 1 ") as caught:
            _find(data, "JWT_SECRET")
        assert caught.value.code == "env-file-invalid"
    assert _find(not_env, "JWT_SECRET") is None
    assert _find(empty, "JWT_SECRET") is None
    for case in _VECTORS["negative_cases"][4:]:
        with pytest.raises(KeyturnError) as caught:
            encode(case["new_value"], name="JWT_SECRET", where="/srv/.env")
        assert caught.value.code == "value-unwritable"
        assert case["new_value"] not in str(caught.value)


@given(st.binary())
@example(b"\xef\xbb\xbfA=1\r\nexport B='x' # c\rC=\"a\nb\"")
@example(b"A='\nB=1\n")
def test_any_bytes_come_back(data: bytes) -> None:
    assert render(parse(data)) == data


_ALPHABET = st.sampled_from("AB=#'\"\\$ \t\n\r\\{}x1\ufeff")


@given(st.text(_ALPHABET))
def test_any_text_comes_back(text: str) -> None:
    assert render(parse(text.encode())) == text.encode()


@given(st.text(_ALPHABET), st.text(), st.sampled_from(["", "'", '"']))
def test_an_edit_changes_one_value_or_is_refused(text: str, value: str, quote: str) -> None:
    data = text.encode()
    try:
        raw = encode(value, quote, name="A")
        result = edit(data, {"A": raw})
    except (KeyturnError, UnicodeEncodeError):
        return
    assert _values(result)["A"] == value
    assert {n: v for n, v in _values(result).items() if n != "A"} == {
        n: v for n, v in _values(data).items() if n != "A"
    }
    if parse(data).find("A") is None:
        assert edit(result, {"A": None}, final_newline=text.endswith(("\n", "\r")) or not text) == data


@given(st.text())
def test_what_is_written_reads_back(value: str) -> None:
    for quote in ("", "'", '"'):
        try:
            raw = encode(value, quote)
        except KeyturnError:
            assert not value.isalnum() or not value.isascii()
            continue
        assert _values(f"K={raw} # c\nL=1\n".encode()) == {"K": value, "L": "1"}


@pytest.mark.parametrize(
    ("value", "quote", "raw"),
    [
        ("abc", "", "abc"),
        ("abc", "'", "'abc'"),
        ("abc", '"', '"abc"'),
        ("a b", "", "'a b'"),
        ("a#b", "", "'a#b'"),
        ("a$b", '"', "'a$b'"),
        ("a$b", "", "'a$b'"),
        ("it's", "", '"it\'s"'),
        ("it's", "'", '"it\'s"'),
        ("a\\b", '"', "'a\\b'"),
        ("", "", ""),
        ("", '"', '""'),
        ("a==", "", "a=="),
    ],
)
def test_quotes_are_kept_where_the_value_allows_it(value: str, quote: str, raw: str) -> None:
    assert encode(value, quote) == raw


@pytest.mark.parametrize(
    ("before", "value", "written"),
    [
        ("https://u:old@h/a?x=1&y=2", "https://u:n%2Fw@h/a?x=1&y=2", "https://u:n%2Fw@h/a?x=1&y=2"),
        ("https://u:old@h/a", "https://u:new@h/a?x=1", "'https://u:new@h/a?x=1'"),
        ("a?b", "c?d e", "'c?d e'"),
        ("a?b#c", "d?e#f", "'d?e#f'"),
        ("", "a?b", "'a?b'"),
    ],
)
def test_trap_31_a_value_without_quotes_gets_none_for_what_stood_there_before(
    before: str, value: str, written: str
) -> None:
    """Who reads quotes as a part of the value would get another one."""
    assert encode(value, before=before) == written
    assert parse(f"X={written}\n".encode()).lines[0].value == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "'\"", "'$x", "ends with \\'", "\x1b", "a${b}", "${:-b}c"])
def test_values_that_no_form_holds_are_refused(value: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        encode(value, name="KEY", where="/srv/.env")
    assert (caught.value.code, caught.value.where) == ("value-unwritable", "/srv/.env")
    assert value not in str(caught.value)


def test_what_a_reader_expands_stays_where_it_stood_before() -> None:
    """A password inside of a URL with a variable: only what is new is refused."""
    before = "'https://u:old@${HOST}/x'"
    assert encode("https://u:new@${HOST}/x", "'", before=before) == "'https://u:new@${HOST}/x'"
    with pytest.raises(KeyturnError, match=r"no \$\{NAME\}"):
        encode("https://u:${new}@${HOST}/x", "'", before=before)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("K='a'\t# c\n", "K", "a"),
        ("K=a\t\n", "K", "a"),
        ("export  K = v\n", "K", "v"),
        ("K=a #c\n", "K", "a"),
        ("K=a#c\n", "K", "a#c"),
        ("K='a #c' # d\n", "K", "a #c"),
        ('K="a\\"b\\nc"\n', "K", 'a"b\nc'),
        ("K='a\\'b'\n", "K", "a'b"),
        ("'K'=v\n", "K", "v"),
        ("K=price $ 5\n", "K", "price $ 5"),
        ("K='${OTHER}'\n", "K", "${OTHER}"),
        ("J=it's\nK=v\n", "K", "v"),
        ("J='a'b\nK=v\n", "K", "v"),
        ("K=\n", "K", ""),
        ("K\n", "K", None),
    ],
)
def test_values_are_read(text: str, name: str, value: str | None) -> None:
    assert _find(text.encode(), name).value == value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("K=${OTHER}\n", "variable-interpolated"),
        ('K="x${OTHER:-y}"\n', "variable-interpolated"),
        ("K=$OTHER\n", "variable-interpolated"),
        ("K=pa$$w\n", "variable-interpolated"),
        ("K=$(date)\n", "variable-interpolated"),
        ('K="a\\$b"\n', "variable-interpolated"),
        ("K='a'b\n", "variable-ambiguous"),
        ("K= # nothing\n", "variable-ambiguous"),
        ("K=a\t# Compose takes this for the value\n", "variable-ambiguous"),
        ("K=a\t#b # c\n", "variable-ambiguous"),
        ("K=1\nK=2\n", "variable-duplicate"),
        ("export K=1\nK='2'\n", "variable-duplicate"),
        ("J='x\nK=1\n", "env-file-invalid"),
        ('J="x\ny" z\nK=1\n', "env-file-invalid"),
        ("K=a\0\n", "env-file-invalid"),
    ],
)
def test_doubtful_values_are_refused_and_kept(text: str, code: str) -> None:
    data = text.encode()
    with pytest.raises(KeyturnError) as caught:
        edit(data, {"K": "new"}, "/srv/.env")
    assert (caught.value.code, caught.value.where) == (code, "/srv/.env")
    if code != "env-file-invalid":
        assert edit(data, {"OTHER": "new"}) == data + b"OTHER=new\n"


def test_trap_31_duplicates_are_named_with_their_lines() -> None:
    with pytest.raises(KeyturnError, match="KEY is set more than once, on lines 2, 5"):
        _find(b"# x\nKEY=1\nPEM='a\nb'\nexport KEY=2\n", "KEY")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"K=v\n"),
        (b"A=1", b"A=1\nK=v\n"),
        (b"A=1\r\n", b"A=1\r\nK=v\r\n"),
        (b"A=1\r\nB=2", b"A=1\r\nB=2\r\nK=v\r\n"),
        (b"# only a comment", b"# only a comment\nK=v\n"),
        (b"A=\xff\xfe\n", b"A=\xff\xfe\nK=v\n"),
    ],
)
def test_a_missing_key_is_added_and_taken_away_again(before: bytes, after: bytes) -> None:
    assert edit(before, {"K": "v"}) == after
    assert edit(after, {"K": None}, final_newline=before.endswith(b"\n") or not before) == before


def test_trap_31_every_form_at_once() -> None:
    data = b"\xef\xbb\xbfexport A='1' # a\r\n\r\n#A=9\r\n  B = 2 # b\r\nC=\"x\r\nA=7\r\ny\"\r\nD=e=$f==\r\nE=5"
    result = edit(data, {"A": "'one'", "B": "two", "E": "five"})
    assert result == (
        b"\xef\xbb\xbfexport A='one' # a\r\n\r\n#A=9\r\n  B = two # b\r\nC=\"x\r\nA=7\r\ny\"\r\nD=e=$f==\r\nE=five"
    )


def test_an_edit_that_would_not_read_back_is_refused() -> None:
    with pytest.raises(KeyturnError) as caught:
        edit(b"A=1\nB=2\n", {"A": "'open"}, "/srv/.env")
    assert caught.value.code == "edit-failed"
    with pytest.raises(KeyturnError):
        edit(b"A=1\n", {"A": "1\nC=3"}, "/srv/.env")


def test_documents_of_nothing_are_empty() -> None:
    assert parse(b"") == Document(())
