# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where evidence lies: one folder per event, one chain per secret, one head for the inventory.

::

    <dir>/<rotation_id>.<event>[-n]/evidence.json summary.json report.html fingerprint.sha256 [keyset.json]
                                    [evidence.json.sig signer.pem]
    <dir>/chains/<SECRET>.jsonl     one line per record of that secret
    <dir>/head.json                 the last record, and the end of each chain
    <dir>/lock
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import (
    canonical,
    check_record,
    line,
    parse,
)

__all__ = [
    "CHAINS",
    "EVIDENCE",
    "EXTRA_FILES",
    "FINGERPRINT",
    "HEAD",
    "LOCK",
    "REPORT",
    "SIGNATURE",
    "SIGNER",
    "SUMMARY",
    "TEMPORARY",
    "UNSIGNED_FILES",
    "chain_line",
    "chain_path",
    "check_whole",
    "entries",
    "fingerprint_text",
    "folders",
    "head_bytes",
    "locked",
    "read_chain",
    "read_chains",
    "read_document",
    "read_head",
]

CHAINS = "chains"
HEAD = "head.json"
LOCK = "lock"
EVIDENCE = "evidence.json"
SUMMARY = "summary.json"
REPORT = "report.html"
FINGERPRINT = "fingerprint.sha256"
SIGNATURE = "evidence.json.sig"
SIGNER = "signer.pem"
#: Files of a folder that the seal does not name; the others only where the record is signed.
UNSIGNED_FILES = frozenset({EVIDENCE, FINGERPRINT})
EXTRA_FILES = UNSIGNED_FILES | {SIGNATURE, SIGNER}
TEMPORARY = ".keyturn."  # what begins like this never got its name

_LOCK_SECONDS = 60.0
_CHAIN_FIELDS = {"position", "sequence", "record", "previous", "folder", "event", "at"}
_HEAD_FIELDS = {"schema_version", "sequence", "record", "folder", "chains"}
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.[a-z_]+(?:-[0-9]+)?")
_OWN_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@contextlib.contextmanager
def locked(directory: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of an evidence directory; a reader of a copy without lock file goes without.

    :raises KeyturnError: ``evidence-busy`` after 60 seconds.
    """
    path = os.path.join(directory, LOCK)
    try:
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if shared:
            yield
            return
        raise KeyturnError(
            "evidence-failed", f"cannot be opened ({error.strerror})", where=path, hint="Check space and permissions"
        ) from None
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise KeyturnError(
                        "evidence-busy",
                        "another process does not let go of it",
                        where=path,
                        hint="Look for a hung process",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def folders(directory: str) -> list[str]:
    """The names of the event folders, sorted: rotations by the form of the name, a person's own by the record in it."""

    def holds(item: os.DirEntry[str]) -> bool:
        if _FOLDER.fullmatch(item.name):
            return True
        return bool(_OWN_FOLDER.fullmatch(item.name)) and os.path.lexists(os.path.join(item.path, EVIDENCE))

    with os.scandir(directory) as found:
        return sorted(item.name for item in found if item.is_dir(follow_symlinks=False) and holds(item))


def read_document(directory: str, folder: str) -> tuple[dict[str, Any], bytes] | None:
    """The document in a folder and its bytes, or nothing when it is not a whole record of this folder."""
    try:
        raw = read_file(os.path.join(directory, folder, EVIDENCE))
        document = parse(raw)
        check_record(document, sealed=True)
    except KeyturnError:
        return None
    return (document, raw) if document["seal"]["folder"] == folder else None


def chain_path(directory: str, secret: str) -> str:
    """The file of a secret's chain."""
    return os.path.join(directory, CHAINS, f"{secret}.jsonl")


def chain_line(position: int, document: dict[str, Any], record: str, previous: str | None) -> dict[str, Any]:
    """One entry of a chain.

    :param position: counts the records of this secret, from 1.
    :param document: the record with its seal.
    :param record: SHA-256 of its bytes.
    :param previous: the same of the record before in this chain.
    """
    return {
        "position": position,
        "sequence": document["seal"]["sequence"],
        "record": record,
        "previous": previous,
        "folder": document["seal"]["folder"],
        "event": document["event"],
        "at": document["when"]["ended_at"],
    }


def entries(raw: bytes, where: str) -> list[dict[str, Any]]:
    """The entries of a chain file.

    :raises KeyturnError: ``evidence-damaged``.
    """
    found = []
    for number, text in enumerate(raw.splitlines(keepends=True), 1):
        try:
            entry = parse(text)
        except KeyturnError:
            entry = None
        if not isinstance(entry, dict) or set(entry) != _CHAIN_FIELDS or line(entry) != text:
            raise _damaged(f"{where}:{number}", "this line of a chain is damaged")
        found.append(entry)
    return found


def read_chain(directory: str, secret: str) -> list[dict[str, Any]]:
    """The entries of a secret's chain, the oldest first; empty when it has none yet."""
    path = chain_path(directory, secret)
    return entries(read_file(path), path) if os.path.lexists(path) else []


def read_chains(directory: str) -> dict[str, list[dict[str, Any]]]:
    """All chains by the name of their secret."""
    folder = os.path.join(directory, CHAINS)
    if not os.path.isdir(folder):
        return {}
    names = sorted(name[: -len(".jsonl")] for name in os.listdir(folder) if name.endswith(".jsonl"))
    return {name: read_chain(directory, name) for name in names}


def read_head(directory: str) -> dict[str, Any] | None:
    """The head, or nothing when there is none.

    :raises KeyturnError: ``evidence-damaged``.
    """
    path = os.path.join(directory, HEAD)
    if not os.path.lexists(path):
        return None
    try:
        head = parse(read_file(path))
    except KeyturnError:
        head = None
    if (
        not isinstance(head, dict)
        or set(head) != _HEAD_FIELDS
        or not isinstance(head["sequence"], int)
        or not isinstance(head["chains"], dict)
    ):
        raise _damaged(path, "the head of the evidence is damaged")
    return head


def check_whole(head: dict[str, Any] | None, chains: dict[str, list[dict[str, Any]]], directory: str) -> None:
    """Refuse chains without their head.

    :raises KeyturnError: ``evidence-damaged``.
    """
    if head is None and any(entry["sequence"] > 1 for chain in chains.values() for entry in chain):
        raise _damaged(os.path.join(directory, HEAD), "the head of the evidence is missing")


def head_bytes(document: dict[str, Any], record: str, chains: dict[str, str]) -> bytes:
    """The head after this record.

    :param chains: the last record of each chain, by secret.
    """
    seal = document["seal"]
    return canonical(
        {
            "schema_version": document["schema_version"],
            "sequence": seal["sequence"],
            "record": record,
            "folder": seal["folder"],
            "chains": chains,
        }
    )


def fingerprint_text(files: dict[str, str]) -> bytes:
    """Name to SHA-256, as ``sha256sum -c`` reads it."""
    return "".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()


def _damaged(where: str, what: str) -> KeyturnError:
    return KeyturnError(
        "evidence-damaged",
        what,
        where=where,
        hint="Run evidence_verify, and restore the file from a copy of the evidence",
    )
