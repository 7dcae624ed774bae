# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed documents in PostgreSQL tables: signed again under another kid, counted, and brought back."""
