# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is changed in signed evidence of several secrets is found: bytes, records, order, signatures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import Signer, load_signer
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.verify import Verified, verify
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.evidence import NOW, small_record

_KEYSET = {
    "name": "JWT",
    "active_kid": "k2",
    "keys": [{"kid": "k1", "state": "previous"}, {"kid": "k2", "state": "primary"}],
}
HISTORY = [
    small_record("r1", "rotated", "API", "JWT", keysets=[_KEYSET]),
    small_record("r2", "rotated", "DB"),
    small_record("r2", "retired", "DB"),
    small_record("r3", "rolled_back", "API", "DB"),
    small_record("r4", "rotated", "JWT"),
]
LAST = len(HISTORY) - 1
RULES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def signer(path: Path) -> Signer:
    raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    path.touch(0o600)
    path.write_bytes(raw)
    return load_signer(str(path))


@dataclass
class Evidence:
    """Signed evidence on the disk, which each test spoils and this puts back."""

    place: Path
    ours: Signer
    theirs: Signer
    files: dict[str, bytes]

    def verify(self, known: bool = True) -> Verified:
        last = records.digest(self.files[f"{self.folder(LAST)}/evidence.json"])
        return verify(str(self.place), [self.ours.public_key], [last] if known else [])

    def restore(self) -> None:
        shutil.rmtree(self.place)
        for name, raw in self.files.items():
            (self.place / name).parent.mkdir(parents=True, exist_ok=True)
            (self.place / name).write_bytes(raw)

    @staticmethod
    def folder(number: int) -> str:
        return records.folder_name(HISTORY[number])

    def chain(self, name: str) -> list[dict[str, Any]]:
        return store.read_chain(str(self.place), name)

    def write_chain(self, name: str, entries: list[dict[str, Any]]) -> None:
        (self.place / "chains" / f"{name}.jsonl").write_bytes(b"".join(records.line(entry) for entry in entries))

    def anew(self, history: list[dict[str, Any]], honest: int, by: Signer | None) -> None:
        """Make everything again: the first ``honest`` records as they were, the rest by a forger, all of it fitting."""
        shutil.rmtree(self.place)
        for number, record in enumerate(history):
            seal(str(self.place), record, now=NOW, signer=self.ours if number < honest else by)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("tampering")
    evidence = Evidence(folder / "evidence", signer(folder / "ours"), signer(folder / "theirs"), {})
    for record in HISTORY:
        seal(str(evidence.place), record, now=NOW, signer=evidence.ours)
    (evidence.place / "lock").unlink()
    evidence.files = {
        str(path.relative_to(evidence.place)): path.read_bytes()
        for path in sorted(evidence.place.rglob("*"))
        if path.is_file()
    }
    return evidence


@pytest.fixture
def evidence(made: Evidence) -> Iterator[Evidence]:
    assert made.verify().problems == []
    yield made
    made.restore()


def changed(raw: bytes, kind: str, position: int, byte: int) -> bytes:
    if kind == "other":
        return raw[:position] + bytes([raw[position] ^ byte]) + raw[position + 1 :]
    return raw[:position] + (bytes([byte]) + raw[position:] if kind == "more" else raw[position + 1 :])


@settings(RULES, max_examples=250)
@given(st.data(), st.sampled_from(["other", "more", "less"]), st.integers(1, 255))
def test_every_edit_of_one_byte_is_found(evidence: Evidence, data: st.DataObject, kind: str, byte: int) -> None:
    name = data.draw(st.sampled_from(sorted(evidence.files)))
    raw = evidence.files[name]
    edited = changed(raw, kind, data.draw(st.integers(0, len(raw) - 1)), byte)
    path = evidence.place / name
    path.write_bytes(edited)
    found = evidence.verify(known=False)
    path.write_bytes(raw)
    assert found.problems


@pytest.mark.parametrize(
    "name", ["head.json", "chains/DB.jsonl", "r2.retired/evidence.json.sig", "r2.retired/signer.pem"]
)
def test_no_byte_beside_the_records_is_free(evidence: Evidence, name: str) -> None:
    path, raw = evidence.place / name, evidence.files[name]
    free = []
    for position in range(len(raw)):
        path.write_bytes(changed(raw, "other", position, 1))
        if evidence.verify(known=False).ok:
            free.append(position)
    path.write_bytes(raw)
    assert free == []


@pytest.mark.parametrize(
    "name", sorted({"head.json", "chains/DB.jsonl", "r1.rotated/keyset.json", "r1.rotated/signer.pem"})
)
def test_every_file_has_to_be_there(evidence: Evidence, name: str) -> None:
    (evidence.place / name).unlink()
    assert evidence.verify(known=False).problems


