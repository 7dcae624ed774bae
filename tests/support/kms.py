# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key management service as commands: ``kms.py FOLDER read|provision|promote|remove``, its keyset a file.

A file ``fail-<command>`` in the folder makes that command do its work and fail; ``ignore-<command>`` makes it do
nothing and end well; ``refuse-<command>`` nothing, and fail; with ``mangle-<command>`` it stores another key; with
``beside-<command>`` somebody else provisions a key and promotes it in the same moment. With ``strict`` it fails where
nothing is to be done. Every call is noted with what it was given, without keys.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

__all__ = ["BESIDE", "Kms"]

#: The kid and the key that somebody else provisions.
BESIDE = ("beside", "canary-beside-8hB3nQ6vX1")


class Kms:
    """The service below a test's folder."""

    def __init__(self, folder: Path, keys: dict[str, str], active: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "keyset.json"
        self.file.touch(0o600)
        self.file.write_text(json.dumps({"active_kid": active, "keys": keys}))

    def store(self) -> dict[str, object]:
        """The store of a catalog."""
        command = [sys.executable, str(Path(__file__).resolve()), str(self.folder)]
        names = ("read", "provision", "promote", "remove")
        return {"type": "keyset_command", **{name: [*command, name] for name in names}}

    @property
    def content(self) -> dict[str, object]:
        """What it holds."""
        found: dict[str, object] = json.loads(self.file.read_text())
        return found

    @property
    def calls(self) -> list[str]:
        """The changing commands and the kids they were given."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def fault(self, name: str, *, there: bool = True) -> None:
        """Make a command fail or do nothing, or mend it."""
        path = self.folder / name
        if there:
            path.touch()
        else:
            path.unlink()


def _main(folder: Path, command: str) -> int:
    keyset = json.loads((folder / "keyset.json").read_text())
    if command == "read":
        print(json.dumps(keyset))
    else:
        given = json.loads(sys.stdin.readline())
        with (folder / "calls").open("a") as calls:
            calls.write(f"{command} {given['kid']}\n")
        if (folder / f"ignore-{command}").exists():
            return 0
        is_in_vain = (given["kid"] in keyset["keys"]) != (command != "provision")
        if (folder / f"refuse-{command}").exists() or (is_in_vain and (folder / "strict").exists()):
            print("the key is", given)
            return 4
        if (folder / f"beside-{command}").exists():
            keyset["active_kid"] = BESIDE[0]
            keyset["keys"][BESIDE[0]] = BESIDE[1]
        if command == "provision":
            is_mangled = (folder / "mangle-provision").exists()
            keyset["keys"][given["kid"]] = given["key"].upper() if is_mangled else given["key"]
        elif command == "promote":
            keyset["active_kid"] = given["kid"]
        else:
            del keyset["keys"][given["kid"]]
        (folder / "new").write_text(json.dumps(keyset))
        (folder / "new").rename(folder / "keyset.json")
    if (folder / f"fail-{command}").exists():
        print("the key is", keyset, file=sys.stderr)
        print("the key is", keyset)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2]))
