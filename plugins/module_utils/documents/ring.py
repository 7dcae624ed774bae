# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a call: given to it, or read from the table of signing keys and decrypted here; and what is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.turns import Turn, Turns
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec, plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws import Signer, Verifier, load_signer
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.cells import CellType
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link, raw_cursor
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import aliased
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.tables import find_column, find_table

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["KeyTable", "Ring"]

_KEPT = 128  # keys of tenants that one process keeps loaded


class KeyTable:
    """A table of signing keys, and what opens them.

    :param entry: ``table``, ``kid``, ``private``, ``tenant`` and ``envelope``; without the last the keys lie in clear.
    :param key: the value that encrypts them.
    """

    def __init__(self, link: Link, entry: Mapping[str, Any], key: bytes | None) -> None:
        table = find_table(link, entry["table"], ("SELECT",))
        column = find_column(link, table, entry["private"])
        self.place = str(column)
        if (entry.get("envelope") is None) != (key is None):
            hint = "Give both, or neither for keys in clear"
            raise KeyturnError("key-missing", "envelope and key belong together", where=self.place, hint=hint)
        self._cells = CellType(column)
        self._envelope = Envelope(load_spec(entry["envelope"]), key) if key is not None else None
        self._needs_context = self._envelope is not None and self._envelope.spec.needs_context
        if self._needs_context:
            hint = "Give the key itself in keys.new"
            raise KeyturnError("key-missing", "its cells are bound to their rows", where=self.place, hint=hint)
        self._has_tenant = bool(entry.get("tenant"))
        theirs: sql.Composable = sql.SQL("")
        if self._has_tenant:
            theirs = sql.SQL(" AND {}::text = %s").format(aliased("c", entry["tenant"]))
        self._query = sql.SQL("SELECT {} FROM {} c WHERE {}::text = %s{} LIMIT 2").format(
            self._cells.read(aliased("c", column.name)), table.identifier, aliased("c", entry["kid"]), theirs
        )

    def read(self, link: Link, kid: str, tenant: str | None) -> bytes:
        """The private key of this kid, as text.

        :raises KeyturnError: ``signing-key-missing``, ``signing-key-unreadable``.
        """
        asked = (kid, tenant) if self._has_tenant else (kid,)
        found = raw_cursor(link).execute(self._query, asked).fetchall()
        if len(found) != 1 or not found[0][0]:
            said = "holds no private key" if not found or len(found) == 1 else "holds two keys"
            hint = "Make the new key first (it is read by its kid)"
            raise KeyturnError("signing-key-missing", f"{said} for the kid {kid}", where=self.place, hint=hint)
        cell = self._cells.decode([found[0][0]])[0]
        if self._envelope is None:
            return cell
        opened = self._envelope.open(cell)
        plain = opened if opened is not None else plaintext_of(self._envelope.spec, cell)
        if plain is None:
            hint = "Look at key_table: its envelope and the key that encrypts it"
            raise KeyturnError("signing-key-unreadable", f"the key {kid} does not open", where=self.place, hint=hint)
        return plain


class Ring:
    """Signers and verifiers by kid.

    :param given: private keys that were given: ``new`` and ``old``.
    :param published: what verifiers see; None where nobody said where that is.
    """

    def __init__(
        self,
        turns: Turns,
        given: Mapping[str, bytes],
        key_table: KeyTable | None,
        published: Mapping[str, Verifier] | None,
    ) -> None:
        self._turns, self._given, self._key_table, self._published = turns, given, key_table, published
        self._loaded: dict[tuple[str, str | None], Signer] = {}
        self._checked: set[tuple[str, str | None]] = set()
        if given and len({(turn.new, turn.old) for turn in turns}) > 1:
            hint = "Name key_table, from which each tenant's key is read"
            raise KeyturnError("turns-invalid", "one key is given for different kids", where="keys", hint=hint)

    def check_published(self, back: bool) -> None:
        """Refuse to sign under a key that verifiers do not see yet.

        :raises KeyturnError: ``kid-unpublished``.
        """
        for turn in self._turns if self._published is not None else ():
            self._seen(turn.goal(back))

    def _seen(self, kid: str) -> Verifier | None:
        if self._published is None:
            return None
        if kid not in self._published:
            raise KeyturnError(
                "kid-unpublished",
                f"the key {kid} is not published",
                where="jwks",
                hint="Publish it, wait until every verifier has it, then run again",
            )
        return self._published[kid]

    def can_sign(self, back: bool) -> bool:
        """Whether there is a source of keys for this way."""
        return self._key_table is not None or ("old" if back else "new") in self._given

    def signer(self, link: Link, turn: Turn, back: bool) -> Signer:
        """The key to sign a tenant's documents with; the same one as is published.

        :raises KeyturnError: ``key-missing``, ``kid-unpublished``, ``key-differs``, and those of :meth:`KeyTable.read`
            and ``load_signer``.
        """
        signer = self._load(link, turn, back)
        at = (signer.kid, turn.tenant)
        if at not in self._checked:
            seen = self._seen(signer.kid)
            if seen is not None and not seen.is_same(signer.verifier):
                hint = "Nothing was written. Look at what is published, and at the private key"
                message = f"published under {signer.kid} is another key"
                raise KeyturnError("key-differs", message, where="jwks", hint=hint)
            self._checked.add(at)
        return signer

    def _load(self, link: Link, turn: Turn, back: bool) -> Signer:
        return self._of_kid(link, turn, turn.goal(back), "old" if back else "new")

    def _of_kid(self, link: Link, turn: Turn, kid: str, version: str) -> Signer:
        at = (kid, turn.tenant)
        if at in self._loaded:
            return self._loaded[at]
        if version in self._given:
            signer = load_signer(self._given[version], kid, f"keys.{version}")
        elif self._key_table is not None:
            signer = load_signer(self._key_table.read(link, kid, turn.tenant), kid, self._key_table.place)
        else:
            hint = "Give a reference to it, or name key_table"
            raise KeyturnError("key-missing", f"needs the private key {kid}", where=f"keys.{version}", hint=hint)
        while len(self._loaded) >= _KEPT:
            forgotten = next(iter(self._loaded))
            del self._loaded[forgotten]
            self._checked.discard(forgotten)
        self._loaded[at] = signer
        return signer

    def verifier(self, link: Link, turn: Turn, kid: str) -> Verifier | None:
        """What checks signatures under a kid of a turn; None where its public half is not known."""
        if self._published is not None and kid in self._published:
            return self._published[kid]
        try:
            return self._own(link, turn, kid)
        except KeyturnError as error:
            if error.code == "signing-key-missing":
                return None
            raise

    def _own(self, link: Link, turn: Turn, kid: str) -> Verifier | None:
        if kid == turn.new and self.can_sign(back=False):
            return self._load(link, turn, back=False).verifier
        if kid == turn.old[0] and self.can_sign(back=True):
            return self._load(link, turn, back=True).verifier
        if kid in turn.old and self._key_table is not None:
            return self._of_kid(link, turn, kid, "").verifier
        return None
