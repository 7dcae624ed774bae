# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence: what happened in a rotation, sealed and chained. See ``docs/evidence.md``."""

from __future__ import annotations
