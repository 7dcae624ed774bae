# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tampering of every kind is found, by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import record as records
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import (
    Signer,
    load_public_key,
    load_signer,
    signature_holds,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.verify import verify
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tests.support.evidence import NOW, full_record, small_record


def make_key(path: Path, raw: bool = False) -> Signer:
    private = Ed25519PrivateKey.generate()
    encoding, form = (Encoding.Raw, PrivateFormat.Raw) if raw else (Encoding.PEM, PrivateFormat.PKCS8)
    path.touch(0o600)
    path.write_bytes(private.private_bytes(encoding, form, NoEncryption()))
    return load_signer(str(path))


def fill(place: Path, signer: Signer | None = None) -> list[str]:
    plan = [
        full_record(rotation_id="r1"),
        small_record("r2", "rotated", "AGENT_TOKEN"),
        small_record("r3", "rolled_back", "JWK_AES_KEY"),
        small_record("r4", "rotated", "JWK_AES_KEY", "AGENT_TOKEN"),
    ]
    return [seal(str(place), record, now=NOW, signer=signer).digest for record in plan]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    fill(tmp_path / "evidence")
    return tmp_path / "evidence"


def codes(place: Path, **options: Any) -> set[str]:
    return {problem.code for problem in verify(str(place), **options).problems}


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(records.canonical(value))


def reseal(place: Path, folder: str) -> None:
    """Make ``fingerprint.sha256`` fit an edited record, as a careful forger would."""
    document = json.loads((place / folder / "evidence.json").read_bytes())
    digest = records.digest((place / folder / "evidence.json").read_bytes())
    text = store.fingerprint_text({**document["seal"]["files"], "evidence.json": digest})
    (place / folder / "fingerprint.sha256").write_bytes(text)


def chain_lines(place: Path, name: str) -> list[str]:
    return (place / "chains" / f"{name}.jsonl").read_text().splitlines(keepends=True)


def write_chain(place: Path, name: str, lines: list[str]) -> None:
    (place / "chains" / f"{name}.jsonl").write_text("".join(lines))


def edit_why(place: Path) -> None:
    rewrite(place / "r2.rotated" / "evidence.json", lambda value: value.update(why="nothing to see"))
    reseal(place, "r2.rotated")


def append_space(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        with (place / "r1.rotated" / name).open("ab") as stream:
            stream.write(b" ")

    return change


def edit_report_and_fingerprint(place: Path) -> None:
    report = place / "r1.rotated" / "report.html"
    report.write_text(report.read_text().replace("interrupted", "finished"))
    listing = place / "r1.rotated" / "fingerprint.sha256"
    old = json.loads((place / "r1.rotated" / "evidence.json").read_bytes())["seal"]["files"]["report.html"]
    listing.write_text(listing.read_text().replace(old, records.digest(report.read_bytes())))


def edit_last_with_chain_and_head(place: Path) -> None:
    """All that names the last record is forged as well; nothing before it changes."""
    path = place / "r4.rotated" / "evidence.json"
    old = records.digest(path.read_bytes())
    rewrite(path, lambda value: value.update(why="forged"))
    reseal(place, "r4.rotated")
    new = records.digest(path.read_bytes())
    for other in [place / "head.json", *(place / "chains").iterdir()]:
        other.write_text(other.read_text().replace(old, new))


def drop_record(place: Path) -> None:
    shutil.rmtree(place / "r2.rotated")


def drop_record_and_line(place: Path) -> None:
    shutil.rmtree(place / "r2.rotated")
    lines = chain_lines(place, "AGENT_TOKEN")
    write_chain(place, "AGENT_TOKEN", [lines[0], *lines[2:]])


def swap_lines(place: Path) -> None:
    lines = chain_lines(place, "JWK_AES_KEY")
    write_chain(place, "JWK_AES_KEY", [lines[1], lines[0], *lines[2:]])


def swap_lines_and_count(place: Path) -> None:
    entries = [json.loads(text) for text in chain_lines(place, "JWK_AES_KEY")]
    entries[0], entries[1] = entries[1], entries[0]
    for number, entry in enumerate(entries, 1):
        entry["position"] = number
    (place / "chains" / "JWK_AES_KEY.jsonl").write_bytes(b"".join(records.line(entry) for entry in entries))


def swap_folders(place: Path) -> None:
    (place / "r1.rotated").rename(place / "tmp")
    (place / "r2.rotated").rename(place / "r1.rotated")
    (place / "tmp").rename(place / "r2.rotated")


def number_as(number: int, value: dict[str, Any]) -> None:
    value["seal"]["sequence"] = number


def swap_sequences(place: Path) -> None:
    for folder, number in (("r2.rotated", 3), ("r3.rolled_back", 2)):
        rewrite(place / folder / "evidence.json", partial(number_as, number))
        reseal(place, folder)


def twin(place: Path) -> None:
    shutil.copytree(place / "r4.rotated", place / "r4.rotated-2")
    rewrite(place / "r4.rotated-2" / "evidence.json", lambda value: value["seal"].update(folder="r4.rotated-2"))
    reseal(place, "r4.rotated-2")


def old_head(place: Path) -> None:
    rewrite(place / "head.json", lambda value: value.update(sequence=3))


def tip_elsewhere(place: Path) -> None:
    rewrite(place / "head.json", lambda value: value["chains"].update(JWK_AES_KEY="0" * 64))


def extra_in_head(place: Path) -> None:
    rewrite(place / "head.json", lambda value: value["chains"].update(OTHER="0" * 64))


def link_instead_of_file(place: Path) -> None:
    target = place / "r1.rotated" / "report.html"
    moved = place.parent / "elsewhere.html"
    target.rename(moved)
    target.symlink_to(moved)


def edit_chain_entry(place: Path) -> None:
    entries = [json.loads(text) for text in chain_lines(place, "AGENT_TOKEN")]
    entries[1]["event"] = "retired"
    (place / "chains" / "AGENT_TOKEN.jsonl").write_bytes(b"".join(records.line(entry) for entry in entries))


TAMPERING: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("record edited, fingerprints fitted", edit_why, {"edited", "broken"}),
    ("record with another byte", append_space("evidence.json"), {"edited"}),
    ("report edited", append_space("report.html"), {"edited"}),
    ("summary edited", append_space("summary.json"), {"edited"}),
    ("fingerprints edited", append_space("fingerprint.sha256"), {"edited"}),
    ("report and fingerprints edited", edit_report_and_fingerprint, {"edited"}),
    ("report is a link", link_instead_of_file, {"edited"}),
    ("report removed", lambda place: (place / "r1.rotated/report.html").unlink(), {"missing"}),
    ("evidence.json removed", lambda place: (place / "r1.rotated/evidence.json").unlink(), {"missing"}),
    ("file added", lambda place: (place / "r1.rotated/notes.txt").write_text("x"), {"extra"}),
    ("record removed", drop_record, {"gap", "missing"}),
    ("first record removed", lambda place: shutil.rmtree(place / "r1.rotated"), {"gap", "missing"}),
    ("record and its line removed", drop_record_and_line, {"gap", "broken"}),
    ("last record removed", lambda place: shutil.rmtree(place / "r4.rotated"), {"missing", "head"}),
    ("lines swapped", swap_lines, {"reordered", "broken"}),
    ("lines swapped and counted again", swap_lines_and_count, {"broken"}),
    ("folders swapped", swap_folders, {"edited"}),
    ("numbers swapped", swap_sequences, {"edited", "broken"}),
    ("line removed", lambda place: write_chain(place, "JWK_AES_KEY", chain_lines(place, "JWK_AES_KEY")[1:]), {"gap"}),
    (
        "last line removed",
        lambda place: write_chain(place, "JWK_AES_KEY", chain_lines(place, "JWK_AES_KEY")[:-1]),
        {"unchained", "head"},
    ),
    (
        "line twice",
        lambda place: write_chain(place, "JWK_AES_KEY", chain_lines(place, "JWK_AES_KEY")[:1] * 2),
        {"gap", "unchained"},
    ),
    ("line edited", edit_chain_entry, {"edited"}),
    ("line cut off", lambda place: write_chain(place, "JWK_AES_KEY", ["".join(chain_lines(place, "JWK_AES_KEY"))[:-9]]),
     {"edited", "unchained"}),
    ("chain removed", lambda place: (place / "chains/JWK_AES_KEY.jsonl").unlink(), {"unchained", "head"}),
    ("chains removed", lambda place: shutil.rmtree(place / "chains"), {"unchained", "head"}),
    ("record twice", twin, {"fork", "unchained"}),
    ("head missing", lambda place: (place / "head.json").unlink(), {"head"}),
    ("head nonsense", lambda place: (place / "head.json").write_text("{}"), {"head"}),
    ("head of before", old_head, {"head"}),
    ("head names another record", tip_elsewhere, {"head"}),
    ("head names a chain that is not there", extra_in_head, {"head"}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [item[1:] for item in TAMPERING], ids=[item[0] for item in TAMPERING])
def test_tampering_is_found(place: Path, change: Callable[[Path], object], expected: set[str]) -> None:
    assert verify(str(place)).ok
    change(place)
    assert expected <= codes(place)


def test_every_single_byte_of_a_record_counts(place: Path) -> None:
    path = place / "r2.rotated" / "evidence.json"
    raw = path.read_bytes()
    for position in range(0, len(raw), 37):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        assert "edited" in codes(place), position
    path.write_bytes(raw)
    assert codes(place) == set()


def test_verifying_changes_nothing_and_needs_no_rights_to_write(place: Path) -> None:
    def state() -> list[tuple[str, int, bytes]]:
        paths = sorted(path for path in place.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in paths]

    (place / "lock").unlink()
    before = state()
    assert verify(str(place)).ok
    assert state() == before


@pytest.mark.parametrize("left", [None, (), ("lock", "notes.txt", "another/file")])
def test_a_directory_without_evidence_is_an_error(tmp_path: Path, left: tuple[str, ...] | None) -> None:
    """Nothing is wrong in another directory either, nor in one from which all was removed."""
    place = tmp_path / "evidence"
    if left is not None:
        place.mkdir()
    for name in left or ():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).touch()
    with pytest.raises(KeyturnError) as caught:
        verify(str(place))
    assert caught.value.code == "evidence-missing"


def test_chains_or_a_head_without_their_records_are_found(place: Path) -> None:
    for folder in [path for path in place.iterdir() if (path / "evidence.json").exists()]:
        shutil.rmtree(folder)
    assert codes(place) >= {"missing", "head"}
    shutil.rmtree(place / "chains")
    assert codes(place) == {"head"}


def test_a_cut_off_end_is_seen_by_who_kept_a_digest(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    seal(str(whole), small_record("r1"), now=NOW)
    shutil.copytree(whole, cut)
    last = seal(str(whole), small_record("r2"), now=NOW).digest
    assert verify(str(cut)).ok
    assert codes(cut, known=[last]) == {"unknown-record"}
    assert codes(whole, known=[last]) == set()


# -- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_signed_records_verify_with_the_public_key(tmp_path: Path, raw: bool) -> None:
    signer = make_key(tmp_path / "key", raw)
    fill(tmp_path / "evidence", signer)
    found = verify(str(tmp_path / "evidence"), [signer.public_key])
    assert (found.ok, found.records, found.signed) == (True, 4, 4)
    for content in (signer.public_pem, signer.public_key.encode() + b"\n"):
        (tmp_path / "public").write_bytes(content)
        assert load_public_key(str(tmp_path / "public")) == signer.public_key


def test_openssl_accepts_the_signature(tmp_path: Path) -> None:
    path = seal(str(tmp_path / "e"), full_record(), now=NOW, signer=make_key(tmp_path / "key")).path
    command = "pkeyutl -verify -pubin -inkey signer.pem -rawin -in evidence.json -sigfile evidence.json.sig"
    done = subprocess.run(["openssl", *command.split()], cwd=path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout


def test_rfc_8032_known_answer(tmp_path: Path) -> None:
    """RFC 8032 section 7.1, test 2."""
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    signer = load_signer(str(tmp_path / "key"))
    signature = signer.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signature_holds(signer.public_key, signature, b"\x72")
    assert not signature_holds(signer.public_key, signature, b"\x73")


def test_only_a_signature_shows_a_whole_end_made_anew(tmp_path: Path) -> None:
    signer = make_key(tmp_path / "key")
    place = tmp_path / "evidence"
    fill(place, signer)
    edit_last_with_chain_and_head(place)
    assert codes(place) == {"signature"}


def test_without_signature_a_known_digest_shows_a_whole_end_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "evidence"
    digests = fill(place)
    edit_last_with_chain_and_head(place)
    assert codes(place, known=digests) == {"unknown-record"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.write_bytes(bytes(64)), {"signature"}),
        (lambda path: path.write_bytes(b""), {"signature"}),
        (lambda path: path.unlink(), {"missing"}),
    ],
    ids=["other", "empty", "removed"],
)
def test_a_bad_signature_is_found(tmp_path: Path, change: Callable[[Path], object], expected: set[str]) -> None:
    signer = make_key(tmp_path / "key")
    fill(tmp_path / "evidence", signer)
    change(tmp_path / "evidence" / "r2.rotated" / "evidence.json.sig")
    assert codes(tmp_path / "evidence") == expected


def test_another_signer_and_unsigned_records_are_found_when_a_key_is_named(tmp_path: Path) -> None:
    mine, other = make_key(tmp_path / "mine"), make_key(tmp_path / "other")
    fill(tmp_path / "signed", other)
    assert codes(tmp_path / "signed", public_keys=[mine.public_key]) == {"signature"}
    assert codes(tmp_path / "signed", public_keys=[mine.public_key, other.public_key]) == set()
    fill(tmp_path / "plain")
    assert codes(tmp_path / "plain", public_keys=[mine.public_key]) == {"unsigned"}


def test_a_signing_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(KeyturnError) as caught:
        load_signer(str(tmp_path / "key"))
    assert caught.value.code == "signing-key-open"


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    encrypted = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    for content in (b"CANARY-nonsense", encrypted, b"-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n"):
        path = tmp_path / "key"
        path.touch(0o600)
        path.write_bytes(content)
        for load, code in ((load_signer, "signing-key-invalid"), (load_public_key, "public-key-invalid")):
            with pytest.raises(KeyturnError) as caught:
                load(str(path))
            assert caught.value.code == code
            assert "CANARY" not in str(caught.value)
    assert os.stat(tmp_path / "key").st_mode & 0o077 == 0
