# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was logged since a time: files with their rotated ones, a journal that systemd wrote, containers' output."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate, kid_in
from ansible_collections.keyturn.rotation.plugins.module_utils.logs.counting import (
    Counted,
    count,
    holding,
    names,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.logs.sources import Line, lines_since, source_of
from ansible_collections.keyturn.rotation.plugins.module_utils.logs.times import time_of

from tests.support.endpoint import Asked, endpoint

#: 2026-11-21T10:00:00Z
TEN = 1795255200.0
USE = r"kid=old client=(?P<who>\S+)"
_CANARY = "canaryT4mZ8xQ1vB6nK3pW"


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host whose time is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def texts(declared: dict[str, Any], since: float = TEN) -> list[str]:
    return [line.text for line in lines_since(declared, since, "log")]


def stamped(path: Path, when: float) -> Path:
    os.utime(path, (when, when))
    return path


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("2026-11-21T10:00:00Z auth.token phase=full_scan", TEN),
        ("2026-11-21T10:00:00.123456+00:00 x", TEN),
        ("2026-11-21T12:00:00+0200 x", TEN),
        ("2026-11-21T05:30:00-04:30 x", TEN),
        ("2026-11-21 11:00:00,250 INFO of this host's own zone", TEN),
        ("2026/11/21 11:00:00 [error] nginx", TEN),
        ('10.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET /" 401', TEN),
        ("Nov 21 11:00:00 host app[1]: x", TEN),
        ("<13>Nov 21 11:00:00 host app: x", TEN),
        ('{"level":"info","ts":1795255200.5,"msg":"x"}', TEN),
        ('{"time":1795255200250,"msg":"x"}', TEN + 0.25),
        ("time=1795255200 level=info", TEN),
        ("Dec 24 11:00:00 host app: of the year before", TEN - 332 * 86400),
        ("2026-13-41T10:00:00Z", None),
        ("no time at all", None),
        ("Nov21", None),
        ("x" * 300 + "2026-11-21T10:00:00Z", None),
    ],
)
def test_when_a_line_was_written(line: str, seconds: float | None) -> None:
    assert time_of(line, TEN + 3600) == seconds


# -- files -------------------------------------------------------------------------------------------------------------


def test_only_what_was_written_since(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("2026-11-21T09:59:59Z early\n  of the same entry\n2026-11-21T10:00:00Z late\n  trace\n\nlast")
    assert texts({"path": str(log)}) == ["2026-11-21T10:00:00Z late", "  trace", "", "last"]


def test_a_line_without_any_time_is_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("kid=old client=a\n2026-11-21T10:00:01Z kid=old client=b\n")
    found = count(lines_since({"path": str(log)}, TEN, "log"), USE)
    assert (found.lines, found.matches, found.dated, found.who) == (2, 2, 1, ("a", "b"))


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [
        (".1", lambda data: data),
        ("-20261121", lambda data: data),
        (".1.gz", gzip.compress),
        ("-20261121.gz", gzip.compress),
        (".2026-11-21.gz", gzip.compress),
        ("-20261121-1795255200.bz2", bz2.compress),
        (".2.xz", lzma.compress),
    ],
)
def test_rotated_files_are_read_too_the_oldest_first(
    tmp_path: Path, suffix: str, packed: Callable[[bytes], bytes]
) -> None:
    log = tmp_path / "app.log"
    log.write_text("2026-11-21T10:05:00Z second\n")
    rotated = tmp_path / f"app.log{suffix}"
    rotated.write_bytes(packed(b"2026-11-21T10:01:00Z first\n"))
    stamped(rotated, TEN + 120)
    stamped(log, TEN + 300)
    (tmp_path / "app.log.bak").write_text("2026-11-21T10:01:00Z no log\n")
    old = tmp_path / "app.log.9"
    old.write_text("2026-11-21T10:01:00Z written before, says its time\n")
    stamped(old, TEN - 3600)
    assert [text.split()[1] for text in texts({"path": [str(log)]})] == ["first", "second"]


def test_several_logs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"2026-11-21T10:05:00Z {name}\n")
    assert len(texts({"path": [str(tmp_path / "a"), str(tmp_path / "b")]})) == 2


def test_trap_38_what_cannot_be_read_is_an_error_and_not_silence(tmp_path: Path) -> None:
    broken = tmp_path / "app.log.1.gz"
    broken.write_bytes(gzip.compress(b"2026-11-21T10:05:00Z x\n" * 999)[:-20])
    (tmp_path / "app.log").write_text("2026-11-21T10:05:00Z x\n")
    (tmp_path / "new.log.1.zst").write_bytes(b"x")
    for path in ("none.log", "app.log", "new.log"):
        with pytest.raises(KeyturnError) as caught:
            texts({"path": str(tmp_path / path)})
        assert caught.value.code == "log-unreadable"


def test_a_line_that_never_ends_does_not_fill_the_memory(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"2026-11-21T10:05:00Z " + b"x" * 1_000_000 + b"\xff\n")
    assert len(texts({"path": str(log)})) == 4


@pytest.mark.parametrize("declared", [{}, {"path": "/a", "unit": "b"}])
def test_a_log_has_one_source(declared: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError, match="exactly one source"):
        source_of(declared, "log")


# -- the journal -------------------------------------------------------------------------------------------------------

#: When the last three entries of the journal were written, less a second.
JOURNAL = 1795303382.4


