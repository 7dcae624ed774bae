# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small system that uses keys, for the demo and the crash campaigns; not part of the collection.

It shares no code with the collection, so that what it finds unreadable or lost is found independently.
"""
