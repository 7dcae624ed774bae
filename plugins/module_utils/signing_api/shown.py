# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of the issuer shown to those who verify them: of the former key, issued just before, and of the new one.

A verifier that knows the current key only refuses every live token the moment a key is promoted. So a token of the
former key is issued before that and shown after it. It lies in a file of mode 0600 until then, since the issuer may
have to be restarted by another call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import run_probes
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.answers import has_ended
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.client import PASSING, Client
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.kept import Note

__all__ = ["Shown"]

_BEARER = {"Authorization": "Bearer {value}"}


class Shown:
    """The declared probes of one secret, and the token that is kept for them.

    :param probes: as ``secret_probe`` takes those of the type ``token``, with ``version`` ``new`` or ``old``.
    :param path: where a token of the former key lies meanwhile.
    :param wait: seconds to ask again.
    """

    def __init__(self, client: Client, probes: Sequence[Mapping[str, Any]], path: str, wait: float) -> None:
        self._client, self._path, self._wait = client, path, wait
        self._probes = [
            {
                **{key: value for key, value in probe.items() if value is not None and key != "token"},
                "type": "http",
                "secret": "token",
                "headers": probe.get("headers") or (None if probe.get("body") else _BEARER),
            }
            for probe in probes
        ]

    def keep(self, note: Note | None) -> None:
        """Before a promote: have a token of the former key issued, where one will be shown."""
        is_before = note is not None and bool(note.former) and note.signs != note.made
        if note is None or not is_before or not self._of("old") or os.path.lexists(self._path):
            return
        try:
            issued = self._client.issued()
        except KeyturnError as error:
            if error.code not in PASSING:
                raise
            return
        if issued.kid == note.former:
            atomic.private_dir(os.path.dirname(self._path))
            atomic.write_file(self._path, issued.token.encode(), 0o600)

    def forget(self) -> None:
        """The token of the former key is not needed any more."""
        atomic.remove_file(self._path)

    def show(self, versions: Sequence[str] = ("new", "old")) -> list[dict[str, Any]]:
        """Ask with a fresh token, and with that of the former key as long as it is kept and has not ended.

        :returns: as :func:`probes.run_probes`.
        :raises KeyturnError: ``signing-api-shown`` where one is not accepted.
        """
        tokens: dict[str, bytes] = {}
        if "old" in versions and os.path.lexists(self._path):
            kept = atomic.read_file(self._path)
            if not has_ended(kept.decode("ascii", "replace"), time.time()):
                tokens["old"] = kept
        if self._of("new"):
            tokens["new"] = self._client.issued().token.encode()
        asked = [probe for probe in self._probes if probe["version"] in tokens]
        results = run_probes(asked, lambda _secret, version: tokens[version], self._wait)
        wrong = [f"{one['name']}: {one['result']} ({one['detail']})" for one in results if not one["passed"]]
        if wrong:
            hint = "Look whether it verifies with every published key, and how long it caches them"
            raise KeyturnError("signing-api-shown", "; ".join(wrong), where=str(self._client.api["base"]), hint=hint)
        return [{**one, "type": "token"} for one in results]

    def _of(self, version: str) -> list[dict[str, Any]]:
        return [probe for probe in self._probes if probe["version"] == version]
