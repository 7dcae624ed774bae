# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""References to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.values import resolve

from tests.support.hosts import Host

_CONTEXT = "r1/KEY/new"


def _refusal(host: Host, reference: dict[str, Any]) -> KeyturnError:
    with pytest.raises(KeyturnError) as caught:
        resolve(host.session, reference, _CONTEXT)
    return caught.value


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"v", b"v"), (b"v\n", b"v"), (b"v\r\n", b"v"), (b"v\n\n", b"v\n"), (b" v ", b" v "), (b"\xff\x00", b"\xff\x00")],
)
def test_a_file_loses_one_line_end(tmp_path: Path, content: bytes, value: bytes) -> None:
    host = Host(tmp_path)
    assert resolve(host.session, {"file": str(host.write("key", content))}, _CONTEXT) == value


def test_every_source_leads_to_the_value(tmp_path: Path) -> None:
    host = Host(tmp_path)
    env = host.write(".env", b"A=1\nexport KEY='v #1' # c\n", 0o644)
    for reference in (
        {"env_file": str(env), "variable": "KEY"},
        {"sealed": host.box(b"v #1", "KEY", "new")},
        {"value": "v #1"},
        {"value": "v #1", "file": None, "variable": None},
    ):
        assert resolve(host.session, reference, _CONTEXT) == b"v #1"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_loose_file_is_refused(tmp_path: Path, mode: int) -> None:
    host = Host(tmp_path)
    path = host.write("key", b"v", mode)
    error = _refusal(host, {"file": str(path)})
    assert (error.code, error.where) == ("file-loose", str(path))


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"file": None},
        {"file": "/a", "value": "b"},
        {"env_file": "/a"},
        {"variable": "A"},
        {"file": "/a", "variable": "A"},
    ],
)
def test_exactly_one_source(tmp_path: Path, reference: dict[str, Any]) -> None:
    assert _refusal(Host(tmp_path), reference).code == "reference-invalid"


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    env, empty = host.write(".env", b"KEY=\n"), host.write("empty", b"\n")
    (tmp_path / "link").symlink_to("empty")
    assert _refusal(host, {"env_file": str(env), "variable": "KEY"}).code == "variable-missing"
    assert _refusal(host, {"env_file": str(env), "variable": "OTHER"}).code == "variable-missing"
    assert _refusal(host, {"file": str(empty)}).code == "value-empty"
    assert _refusal(host, {"file": str(tmp_path / "link")}).code == "file-unsafe"
    assert _refusal(host, {"file": str(tmp_path)}).code == "file-unsafe"
    missing = _refusal(host, {"file": str(tmp_path / "missing")})
    assert (missing.code, missing.hint) == ("file-missing", "Check the path"), "no catalog has to name it"


def test_a_box_for_something_else_does_not_open(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert _refusal(host, {"sealed": host.box(b"v", "KEY", "old")}).code == "box-invalid"
    host.session.close()
    assert _refusal(host, {"sealed": "AAAA"}).code == "session-missing"
