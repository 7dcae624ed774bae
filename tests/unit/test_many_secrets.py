# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thirty secrets in three files in one call: exactly the named values differ, or nothing does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.dotenv import parse

from tests.support.hosts import Host

_NAMES = [f"SECRET_{number:02}" for number in range(30)]
_FILES = ["one.env", "two.env", "three.env"]
#: As people write them, by number.
_FORMS = [
    "{name}={value}\n",
    "export {name}='{value}' # mine\n",
    '{name}="{value}"\r\n',
    "  {name} = {value}   # spaced\n",
    "# {name}=in-a-comment\n{name}={value}\nREF_{name}=${{{name}}}/x\n",
]
_LABEL = b"system_u:object_r:container_file_t:s0\0"


def _content(number: int) -> bytes:
    lines = [
        _FORMS[(index + number) % len(_FORMS)].format(name=name, value=f"old-value-of-{name}")
        for index, name in enumerate(_NAMES)
    ]
    return ("OTHER=1\n" + "\n".join(lines) + "\nLAST='kept'").encode()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.fixture
def files(host: Host) -> list[Path]:
    return [host.write(name, _content(number), 0o640) for number, name in enumerate(_FILES)]


def _requests(files: list[Path]) -> list[dict[str, Any]]:
    stores = [{"type": "env_file", "path": str(path)} for path in files]
    generate = {"type": "string", "length": 40}
    return [{"name": name, "origin": True, "generate": generate, "stores": stores} for name in _NAMES]


def _expected(host: Host, before: bytes) -> bytes:
    for name in _NAMES:
        value = host.version(name, "new")
        assert value is not None
        before = before.replace(f"old-value-of-{name}".encode(), value)
    return before


def test_exactly_the_named_values_differ_in_every_file(host: Host, files: list[Path]) -> None:
    before = [path.read_bytes() for path in files]
    requests = _requests(files)
    host.turn("staged", *requests)
    assert [path.read_bytes() for path in files] == before
    told = host.turn("promoted", *requests, check=True)
    assert [path.read_bytes() for path in files] == before
    done = host.turn("promoted", *requests)
    assert told["diff"] == done["diff"]
    assert [path.read_bytes() for path in files] == [_expected(host, content) for content in before]
    assert not host.turn("promoted", *requests)["changed"]
    host.turn("rolled_back", *requests)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda text: text + b"\nSECRET_17=again\n", "variable-duplicate"),
        (lambda text: text.replace(b"SECRET_20", b"GONE_20"), "variable-missing"),
        (lambda text: text.replace(b"old-value-of-SECRET_03", b"${OTHER}-x"), "variable-interpolated"),
        (lambda text: text.replace(b"LAST='kept'", b"LAST='kept"), "env-file-invalid"),
        (lambda text: text.replace(b"old-value-of-SECRET_11", b"third"), "stores-disagree"),
    ],
)
def test_trap_31_one_that_is_wrong_leaves_all_files_as_they_are(
    host: Host, files: list[Path], spoil: Any, code: str
) -> None:
    files[1].write_bytes(spoil(files[1].read_bytes()))
    before = [path.read_bytes() for path in files]
    with pytest.raises(KeyturnError) as caught:
        host.turn("staged", *_requests(files))
    assert caught.value.code == code
    assert str(files[1]) in str(caught.value) or code == "stores-disagree"
    assert [path.read_bytes() for path in files] == before
    assert all(host.version(name, "new") is None for name in _NAMES)


def test_trap_27_mode_owner_and_label_stay(host: Host, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    os.setxattr(files[0], "security.selinux", _LABEL)
    os.chown(files[1], 4711, 4712)
    requests = _requests(files)
    seen: set[int] = set()
    real = os.rename

    def rename(source: str, target: str) -> None:
        seen.add(os.stat(source).st_mode & 0o077)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    host.turn("staged", *requests)
    assert seen == {0}
    host.turn("promoted", *requests)
    assert os.getxattr(files[0], "security.selinux") == _LABEL
    status = files[1].stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o640)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    document = parse(files[1].read_bytes())
    assert [line.value for line in document.lines if line.name == "LAST"] == ["kept"]


def test_the_call_does_not_read_a_file_for_each_secret(
    host: Host, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = _requests(files)
    host.turn("staged", *requests)
    opened: list[str] = []
    real = os.open

    def counted(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", counted)
    host.turn("promoted", *requests)
    assert [opened.count(str(path)) <= 3 for path in files] == [True] * 3
