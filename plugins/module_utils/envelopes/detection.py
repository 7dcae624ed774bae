# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which envelopes open a sample."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.envelope import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.presets import PRESETS
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Match", "Opened", "Opener", "detect", "openers"]

_SLOW_SAMPLE = 5  # where each cell has a key of its own that takes long to derive


class Match(NamedTuple):
    """A preset that opens every sample.

    :param authenticated: that is proof; without it the samples only look right.
    """

    name: str
    authenticated: bool


class Opened(NamedTuple):
    """How many of the samples that were tried open under one key."""

    key: str
    opened: int
    sampled: int


@dataclass(frozen=True)
class Opener:
    """An envelope under the keys that it can have.

    :param envelopes: by what the keys are called.
    """

    name: str
    spec: EnvelopeSpec
    envelopes: Mapping[str, Envelope]

    def opens(self, cells: Sequence[bytes]) -> dict[str, list[bool]]:
        """Which of these cells open, by key."""
        return {
            key: [plaintext is not None for plaintext in envelope.open_many(cells)]
            for key, envelope in self.envelopes.items()
        }

    def count(self, cells: Sequence[bytes]) -> list[Opened]:
        """The keys under which some of these cells open; of those that are slow to open only the first few."""
        tried = cells[:_SLOW_SAMPLE] if self.spec.derives_slowly else cells
        counted = [Opened(key, sum(opens), len(tried)) for key, opens in self.opens(tried).items()]
        return [one for one in counted if one.opened]


def openers(
    candidates: Iterable[tuple[str, EnvelopeSpec]], keys: Mapping[str, bytes], writing: Collection[str] = ()
) -> list[Opener]:
    """Those of these envelopes that can have one of the keys, those that prove what they open first.

    Left out are envelopes that lack a field, and those whose cells are bound to their rows.

    :param candidates: names and specs.
    :param keys: as their stores hold them, by name.
    :param writing: names of the keys that are only what encrypts, where they are lists of several.
    """
    made = []
    for name, spec in candidates:
        if not (spec.missing or spec.needs_context):
            envelopes = dict(_usable(spec, keys))
            known = {key: one.primary if key in writing else one for key, one in envelopes.items()}
            made += [Opener(name, spec, known)] if known else []
    return sorted(made, key=lambda opener: not opener.spec.authenticated)


def _usable(spec: EnvelopeSpec, keys: Mapping[str, bytes]) -> Iterator[tuple[str, Envelope]]:
    for name, value in keys.items():
        try:
            yield name, Envelope(spec, value)
        except KeyturnError as error:
            if error.code != "key-invalid":
                raise


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
    if not samples:
        return []
    return [
        Match(opener.name, opener.spec.authenticated)
        for opener in openers(candidates.items(), {str(number): value for number, value in enumerate(values)})
        if all(map(any, zip(*opener.opens(samples).values())))
    ]
