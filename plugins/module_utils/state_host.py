# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the state host does for a run: the register, its journal, and the inventory's fingerprint key."""

from __future__ import annotations

import copy
import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import registry, sealed, syslog
from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import (
    fsync_dir,
    private_dir,
    read_file,
    write_file,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import FINGERPRINT_CONTEXT, check_name

__all__ = ["fingerprint_key", "new_rotation_id", "read_journal", "run", "stamp_of"]

_KEY_BYTES = 32


def stamp_of(now: float) -> str:
    """UTC time as text, to the millisecond: ``2026-01-31T12:00:00.123Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def new_rotation_id(now: float, randhex: Callable[[int], str]) -> str:
    """A name for a rotation that sorts by time: ``20260131T120000Z-4f3a9c``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) + "-" + randhex(3)


def fingerprint_key(state_dir: str) -> bytes:
    """The inventory's own fingerprint key (32 bytes), made on first use, 0600."""
    path = os.path.join(private_dir(state_dir), "fingerprint.key")
    if not os.path.lexists(path):
        write_file(path, secrets.token_bytes(_KEY_BYTES), 0o600)
    return read_file(path)


def _journal_path(state_dir: str, rotation_id: str) -> str:
    return os.path.join(state_dir, "rotations", check_name(rotation_id, "rotation_id"), "journal.jsonl")


def _note(state_dir: str, rotation_id: str, entry: Mapping[str, Any]) -> None:
    """Append one line to the rotation's journal, whole and durable before return.

    :raises KeyturnError: ``file-failed`` when the disk refuses; nothing of the line is left then.
    """
    path = _journal_path(state_dir, rotation_id)
    private_dir(os.path.dirname(path))
    line = json.dumps(entry, sort_keys=True).encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a crash has cut the last one short
            line = b"\n" + line
        _append(handle, size, line)
        os.fsync(handle)
    except OSError as error:
        raise KeyturnError(
            "file-failed",
            f"cannot be written ({error.strerror})",
            where=path,
            hint="Check space and permissions, then run the same command again",
        ) from None
    finally:
        os.close(handle)
    fsync_dir(os.path.dirname(path))


def _append(handle: int, size: int, line: bytes) -> None:
    """Write a line at the end of a file of this size, or nothing of it: a full disk takes a part and says no more."""
    try:
        if os.write(handle, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(handle, size)
        raise


def read_journal(state_dir: str, rotation_id: str) -> list[dict[str, Any]]:
    """The journal's entries; a last line cut short by a crash is left out."""
    try:
        lines = read_file(_journal_path(state_dir, rotation_id)).split(b"\n")
    except KeyturnError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _acquire(params: Mapping[str, Any], content: dict[str, Any], now: float) -> tuple[str, dict[str, Any]]:
    return registry.acquire(
        content,
        mode=params["mode"],
        names=sorted(params["secrets"]),
        new_id=new_rotation_id(now, secrets.token_hex),
        run=params["run"],
        stamp=stamp_of(now),
        now=now,
        details=params["details"],
        rotation_id=params["rotation_id"] or None,
        take_over=params["take_over"],
        gone=params["gone"],
    )


def _change(params: Mapping[str, Any], content: dict[str, Any], now: float) -> tuple[str, dict[str, Any]]:
    """Apply the requested transition to the register's content."""
    action, rotation_id, epoch = params["action"], params["rotation_id"] or "", params["epoch"]
    if action == "acquire":
        return _acquire(params, content, now)
    if action == "advance":
        facts = dict(params["facts"])
        if params["phase"] == "refresh":  # what is disabled was disabled before this, in whichever run that was
            facts.setdefault("disabled_at", registry.find(content, rotation_id).get("disabled_at") or stamp_of(now))
        return rotation_id, registry.advance(content, rotation_id, epoch, params["phase"], now, **facts)
    if action == "turn_back":
        return rotation_id, registry.turn_back(content, rotation_id, epoch, now, params["facts"].get("cause", ""))
    if action == "begin_back":
        return rotation_id, registry.begin_back(content, rotation_id, epoch, now)
    if action == "stay":
        return rotation_id, registry.stay(content, rotation_id, epoch)
    if action == "release":
        return rotation_id, registry.release(content, rotation_id, epoch)
    if action == "close":
        return rotation_id, registry.close(content, rotation_id, stamp_of(now), params["facts"]["held"])
    return rotation_id, registry.finish(content, rotation_id, epoch, params["status"], stamp_of(now), **params["facts"])


def _keep_notes(params: Mapping[str, Any], content: Mapping[str, Any], stamp: str, check_mode: bool) -> dict[str, Any]:
    """Lines for people in the journal of a rotation, whoever runs it now."""
    epoch = registry.find(content, params["rotation_id"])["epoch"]
    for text in [] if check_mode else params["notes"]:
        _note(params["state_dir"], params["rotation_id"], {"at": stamp, "event": "note", "epoch": epoch, "text": text})
    return {"changed": bool(params["notes"]), "rotation_id": params["rotation_id"]}


def _last_evidence(state_dir: str) -> dict[str, dict[str, Any]]:
    """What was sealed last of each secret; imported here, since most calls do without."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.latest import latest

    return latest(os.path.join(state_dir, "evidence"))


def _check_evidence(params: Mapping[str, Any]) -> None:
    """Refuse to begin what could not be put on record: it would turn, and then neither end nor go back."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.ready import check_ready

    signing_key = (params.get("sealing") or {}).get("signing_key") or ""
    check_ready(os.path.join(params["state_dir"], "evidence"), str(signing_key))


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``rotation_state``."""
    register = registry.Register(params["state_dir"])
    now = time.time()
    if params["action"] == "read":
        journal = read_journal(params["state_dir"], params["rotation_id"]) if params["rotation_id"] else []
        answer = {"changed": False, "register": register.read(), "journal": journal, "now": stamp_of(now)}
        return {**answer, "evidence": _last_evidence(params["state_dir"])} if params["evidence"] else answer
    if params["action"] == "seal":
        key = secrets.token_bytes(_KEY_BYTES) if check_mode else fingerprint_key(params["state_dir"])
        boxes = {host: sealed.seal(key, public, FINGERPRINT_CONTEXT) for host, public in params["recipients"].items()}
        return {"changed": False, "boxes": boxes}
    if params["action"] == "note":
        return _keep_notes(params, register.read(), stamp_of(now), check_mode)
    if check_mode:
        rotation_id, rotation = _change(params, copy.deepcopy(register.read()), now)
    else:
        with register.changing() as content:
            known = set(content["rotations"])
            rotation_id, rotation = _change(params, content, now)
            if params["mode"] == "rotate" and rotation_id not in known:
                _check_evidence(params)  # what is raised here leaves the register as it was
        entry = {"at": stamp_of(now), "event": params["action"], "epoch": rotation["epoch"]}
        for field in ("phase", "status"):
            if params[field]:
                entry[field] = params[field]
        _note(params["state_dir"], rotation_id, entry)
        if params["syslog"]:
            syslog.send(syslog.line(params["action"], params["phase"], rotation_id, rotation), params["action"])
    journal = read_journal(params["state_dir"], rotation_id)
    return {
        "changed": True,
        "rotation_id": rotation_id,
        "rotation": rotation,
        "epoch": rotation["epoch"],
        "journal": journal,
        "now": stamp_of(now),
    }