@RULES
@given(st.sets(st.sampled_from(range(len(HISTORY))), min_size=1), st.booleans(), st.booleans(), st.booleans())
def test_removed_records_are_found(
    evidence: Evidence, gone: set[int], lines: bool, count_again: bool, head: bool
) -> None:
    """With their lines in the chains or without, counted again or not, and with a head that fits what is left."""
    evidence.restore()
    for number in gone:
        shutil.rmtree(evidence.place / evidence.folder(number))
    names = {evidence.folder(number) for number in gone}
    for name in ("API", "DB", "JWT") if lines else ():
        left = [entry for entry in evidence.chain(name) if entry["folder"] not in names]
        if count_again:
            left = [{**entry, "position": number} for number, entry in enumerate(left, 1)]
        if left:
            evidence.write_chain(name, left)
        else:
            (evidence.place / "chains" / f"{name}.jsonl").unlink()
    rest = [number for number in range(len(HISTORY)) if number not in gone]
    if head and rest:
        raw = evidence.files[f"{evidence.folder(rest[-1])}/evidence.json"]
        tips = {name: entries[-1]["record"] for name, entries in store.read_chains(str(evidence.place)).items()}
        content = store.head_bytes(json.loads(raw), records.digest(raw), tips)
        (evidence.place / "head.json").write_bytes(content)
    assert evidence.verify().problems
    cut_off_clean = lines and head and rest == list(range(len(rest)))  # nothing that is left says that there was more
    assert bool(evidence.verify(known=False).problems) or cut_off_clean


@RULES
@given(st.permutations(range(len(HISTORY))), st.booleans())
def test_records_in_another_order_are_found(evidence: Evidence, order: list[int], all_made_anew: bool) -> None:
    """Folders under each other's names, or the whole made again in that order by someone who has another key."""
    evidence.restore()
    if order == list(range(len(HISTORY))):
        assert evidence.verify().ok
        return
    if all_made_anew:
        evidence.anew([HISTORY[number] for number in order], 0, evidence.theirs)
    else:
        for number in range(len(HISTORY)):
            (evidence.place / evidence.folder(number)).rename(evidence.place / f"moved-{number}")
        for number, other in enumerate(order):
            (evidence.place / f"moved-{other}").rename(evidence.place / evidence.folder(number))
    assert evidence.verify(known=False).problems


@RULES
@given(st.sampled_from(["API", "DB", "JWT"]), st.data(), st.booleans(), st.booleans())
def test_lines_in_another_order_are_found(
    evidence: Evidence, name: str, data: st.DataObject, count_again: bool, link_again: bool
) -> None:
    evidence.restore()
    before = evidence.chain(name)
    entries = data.draw(st.permutations(before))
    if entries == before:
        return
    if count_again:
        entries = [{**entry, "position": number} for number, entry in enumerate(entries, 1)]
    if link_again:
        tips = [None, *(entry["record"] for entry in entries)]
        entries = [{**entry, "previous": tip} for entry, tip in zip(entries, tips)]
    evidence.write_chain(name, entries)
    assert evidence.verify(known=False).problems


@RULES
@given(st.integers(0, LAST), st.sampled_from(["their key", "no key", "a record left out", "another reason"]))
def test_a_history_made_anew_from_any_record_on_is_found(evidence: Evidence, honest: int, how: str) -> None:
    """Every hash fits, from the first forged record to the head: only the signatures tell."""
    history = [dict(record) for record in HISTORY]
    if how == "a record left out":
        del history[honest]
    if how == "another reason":
        history[honest]["why"] = "nothing to see"
    evidence.anew(history, honest, None if how == "no key" else evidence.theirs)
    assert evidence.verify().problems
    found = {problem.code for problem in evidence.verify(known=False).problems}
    left_out_at_the_end = how == "a record left out" and honest == LAST
    assert found == (set() if left_out_at_the_end else {"unsigned" if how == "no key" else "signature"})
    assert verify(str(evidence.place)).ok, "without the key and the digest it looks well"


@RULES
@given(st.integers(0, LAST), st.sampled_from(["another record", "their key", "their key and name", "nonsense"]))
def test_a_forged_signature_is_found(evidence: Evidence, number: int, how: str) -> None:
    evidence.restore()
    folder = evidence.place / evidence.folder(number)
    raw = (folder / "evidence.json").read_bytes()
    forged = {
        "another record": evidence.files[f"{evidence.folder(number - 1)}/evidence.json.sig"],
        "nonsense": bytes(64),
    }.get(how, evidence.theirs.sign(raw))
    (folder / "evidence.json.sig").write_bytes(forged)
    if how == "their key and name":
        (folder / "signer.pem").write_bytes(evidence.theirs.public_pem)
    assert {problem.code for problem in evidence.verify().problems} == {"signature"}


def test_what_an_unsigned_record_does_not_have_must_not_lie_there(tmp_path: Path) -> None:
    place = Path(seal(str(tmp_path / "e"), HISTORY[0], now=NOW).path)
    (place / "evidence.json.sig").write_bytes(bytes(64))
    assert {problem.code for problem in verify(str(tmp_path / "e")).problems} == {"extra"}


def test_a_chain_without_lines_is_found(evidence: Evidence) -> None:
    (evidence.place / "chains/OTHER.jsonl").touch()
    assert {problem.code for problem in evidence.verify().problems} == {"gap"}


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"1e999\n", b'"\\ud800"\n'])
@pytest.mark.parametrize("name", ["head.json", "chains/DB.jsonl", "r2.rotated/evidence.json"])
def test_nonsense_is_a_finding_and_no_crash(evidence: Evidence, name: str, raw: bytes) -> None:
    (evidence.place / name).write_bytes(raw)
    assert evidence.verify().problems
