# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published verification keys: read and checked, how long caches may show them, and whether all endpoints agree."""

from __future__ import annotations
