# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seal a record: folder, chains, head, in this order, so that a crash in between leaves what the next call completes.

The rename of the folder is the moment at which the record exists. Everything after it can be told from the record.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import (
    fsync_dir,
    private_dir,
    read_file,
    write_file,
    write_files,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import report, store
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import Signer

__all__ = ["Sealed", "seal"]


@dataclass(frozen=True)
class Sealed:
    """What :func:`seal` did.

    :param changed: whether a new record was (in check mode: would be) sealed.
    :param path: its folder.
    :param report: its page for people.
    :param digest: SHA-256 of its ``evidence.json``; empty in check mode. Kept elsewhere, it proves the chain.
    :param sequence: its number in the inventory.
    :param summary: the content of ``summary.json``.
    :param problems: what stood in the way of copies or was found beside the chain; plain sentences.
    """

    changed: bool
    path: str
    report: str
    digest: str
    sequence: int
    summary: dict[str, Any]
    problems: list[str] = field(default_factory=list)


def seal(
    directory: str,
    record: dict[str, Any],
    *,
    now: str,
    signer: Signer | None = None,
    copies: Iterable[str] = (),
    check_mode: bool = False,
) -> Sealed:
    """Seal ``record`` in ``directory``; the same record again changes nothing.

    :param record: in the shape of ``schema.RECORD``.
    :param now: the time of sealing, UTC, ISO 8601 with ``Z``.
    :param copies: further directories that get every folder, the chains and the head.
    :raises KeyturnError: ``evidence-invalid``, ``evidence-material``, ``evidence-damaged``, ``evidence-busy``,
        ``event-exists`` for a person's own event.
    """
    records.check_record(record)
    if check_mode:
        return _preview(directory, record, now)
    private_dir(directory)
    private_dir(os.path.join(directory, store.CHAINS))
    with store.locked(directory):
        _sweep(directory)
        problems = _complete(directory)
        known = _same_record(directory, record)
        if known is None:
            document, raw = _write_folder(directory, record, now, signer)
            _enter(directory, document, raw)
        else:
            document, raw = known
        for copy in copies:
            problems += _copy(directory, copy)
    folder = os.path.join(directory, document["seal"]["folder"])
    return Sealed(
        changed=known is None,
        path=folder,
        report=os.path.join(folder, store.REPORT),
        digest=records.digest(raw),
        sequence=document["seal"]["sequence"],
        summary=records.summary(record, document["seal"]),
        problems=problems,
    )


def _preview(directory: str, record: dict[str, Any], now: str) -> Sealed:
    """What sealing would do; writes nothing, also no lock file."""
    known = _same_record(directory, record) if os.path.isdir(directory) else None
    if known is not None:
        seal_part, record_digest = known[0]["seal"], records.digest(known[1])
    else:
        head = store.read_head(directory) if os.path.isdir(directory) else None
        name = _free_name(directory, record)
        seal_part, record_digest = (
            {"sequence": head["sequence"] + 1 if head else 1, "folder": name, "sealed_at": now},
            "",
        )
    folder = os.path.join(directory, seal_part["folder"])
    return Sealed(
        changed=known is None,
        path=folder,
        report=os.path.join(folder, store.REPORT),
        digest=record_digest,
        sequence=seal_part["sequence"],
        summary=records.summary(record, seal_part),
    )


def _free_name(directory: str, record: dict[str, Any]) -> str:
    number = 1
    while os.path.lexists(os.path.join(directory, records.folder_name(record, number))):
        if record["event"] == "captured":  # a person has chosen the name, so it is this one or none
            raise KeyturnError(
                "event-exists",
                "there is another event of this name",
                where=os.path.join(directory, records.folder_name(record)),
                hint="Evidence is never overwritten. Choose another event id",
            )
        number += 1
    return records.folder_name(record, number)


def _same_record(directory: str, record: dict[str, Any]) -> tuple[dict[str, Any], bytes] | None:
    """The sealed document with exactly this content, if there is one."""
    wanted = records.canonical(record)
    number = 1
    while os.path.isdir(os.path.join(directory, records.folder_name(record, number))):
        found = store.read_document(directory, records.folder_name(record, number))
        if found is not None and records.canonical({k: v for k, v in found[0].items() if k != "seal"}) == wanted:
            return found
        number += 1
    return None


def _sweep(directory: str) -> None:
    """Remove what a crash left under temporary names."""
    for name in os.listdir(directory):
        if name.startswith(store.TEMPORARY):
            path = os.path.join(directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
    chains = os.path.join(directory, store.CHAINS)
    for name in os.listdir(chains):
        if name.startswith(store.TEMPORARY):
            os.unlink(os.path.join(chains, name))


def _complete(directory: str) -> list[str]:
    """Enter a record whose folder was made before a crash; report folders that belong to no chain."""
    head = store.read_head(directory)
    chains = store.read_chains(directory)
    lines = [entry for chain in chains.values() for entry in chain]
    last = head["sequence"] if head else 0
    store.check_whole(head, chains, directory)
    entered = {entry["folder"] for entry in lines if entry["sequence"] <= last}
    problems = []
    for folder in store.folders(directory):
        if folder in entered:
            continue
        found = store.read_document(directory, folder)
        if found is not None and _follows(head, chains, *found):
            _enter(directory, *found)
            head, chains = store.read_head(directory), store.read_chains(directory)
        else:
            problems.append(f"{os.path.join(directory, folder)} belongs to no chain. Run evidence_verify.")
    return problems


def _follows(
    head: dict[str, Any] | None, chains: dict[str, list[dict[str, Any]]], document: dict[str, Any], raw: bytes
) -> bool:
    """Whether a record without entry is the very next one."""
    part = document["seal"]
    if part["sequence"] != (head["sequence"] + 1 if head else 1):
        return False
    if part["inventory_previous"] != (head["record"] if head else None):
        return False
    record = records.digest(raw)
    for name, previous in part["previous"].items():
        chain = chains.get(name, [])
        tip = chain[-1]["record"] if chain else None
        if tip not in (previous, record):
            return False
    return True


def _enter(directory: str, document: dict[str, Any], raw: bytes) -> None:
    """Append the record to its chains where it is not yet, then move the head. Doing it twice does no harm."""
    record = records.digest(raw)
    for name, previous in document["seal"]["previous"].items():
        chain = store.read_chain(directory, name)
        if chain and chain[-1]["record"] == record:
            continue
        entry = store.chain_line(len(chain) + 1, document, record, previous)
        write_file(store.chain_path(directory, name), b"".join(records.line(item) for item in [*chain, entry]), 0o600)
    head = store.read_head(directory)
    tips = {**(head["chains"] if head else {}), **dict.fromkeys(document["seal"]["previous"], record)}
    write_file(os.path.join(directory, store.HEAD), store.head_bytes(document, record, tips), 0o600)


def _write_folder(
    directory: str, record: dict[str, Any], now: str, signer: Signer | None
) -> tuple[dict[str, Any], bytes]:
    """Make the folder under a temporary name, whole and on the disk, then give it its name."""
    head = store.read_head(directory)
    tips = head["chains"] if head else {}
    part: dict[str, Any] = {
        "sequence": head["sequence"] + 1 if head else 1,
        "sealed_at": now,
        "folder": _free_name(directory, record),
        "inventory_previous": head["record"] if head else None,
        "previous": {secret["name"]: tips.get(secret["name"]) for secret in record["secrets"]},
        "signer": signer.public_key if signer else None,
    }
    files = {
        store.SUMMARY: records.canonical(records.summary(record, part)),
        store.REPORT: report.render(record, part).encode(),
        **records.keyset_files(record),
    }
    part["files"] = {name: records.digest(content) for name, content in files.items()}
    document = {**record, "seal": part}
    raw = records.canonical(document)
    files[store.EVIDENCE] = raw
    files[store.FINGERPRINT] = store.fingerprint_text({**part["files"], store.EVIDENCE: records.digest(raw)})
    if signer:
        files[store.SIGNATURE] = signer.sign(raw)
        files[store.SIGNER] = signer.public_pem
    _publish(directory, part["folder"], files)
    return document, raw


def _publish(directory: str, folder: str, files: dict[str, bytes]) -> None:
    temporary = os.path.join(directory, store.TEMPORARY + secrets.token_hex(8))
    os.mkdir(temporary, 0o700)
    write_files({os.path.join(temporary, name): content for name, content in files.items()}, 0o600)
    os.rename(temporary, os.path.join(directory, folder))
    fsync_dir(directory)


def _copy(directory: str, target: str) -> list[str]:
    """Bring a copy up to date; what differs there is reported and left alone."""
    try:
        private_dir(os.path.join(target, store.CHAINS))
        with store.locked(target):
            _sweep(target)
            return _copy_locked(directory, target)
    except (KeyturnError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [f"The copy in {target} was not made: {reason}"]


def _copy_locked(directory: str, target: str) -> list[str]:
    problems = []
    present = set(store.folders(target))
    chains = store.read_chains(directory)
    for folder in sorted({entry["folder"] for chain in chains.values() for entry in chain}):
        source = os.path.join(directory, folder)
        if folder not in present:
            _publish(target, folder, {name: read_file(os.path.join(source, name)) for name in os.listdir(source)})
        elif not _same_bytes(os.path.join(source, store.EVIDENCE), os.path.join(target, folder, store.EVIDENCE)):
            problems.append(f"{os.path.join(target, folder)} differs from {source} and was left as it is.")
    for name in chains:
        content = read_file(store.chain_path(directory, name))
        there = store.chain_path(target, name)
        old = read_file(there) if os.path.lexists(there) else b""
        if not content.startswith(old):
            problems.append(f"{there} is not the beginning of the chain in {directory} and was left as it is.")
        elif content != old:
            write_file(there, content, 0o600)
    head = read_file(os.path.join(directory, store.HEAD))
    there = os.path.join(target, store.HEAD)
    if not problems and not (os.path.lexists(there) and read_file(there) == head):
        write_file(there, head, 0o600)
    return problems


def _same_bytes(one: str, other: str) -> bool:
    return os.path.lexists(other) and read_file(one) == read_file(other)
