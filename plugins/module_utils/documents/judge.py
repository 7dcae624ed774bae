# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each document is: under the new kid, under an old one, or something that stops the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.declared import Documents
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.ring import Ring
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rows import DocumentRows
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.turns import Turn, Turns
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import RefusedError, head, parse_document, read, sign
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link

__all__ = ["BROKEN", "CLASSES", "NEW", "OLD", "OTHER", "REFUSED", "UNSIGNED", "Judge", "Signed"]

NEW, OLD, OTHER, UNSIGNED, BROKEN, REFUSED = "new", "old", "other", "unsigned", "broken", "refused"
CLASSES = (NEW, OLD, OTHER, UNSIGNED, BROKEN, REFUSED)


class Signed(NamedTuple):
    """Documents that were just signed.

    :param places: where their rows are.
    """

    places: list[int]
    signatures: list[bytes]
    kids: list[bytes]


class Judge:
    """Tells and signs the documents of one table.

    :param back: whether the rotation goes back.
    """

    def __init__(self, one: Documents, turns: Turns, ring: Ring, rotation: str, back: bool) -> None:
        self._one, self._turns, self._ring, self._rotation, self._back = one, turns, ring, rotation, back

    def kinds(self, link: Link, rows: DocumentRows) -> list[str]:
        """The class of each row by its signature."""
        pairs = zip(rows.signatures, rows.tenants)
        return [self._kind(link, text, self._turns.of(tenant)) for text, tenant in pairs]

    def _kind(self, link: Link, text: bytes | None, turn: Turn) -> str:
        if not text:
            return UNSIGNED
        compact = read(text)
        if compact is None:
            return BROKEN
        kind = NEW if compact.kid == turn.new else OLD if compact.kid in turn.old else OTHER
        if kind != OTHER:
            verifier = self._ring.verifier(link, turn, compact.kid)
            if verifier is not None and not compact.holds(verifier):
                return BROKEN
        return kind

    def is_to_sign(self, kind: str) -> bool:
        """Whether rows of this class are signed by this call."""
        if self._back:
            return kind == NEW
        return kind == OLD or (kind == UNSIGNED and self._one.signs_unsigned)

    def refusals(self, rows: DocumentRows, kinds: Sequence[str], now: datetime) -> dict[int, str]:
        """Why documents among those to sign are not to be signed, by place."""
        found = {}
        for place, (kind, document, values) in enumerate(zip(kinds, rows.documents, rows.values)):
            if self.is_to_sign(kind):
                try:
                    self._one.form.payload(parse_document(document or b""), values, now)
                except RefusedError as error:
                    found[place] = str(error)
        return found

    def sign(self, link: Link, rows: DocumentRows, now: datetime) -> Signed:
        """Sign those that are to be signed; each signature is checked with the key that verifiers have.

        :raises KeyturnError: ``document-refused``, ``signature-unproven``, and those of :meth:`Ring.signer`.
        """
        signed, heads = Signed([], [], []), dict[str, bytes]()
        kinds, documents, values, tenants = self.kinds(link, rows), rows.documents, rows.values, rows.tenants
        for place, kind in enumerate(kinds):
            if not self.is_to_sign(kind):
                continue
            turn = self._turns.of(tenants[place])
            signer = self._ring.signer(link, turn, self._back)
            if signer.kid not in heads:
                heads[signer.kid] = head(signer, self._one.form.header_at(self._rotation, now))
            try:
                payload = self._one.form.payload(parse_document(documents[place] or b""), values[place], now)
                made = sign(signer, heads[signer.kid], payload)
            except (RefusedError, ValueError) as error:
                raise self._refused(rows, place, error) from None
            checker = self._ring.verifier(link, turn, signer.kid) or signer.verifier
            if not made.holds(checker):
                hint = "Nothing of this batch was written. Check the memory and the cryptography library of this host"
                message = "a signature that was just made does not hold"
                raise KeyturnError("signature-unproven", message, where=self._one.place, hint=hint)
            signed.places.append(place)
            signed.signatures.append(made.text)
            signed.kids.append(signer.kid.encode())
        return signed

    def _refused(self, rows: DocumentRows, place: int, error: ValueError) -> KeyturnError:
        why = str(error) if isinstance(error, RefusedError) else "cannot be written as JSON"
        key = ",".join(part.decode() for part in rows.keys[place])
        hint = "It was written meanwhile. Correct the document, or allow the claim with allow_claims; then run again"
        return KeyturnError("document-refused", f"the row {key} {why}", where=self._one.place, hint=hint)
