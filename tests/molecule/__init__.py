# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios of ``extensions/molecule``, run by pytest."""
