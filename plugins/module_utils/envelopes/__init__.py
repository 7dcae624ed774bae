# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envelopes: the byte layout of one encrypted value in a column, declared by data. See ``docs/envelopes.md``."""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.detection import (
    Match,
    Opener,
    detect,
    openers,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.envelope import Envelope
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.keys import check_key
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.plaintext import plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.presets import PRESETS, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec

__all__ = [
    "PRESETS",
    "Envelope",
    "EnvelopeSpec",
    "Match",
    "Opener",
    "check_key",
    "detect",
    "load_spec",
    "openers",
    "plaintext_of",
]
