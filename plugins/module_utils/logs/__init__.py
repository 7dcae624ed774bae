# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What services have logged since a time: read from files, the journal and containers, and judged."""

from __future__ import annotations
