# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets in the stores of one host: how they stand (``look``), and how they are turned (``turn``)."""
