# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which presets open a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.envelope import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.presets import PRESETS
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Match", "detect"]


class Match(NamedTuple):
    """A preset that opens every sample.

    :param authenticated: that is proof; without it the samples only look right.
    """

    name: str
    authenticated: bool


def detect(
    cells: bytes | Sequence[bytes],
    keys: bytes | Sequence[bytes],
    candidates: Mapping[str, EnvelopeSpec] = PRESETS,
) -> list[Match]:
    """The presets that open every one of these samples under one of these keys, those that prove it first.

    None for no samples. Presets that lack a field, or whose cells are bound to their rows, are not tried.

    :param candidates: specs by name.
    """
    samples = [cells] if isinstance(cells, bytes) else cells
    values = [keys] if isinstance(keys, bytes) else keys
    found = []
    for name, spec in candidates.items():
        if spec.missing or spec.needs_context or not samples:
            continue
        envelopes = list(_usable(spec, values))
        if all(any(envelope.open(sample) is not None for envelope in envelopes) for sample in samples):
            found.append(Match(name, spec.authenticated))
    return sorted(found, key=lambda match: not match.authenticated)


def _usable(spec: EnvelopeSpec, values: Sequence[bytes]) -> Iterator[Envelope]:
    for value in values:
        try:
            yield Envelope(spec, value)
        except KeyturnError as error:
            if error.code != "key-invalid":
                raise
