# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys behind an admin HTTP API: what it is like, what it answers, and the steps of a rotation by it."""
