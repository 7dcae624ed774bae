# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a folder of evidence, offline and without changing anything: every edit, gap and reordering has a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_plain_file, read_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import public_pem, signature_holds

__all__ = ["Problem", "Verified", "verify"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    :param code: ``edited``, ``missing``, ``extra``, ``gap``, ``fork``, ``reordered``, ``broken``, ``unchained``,
        ``head``, ``signature``, ``unsigned`` or ``unknown-record``.
    :param where: file or folder, relative to the evidence directory.
    :param message: one sentence.
    """

    code: str
    where: str
    message: str

    def as_result(self) -> dict[str, str]:
        """The keys of a module's result."""
        return {"code": self.code, "where": self.where, "message": self.message}


@dataclass
class Verified:
    """What :func:`verify` found.

    :param records: how many records there are.
    :param signed: how many of them carry a signature that holds.
    :param digest: SHA-256 of the last record; empty when there is none.
    :param sequence: its number.
    """

    records: int = 0
    signed: int = 0
    digest: str = ""
    sequence: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True)
class _Record:
    folder: str
    document: dict[str, Any]
    digest: str

    @property
    def seal(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["seal"]
        return found


class _Check:
    def __init__(self, directory: str, public_keys: Sequence[str], known: Sequence[str]) -> None:
        self._directory = directory
        self._public_keys = frozenset(public_keys)
        self._known = known
        self._found = Verified()
        self._records: dict[str, _Record] = {}  # by folder
        self._chains: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> Verified:
        for folder in store.folders(self._directory):
            self._check_folder(folder)
        self._read_chains()
        self._check_inventory()
        self._check_chains()
        self._check_head()
        digests = {record.digest for record in self._records.values()}
        for digest in self._known:
            if digest not in digests:
                self._add("unknown-record", digest, "is a digest you know, and no record here has it")
        self._found.records = len(self._records)
        return self._found

    def _add(self, code: str, where: str, message: str) -> None:
        self._found.problems.append(Problem(code, where, message))

    # -- one folder ----------------------------------------------------------------------------------------------

    def _read(self, *parts: str) -> bytes | None:
        """The bytes of a plain file, or nothing; what stands in its place is reported."""
        where = os.path.join(*parts)
        try:
            path = os.path.join(self._directory, where)
            check_plain_file(path)
            return read_file(path)
        except KeyturnError as error:
            self._add("missing" if error.code == "file-missing" else "edited", where, error.message)
            return None

    def _check_folder(self, folder: str) -> None:
        raw = self._read(folder, store.EVIDENCE)
        if raw is None:
            return
        where = os.path.join(folder, store.EVIDENCE)
        try:
            document = records.parse(raw)
            records.check_record(document, sealed=True)
        except KeyturnError as error:
            self._add("edited", where, f"is no record as it was sealed ({error.code}: {error.message})")
            return
        record = _Record(folder, document, records.digest(raw))
        self._records[folder] = record
        if record.seal["folder"] != folder:
            self._add("edited", folder, f"was sealed under the name {record.seal['folder']}")
        self._check_files(record)
        self._check_signature(record, raw)

    def _check_files(self, record: _Record) -> None:
        expected = {**record.seal["files"], store.EVIDENCE: record.digest}
        for name, digest in sorted(record.seal["files"].items()):
            raw = self._read(record.folder, name)
            if raw is not None and records.digest(raw) != digest:
                self._add("edited", os.path.join(record.folder, name), "is not what was sealed")
        fingerprint = self._read(record.folder, store.FINGERPRINT)
        if fingerprint is not None and fingerprint != store.fingerprint_text(expected):
            self._add("edited", os.path.join(record.folder, store.FINGERPRINT), "does not fit the sealed files")
        unnamed = store.EXTRA_FILES if record.seal["signer"] else store.UNSIGNED_FILES
        for name in sorted(os.listdir(os.path.join(self._directory, record.folder))):
            if name not in expected and name not in unnamed:
                self._add("extra", os.path.join(record.folder, name), "was not sealed with this record")

    def _check_signature(self, record: _Record, raw: bytes) -> None:
        signer = record.seal["signer"]
        where = os.path.join(record.folder, store.SIGNATURE)
        if signer is None:
            if self._public_keys:
                self._add("unsigned", record.folder, "is not signed")
            return
        pem = self._read(record.folder, store.SIGNER)
        if pem is not None and pem != public_pem(signer):
            self._add("signature", os.path.join(record.folder, store.SIGNER), "is not the key that the record names")
        signature = self._read(record.folder, store.SIGNATURE)
        if signature is None:
            return
        if not signature_holds(signer, signature, raw):
            self._add("signature", where, "does not fit the record")
        elif self._public_keys and signer not in self._public_keys:
            self._add("signature", where, "was made with a key that you did not name")
        else:
            self._found.signed += 1

    # -- the chains ----------------------------------------------------------------------------------------------

    def _read_chains(self) -> None:
        folder = os.path.join(self._directory, store.CHAINS)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            where = os.path.join(store.CHAINS, name)
            if not name.endswith(".jsonl") or name.startswith("."):
                if not name.startswith(store.TEMPORARY):
                    self._add("extra", where, "is no chain")
                continue
            raw = self._read(where)
            if raw is None:
                continue
            try:
                self._chains[name[: -len(".jsonl")]] = store.entries(raw, where)
            except KeyturnError as error:
                self._add("edited", error.where, error.message)

    def _check_inventory(self) -> None:
        """Sequence numbers run from 1 without a gap, and each record names the one before."""
        by_sequence: dict[int, _Record] = {}
        for record in self._records.values():
            other = by_sequence.setdefault(record.seal["sequence"], record)
            if other is not record:
                self._add("fork", record.folder, f"has the same number as {other.folder}")
        last = max(by_sequence, default=0)
        for number in self._missing(by_sequence, last):
            self._add("gap", store.HEAD, f"record number {number} is missing")
        for number, record in sorted(by_sequence.items()):
            before = by_sequence.get(number - 1)
            expected = before.digest if before else None
            if (before is not None or number == 1) and record.seal["inventory_previous"] != expected:
                self._add("broken", record.folder, f"does not follow record number {number - 1}")
        if last:
            self._found.sequence, self._found.digest = last, by_sequence[last].digest

    @staticmethod
    def _missing(numbers: Iterable[int], last: int) -> list[int]:
        present = set(numbers)
        return [number for number in range(1, min(last, len(present) + 1000) + 1) if number not in present]

    def _check_chains(self) -> None:
        for name, chain in self._chains.items():
            self._check_chain(name, chain)
        for folder, record in self._records.items():
            for name in record.seal["previous"]:
                if all(entry["folder"] != folder for entry in self._chains.get(name, [])):
                    self._add("unchained", folder, f"is not in the chain of {name}")

    def _check_chain(self, name: str, chain: list[dict[str, Any]]) -> None:
        where = os.path.join(store.CHAINS, f"{name}.jsonl")
        if not chain:
            self._add("gap", where, "is empty")
        positions = [entry["position"] for entry in chain]
        if positions != list(range(1, len(chain) + 1)):
            same = sorted(positions, key=str) == sorted(range(1, len(chain) + 1), key=str)
            self._add("reordered" if same else "gap", where, "does not count 1, 2, 3")
        previous = None
        for number, entry in enumerate(chain, 1):
            place = f"{where}:{number}"
            if entry["previous"] != previous:
                self._add("broken", place, "does not follow the entry before")
            previous = entry["record"]
            record = self._records.get(str(entry["folder"]))
            if record is None:
                self._add("missing", str(entry["folder"]), f"is in the chain of {name} and is not here")
            elif record.digest != entry["record"]:
                self._add("edited", record.folder, f"is not the record that the chain of {name} holds")
            elif entry != store.chain_line(entry["position"], record.document, record.digest, entry["previous"]):
                self._add("edited", place, "does not fit its record")
            elif record.seal["previous"].get(name, "") != entry["previous"]:
                self._add("broken", place, "does not name the same predecessor as its record")

    def _check_head(self) -> None:
        try:
            head = store.read_head(self._directory)
        except KeyturnError as error:
            self._add("head", store.HEAD, error.message)
            return
        if head is None:
            if self._records or self._chains:
                self._add("head", store.HEAD, "is missing")
            return
        if (head["sequence"], head["record"]) != (self._found.sequence, self._found.digest):
            self._add(
                "head",
                store.HEAD,
                f"names record number {head['sequence']}, the last one here is {self._found.sequence}",
            )
        tips = {name: chain[-1]["record"] for name, chain in self._chains.items() if chain}
        for name in sorted({*tips, *head["chains"]}):
            if tips.get(name) != head["chains"].get(name):
                self._add("head", store.HEAD, f"does not name the last record of {name}")
        last = next((record for record in self._records.values() if record.digest == head["record"]), None)
        if last is not None and self._read(store.HEAD) != store.head_bytes(last.document, last.digest, tips):
            self._add("head", store.HEAD, "is not as it was written")


def verify(directory: str, public_keys: Sequence[str] = (), known: Sequence[str] = ()) -> Verified:
    """Check every record, chain and signature in ``directory``, and the head.

    :param public_keys: base64 of Ed25519 public keys; when given, each record must be signed by one of them.
    :param known: digests kept elsewhere; each must be among the records, which shows that the end was not cut off.
    :raises KeyturnError: ``evidence-missing`` when the directory is not there, or there is nothing in it to check:
        that is another directory, or all was removed.
    """
    if os.path.isdir(directory):
        with store.locked(directory, shared=True):
            found = _Check(directory, public_keys, known).run()
        if found.records or found.problems:
            return found
    raise KeyturnError(
        "evidence-missing",
        "there is no evidence here",
        where=directory,
        hint="Name its folder (keyturn_evidence_dir), or the state host (keyturn_hosts). If this is the one, what was "
        "in it has been removed",
    )
