# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether services are well: explicit states only, and none that nobody has seen.

:mod:`look` has the ways to look by the key of a service's ``health``, each in a file of its own that a host reads only
where it is needed; :mod:`call` is the module ``service_health``.
"""
