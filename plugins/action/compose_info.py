# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of the catalog on this host are known on the controller: a catalog file and overlays lie there."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import services_on
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction
from ansible_collections.keyturn.rotation.plugins.plugin_utils.catalog_variables import catalog_services


class ActionModule(KeyturnAction):
    """Hand the catalog's services to the module; a host without one has nothing to answer."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Find the services, and ask."""
        arguments = dict(self._task.args)
        if arguments.pop("of_catalog", False):
            services = catalog_services(self._templar, task_vars)
            found = services_on(services, task_vars["groups"], task_vars["inventory_hostname"], "compose")
            if not found:
                return {"changed": False, "skipped": True}
            arguments["services"] = found
        return self.call("compose_info", arguments, task_vars)