@pytest.fixture
def journal(tmp_path: Path) -> dict[str, Any]:
    """A folder with a journal file that systemd-journald wrote."""
    vector = Path(__file__).parents[2] / "vectors" / "gateway.journal.gz"
    (tmp_path / "system.journal").write_bytes(gzip.decompress(vector.read_bytes()))
    return {"unit": "gateway.service", "directory": str(tmp_path)}


def test_the_journal_of_a_unit_since_a_time(journal: dict[str, Any]) -> None:
    assert texts(journal, 0) == [
        "jwt verified kid=old-kid client=reports",
        "jwt verified kid=new-kid client=web",
        "binary \ufffd\ufffd kid=new-kid client=app",
    ]
    assert [text.split()[0] for text in texts(journal, JOURNAL)] == ["jwt", "binary"]
    assert texts({**journal, "unit": "other.service"}, 0) == ["jwt verified kid=old-kid client=elsewhere"]


def test_trap_38_a_journal_that_cannot_be_read_is_an_error(journal: dict[str, Any], monkeypatch: Any) -> None:
    with pytest.raises(KeyturnError, match="journalctl ended"):
        texts({**journal, "directory": "/no/such/folder"}, 0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KeyturnError, match="cannot be started"):
        texts(journal, 0)


# -- containers --------------------------------------------------------------------------------------------------------


def _engine(asked: Asked) -> tuple[int, dict[str, str], str]:
    """What Docker Engine answers (API 1.44): one container of a service, its output in frames of the raw stream."""
    path, _mark, query = asked.path.partition("?")
    kind = {"Content-Type": "application/json"}
    if path == "/version":
        return 200, kind, json.dumps({"ApiVersion": "1.44", "MinAPIVersion": "1.24"})
    if path.endswith("/containers/json"):
        if "service%3Dapi" not in query:
            return 200, kind, "[]"
        return 200, kind, json.dumps([{"Id": "c1", "Names": ["/shop-api-1"], "State": "running", "Labels": {}}])
    if path.endswith("/c1/json"):
        return 200, kind, json.dumps({"Config": {"Tty": False}})
    assert f"since={int(TEN) - 2}" in query
    assert "timestamps=1" in query
    lines = [
        "2026-11-21T09:59:59.123456789Z too early\n",
        "2026-11-21T10:00:01.123456789Z kid=old client=a\n",
        "2026-11-21T10:00:02.123456789Z kid=old ",
        "client=b\n",
    ]
    body = "".join(f"\x01\0\0\0\0\0\0{chr(len(line))}{line}" for line in lines)
    return 200, {"Content-Type": "application/vnd.docker.multiplexed-stream"}, body


def test_the_output_of_a_services_containers() -> None:
    with endpoint(_engine) as here:
        place = {"service": "api", "project": "shop", "docker_host": f"tcp://127.0.0.1:{here.port}"}
        assert texts(place) == ["kid=old client=a", "kid=old client=b"]
        with pytest.raises(KeyturnError, match="no container"):
            texts({**place, "service": "other"})
    with pytest.raises(KeyturnError) as caught:
        texts(place)
    assert caught.value.code == "docker-unreachable"


# -- counting ----------------------------------------------------------------------------------------------------------


def test_who_is_named_once_masked_and_cut() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLWlzLWhlcmU"
    lines = [Line(f"kid=old client={who}") for who in ("b", "a", "b", token, "x" * 99, *map(str, range(20)))]
    shown = names(count(lines, USE))
    assert shown.startswith("b, a, ********, " + "x" * 60 + ", 0, ")
    assert shown.endswith("and 14 more")
    assert names(Counted()) == ""


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
@pytest.mark.parametrize("form", ["jwk", "pem"])
def test_a_part_of_a_private_key_is_enough_to_be_found(kind: str, form: str) -> None:
    value = generate({"type": kind, "format": form}, os.urandom)
    part = json.loads(value)["d"] if form == "jwk" else value.decode().splitlines()[1]
    logged = [f"loaded {part}"]
    assert holding([Line(text) for text in ["well", *logged]], value).matches == 1
    other = generate({"type": kind, "format": form}, os.urandom)
    assert holding([Line(text) for text in logged], other).matches == 0


@pytest.mark.parametrize(
    "logged",
    [
        f"token={_CANARY}/+ x",
        "Authorization: Basic Y2FuYXJ5VDRtWjh4UTF2QjZuSzNwVy8r",
        f"GET /?t={_CANARY}%2F%2B",
        json.dumps({"token": f"{_CANARY}/+"}),
    ],
)
def test_a_value_is_found_in_its_forms(logged: str) -> None:
    assert holding([Line("nothing"), Line(logged)], f"{_CANARY}/+".encode()) == Counted(2, 1, 1)


def test_a_short_value_cannot_be_told_from_chance() -> None:
    with pytest.raises(KeyturnError, match="too short"):
        holding([], b"secret")


def test_the_kid_of_a_value() -> None:
    key = generate({"type": "ec"}, os.urandom)
    assert kid_in(key) == json.loads(key)["kid"]
    unnamed = {name: value for name, value in json.loads(key).items() if name != "kid"}
    assert kid_in(json.dumps(unnamed).encode()) == json.loads(key)["kid"]
    assert [kid_in(value) for value in (b"text", b"7", b"{}", b"\xff")] == ["", "", "", ""]
