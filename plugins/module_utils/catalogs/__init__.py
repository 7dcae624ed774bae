# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalogs that other programs have, translated into ours, and what a user lays on top."""
