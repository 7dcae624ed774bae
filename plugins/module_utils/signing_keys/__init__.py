# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys in a database table: what a row means is declared by data, so another shape needs no code."""
