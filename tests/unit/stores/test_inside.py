# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of variables and files: they follow their secret, and all around them stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import parse
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import Pattern, UrlPassword, open_place
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hosts import Host, codes

_YAML = b"db:\n  password: old-value  # here\n  user: app\ncache:\n  url: redis://:old-value@cache:6379/0\n"


def _env(path: Path, variable: str, **options: Any) -> dict[str, Any]:
    return {"type": "env_file", "path": str(path), "variable": variable, **options}


def _request(*stores: dict[str, Any], name: str = "DB_PASSWORD", new: str = "new-value") -> dict[str, Any]:
    return {"name": name, "stores": list(stores), "new": {"value": new}}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        (b"postgres://u:PW@db/app", b"PW"),
        (b"postgresql+psycopg://u:p%40s%2Fs@db:5432/app?sslmode=require", b"p@s/s"),
        (b"redis://:PW@cache:6379/0", b"PW"),
        (b"amqp://u:a@b@mq//", b"a@b"),
        (b"postgres://u:a:b@[::1]:5432/app", b"a:b"),
        (b"postgres://u:PW@one,two/app?x=y:z@w", b"PW"),
    ],
)
def test_the_password_of_a_url_is_found(url: bytes, password: bytes) -> None:
    place = UrlPassword()
    start, end = place.span(url, "x")
    assert place.decoded(url[start:end]) == password


@pytest.mark.parametrize(
    "text", [b"", b"db/app", b"postgres://db/app", b"postgres://u@db", b"postgres://u:@db", b"u:p@db"]
)
def test_what_has_no_password_is_refused(text: bytes) -> None:
    with pytest.raises(KeyturnError) as caught:
        UrlPassword().span(text, "/srv/.env URL")
    assert (caught.value.code, caught.value.where) == ("place-missing", "/srv/.env URL")


@given(st.text(min_size=1))
def test_any_password_reads_back_as_a_url_library_reads_it(value: str) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        return
    url = f"postgres://u:{UrlPassword().encoded(raw).decode()}@db/app"
    password = urlsplit(url).password
    assert password is not None
    assert unquote(password) == value
    start, end = UrlPassword().span(url.encode(), "x")
    assert UrlPassword().decoded(url.encode()[start:end]) == raw


