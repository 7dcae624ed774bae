# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets: several keys by their kid, one of them active; which forms they have, and what is done to them. Pure."""
