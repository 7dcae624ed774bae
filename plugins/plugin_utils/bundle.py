# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle for somebody who looks into a fault: what the files say, and writing them. It holds no value.

What is known by its place to be harmless is kept; of the rest, the shape: a command's words, a header's value and a
body are left out, and what looks like private material is masked wherever it stands.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import private_dir, write_file, write_files
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.material import MASK, redact

__all__ = ["bundle_files", "shown_catalog", "write_bundle"]

_COMMANDS = ("start", "stop", "restart", "command", "read", "provision", "promote", "remove")
_TEXTS = ("body", "expect_body", "options", "dsn")
#: Fields whose names look like a secret's and hold none.
_PLAIN = ("secrets", "secret", "keyturn_secrets", "sees_alive")


def _url(text: str) -> str:
    """An address without login and query."""
    parts = urllib.parse.urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, MASK if parts.query else "", ""))


def _shown(key: str, value: Any) -> Any:
    if key in _COMMANDS and isinstance(value, (list, tuple)):
        return [*map(str, value[:1]), f"and {len(value) - 1} more words"] if len(value) > 1 else list(value)
    if key in _TEXTS:
        return MASK
    if key == "headers" and isinstance(value, Mapping):
        return dict.fromkeys(map(str, value), MASK)
    if key == "headers" and isinstance(value, (list, tuple)):
        return [_shown("", {**entry, "text": MASK} if "text" in entry else entry) for entry in value]
    if key in ("url", "path") and isinstance(value, str):
        return _url(value)
    if isinstance(value, Mapping):
        return {str(name): _shown(str(name), entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown("", entry) for entry in value]
    return value


def shown_catalog(
    secrets: Mapping[str, Any], services: Mapping[str, Any], databases: Mapping[str, Any]
) -> dict[str, Any]:
    """The catalog as it was loaded, without what may be a value."""
    # Names stand apart from the fields: a secret may be called like one
    return {
        part: [{"name": name, **_shown("", entry)} for name, entry in sorted(entries.items())]
        for part, entries in (("secrets", secrets), ("services", services), ("databases", databases))
    }


def bundle_files(
    planned: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]],
    health: Mapping[str, Mapping[str, Any]],
    controller: Mapping[str, Any],
    lines: Sequence[str],
) -> dict[str, bytes]:
    """The files of a bundle by their path in it.

    :param planned: what ``rotation_plan`` returned with the mode ``diagnose``, or how it failed.
    :param found: what ``diagnose_info`` returned, or how it failed, by host.
    :param health: what ``service_health`` returned, or how it failed, by host.
    :param controller: versions of the controller.
    :param lines: the status for people.
    """
    keep = [*_PLAIN, *(str(row["name"]) for row in planned.get("secrets", ()))]

    def masked(content: Any) -> bytes:
        return json.dumps(redact(content, keep=keep), indent=1, sort_keys=True, default=str).encode() + b"\n"

    hosts = {host: _host(said, health.get(host, {})) for host, said in sorted(found.items())}
    files = {
        "status.txt": ("\n".join(lines).strip() + "\n").encode(),
        "versions.json": masked(
            {"controller": controller, "hosts": {host: said.get("system") for host, said in sorted(found.items())}}
        ),
        "catalog.json": masked(planned.get("catalog") or {"failed": planned.get("msg", "the catalog was not read")}),
        "register.json": masked({"rotations": planned.get("rotations"), "agenda": planned.get("agenda")}),
        "hosts.json": masked(hosts),
    }
    for said in found.values():
        for rotation_id, entries in (said.get("journals") or {}).items():
            text = b"".join(json.dumps(redact(entry, keep=keep), sort_keys=True).encode() + b"\n" for entry in entries)
            files[f"journals/{rotation_id}.jsonl"] = text
        for folder, record in (said.get("evidence") or {}).items():
            files[f"evidence/{folder}.json"] = masked(record)
    return files


def _host(said: Mapping[str, Any], health: Mapping[str, Any]) -> dict[str, Any]:
    if said.get("unreachable"):
        return {"failed": "cannot be reached"}
    if "system" not in said:
        return {"failed": said.get("msg", "said nothing")}
    kept = {key: said[key] for key in ("disk_free", "clock", "uid", "state", "problems")}
    return {**kept, "health": health.get("services") or health.get("msg") or {}}


def write_bundle(files: Mapping[str, bytes], to: str) -> None:
    """Write a bundle: one archive where the name ends in ``.tar.gz``, else a folder. All of it is private.

    :raises KeyturnError: ``bundle-exists``; a bundle never replaces anything.
    """
    if os.path.lexists(to):
        raise KeyturnError(
            "bundle-exists", "is there already", where=to, hint="Name another place: keyturn_diagnose_to"
        )
    if not to.endswith(".tar.gz"):
        for folder in sorted({os.path.dirname(os.path.join(to, path)) for path in files}):
            private_dir(folder)
        write_files({os.path.join(to, path): content for path, content in files.items()}, 0o600)
        return
    top = os.path.basename(to)[: -len(".tar.gz")]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    if not os.path.isdir(os.path.dirname(to)):
        private_dir(os.path.dirname(to))
    write_file(to, packed.getvalue(), 0o600)
