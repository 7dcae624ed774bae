# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's release, for what is written down about who made something."""

from __future__ import annotations

__all__ = ["RELEASE"]

RELEASE = "0.1.0"