@pytest.mark.parametrize(
    "inside", ["uri", {"pattern": "("}, {"pattern": "a"}, {"pattern": "(a)(b)"}, {"pattern": 1}, {}, {"url": True}]
)
def test_places_that_are_none_are_refused(inside: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        open_place(inside)
    assert caught.value.code == "store-invalid"


@pytest.mark.parametrize(("text", "code"), [(b"k=1\nk=2\n", "place-several"), (b"x\n", "place-missing")])
def test_a_pattern_finds_exactly_one(text: bytes, code: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        Pattern(r"^k=(.+)$").span(text, "x")
    assert caught.value.code == code


def test_a_url_follows_its_secret_and_comes_back_to_the_byte(host: Host) -> None:
    content = b"PW='a/b+c'\nexport URL=\"postgres://u:a%2fb%2Bc@db/app\" # main\r\nOTHER=x"
    path = host.write(".env", content)
    request = _request(_env(path, "PW"), _env(path, "URL", inside="url"), new="n/w@1")
    for state, expected in (
        ("staged", content),
        ("promoted", content.replace(b"a/b+c", b"n/w@1").replace(b"a%2fb%2Bc", b"n%2Fw%401")),
        ("rolled_back", content),
    ):
        told = host.turn(state, request, check=True)
        done = host.turn(state, request)
        assert path.read_bytes() == expected
        assert told["diff"] == done["diff"]
        again = host.turn(state, request)
        assert (again["changed"], again["diff"]) == (False, [])
        stores = {store["variable"]: store["holds"] for store in done["secrets"]["DB_PASSWORD"]["stores"]}
        assert stores == dict.fromkeys(["PW", "URL url"], "new" if state == "promoted" else "old")
    assert b"a/b" not in repr(done).encode()


def test_places_in_one_file_turn_together_and_what_is_around_them_may_change(host: Host) -> None:
    path = host.write("settings.yml", _YAML)
    stores = [
        {"type": "file", "path": str(path), "inside": {"pattern": r"^  password: (\S+)"}},
        {"type": "file", "path": str(path), "inside": {"pattern": r"redis://:([^@]+)@"}},
    ]
    host.turn("staged", _request(*stores))
    host.turn("promoted", _request(*stores))
    assert path.read_bytes() == _YAML.replace(b"old-value", b"new-value")
    path.write_bytes(path.read_bytes().replace(b"user: app", b"user: other"))
    host.turn("rolled_back", _request(*stores))
    assert path.read_bytes() == _YAML.replace(b"user: app", b"user: other")


def test_two_secrets_have_places_in_one_variable(host: Host) -> None:
    path = host.write(".env", b"URL=postgres://owner1:old-value@db/app\n")
    requests = [
        _request(_env(path, "URL", inside="url")),
        _request(_env(path, "URL", inside={"pattern": "//([^:]+):"}), name="DB_USER", new="owner2"),
    ]
    for state in ("staged", "promoted"):
        host.turn(state, *requests)
    assert path.read_bytes() == b"URL=postgres://owner2:new-value@db/app\n"
    host.turn("rolled_back", *requests)
    assert path.read_bytes() == b"URL=postgres://owner1:old-value@db/app\n"


def test_drift_in_the_place_is_seen_and_around_it_is_not(host: Host) -> None:
    path = host.write(".env", b"URL=postgres://u:old-value@db/app\n")
    request = _request(_env(path, "URL", inside="url"))
    host.turn("staged", request)
    path.write_bytes(b"URL=postgres://u:old-value@other/app\n")
    host.turn("promoted", request)
    path.write_bytes(b"URL=postgres://u:third@other/app\n")
    with pytest.raises(KeyturnError) as caught:
        host.turn("retired", request)
    assert caught.value.code == "store-drifted"
    assert "third" not in str(caught.value)


def test_a_whole_and_a_part_of_it_do_not_go_together(host: Host) -> None:
    path = host.write(".env", b"URL=postgres://u:old-value@db/app\n")
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", _request(_env(path, "URL", inside="url")), _request(_env(path, "URL"), name="URL"))
    assert caught.value.code == "store-twice"


@pytest.mark.parametrize("options", [{"layout": "list"}, {"layout": "pair"}, {"if_missing": "add"}])
def test_a_part_is_one_version_of_something_that_is_there(host: Host, options: dict[str, str]) -> None:
    path = host.write(".env", b"URL=postgres://u:old-value@db/app\n")
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", _request(_env(path, "URL", inside="url", **options)))
    assert caught.value.code == "store-invalid"


def test_a_value_that_would_break_its_place_is_refused(host: Host) -> None:
    path = host.write("a.conf", b"key=old-value;\n")
    store = {"type": "file", "path": str(path), "inside": {"pattern": "key=([^;]+);"}}
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", _request(store, new="a;b"))
    assert caught.value.code == "value-unwritable"
    assert path.read_bytes() == b"key=old-value;\n"


def test_a_url_that_refers_to_another_variable_is_refused(host: Host) -> None:
    path = host.write(".env", b"PW=old-value\nURL=postgres://u:${PW}@db/app\n")
    found = host.look(_request(_env(path, "PW"), _env(path, "URL", inside="url")))
    assert codes(found["problems"]) == ["variable-interpolated"]
    host.turn("staged", _request(_env(path, "PW")))
    host.turn("promoted", _request(_env(path, "PW")))
    document = parse(path.read_bytes())
    assert document.lines[1].raw == "postgres://u:${PW}@db/app"
    assert quote("new-value") in path.read_text()
