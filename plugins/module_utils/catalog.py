# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: what the secrets are, where their values live, what depends on them and who reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.columns import check_cleared
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.derive import DERIVE, check_derived
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.overlay import lay_over, lay_over_secrets
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.secrets_config import PROJECT
from ansible_collections.keyturn.rotation.plugins.module_utils.derived import parent_of
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.presets import load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import LIFETIME, check_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.form import parse_form
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import TOKEN
from ansible_collections.keyturn.rotation.plugins.module_utils.keeping import KEEPING, backup_policy, escrow_policy
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.declared import (
    KEYSET,
    PROBE_TYPES,
    check_hosts,
    check_keyset,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.declared import KIND as KEYSET_KIND
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import (
    parse_companions,
    parse_conditions,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shapes import parse_shape
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import (
    DURATION,
    Field,
    Shape,
    nearest,
    parse_duration,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.declared import (
    SERVER,
    check_servers,
    resolved_servers,
    talkers,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.of_catalog import KEY_API
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.declared import KIND as SIGNING_KEY
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.declared import check_signing_key
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import KEY_TABLE
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import open_place
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import command_place
from ansible_collections.keyturn.rotation.plugins.module_utils.web import CREDENTIAL_HEADERS, check_url
from ansible_collections.keyturn.rotation.plugins.module_utils.window import JWKS, WINDOW, declared

__all__ = ["SHAPES", "Catalog", "json_schema", "load_catalog", "merge_fragments", "services_on"]

_KIND = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)?$"
#: The order of phases by kind, where it is not ``replace``.
_STRATEGIES = {"encryption_key": "cutover", KEYSET_KIND: "overlap", SIGNING_KEY: "overlap"}
_HOSTS = Field("str|list", "A group, a host, or a list of them", required=True)
_SOURCE = Shape(
    "where a person's own value comes from, on the controller",
    {
        "file": Field("str", "A file of mode 0600 on the controller"),
        "env": Field("str", "A variable of the controller's environment"),
        "variable": Field("str", "An Ansible variable (vaulted)"),
    },
)
_STORE = Shape(
    "store",
    {
        "hosts": _HOSTS,
        "type": Field("str", "Where the value lives", required=True, choices=("env_file", "file", "keyset_command")),
        "path": Field("str", "An absolute path; commands have none", pattern=r"^/"),
        "variable": Field("str", "The name in the file; the secret's own by default"),
        "layout": Field("str", "How many versions it holds", choices=("single", "list", "pair", "keyset")),
        "separator": Field("str", "Between the versions of a list"),
        "previous_variable": Field("str", "The name of the previous version in a pair"),
        "if_missing": Field("str", "What a missing variable means", choices=("error", "add")),
        "count": Field("int", "How many hosts must be there; a shorter inventory is refused"),
        "newline": Field("bool", "Whether a plain file ends with a newline"),
        "inside": Field("str|map", "The part of the variable or file that is the value: url, or a pattern"),
        "active_variable": Field("str", "A keyset in a dotenv file: the variable with the active kid"),
        "mode": Field("str", "A keyset file: the most that its permissions may be; '0600' by default"),
        "read": Field("list", "A keyset behind commands: prints it as JSON"),
        "provision": Field("list", "A keyset behind commands: adds the key on its standard input"),
        "promote": Field("list", "A keyset behind commands: makes the kid on its standard input active"),
        "remove": Field("list", "A keyset behind commands: removes the kid on its standard input"),
    },
)
_CONDITION = Shape(
    "condition",
    {
        "column": Field("str", "A column of the table", required=True),
        "is": Field("any", "Its value, or a list of values of which it has one", required=True),
    },
)
_DATA = Shape(
    "encrypted column",
    {
        "database": Field("str", "A name from keyturn_databases", required=True),
        "table": Field("str", "The table, with its schema where it is not on the search path", required=True),
        "column": Field("str", "The column", required=True),
        "envelope": Field("str|map", "A preset's name, or a declared layout", required=True),
        "plaintext": Field(
            "str", "What to do with cells that are not encrypted", choices=("encrypt", "keep", "refuse")
        ),
        "may_be_empty": Field("bool", "Whether a table without rows is fine"),
        "new_envelope": Field("str|map", "The envelope under the new key, where it changes with it"),
        "paths": Field("list", "The encrypted members of a JSON value: $.credentials.apiKey, $.accounts[*].token"),
        "list": Field("str", "The separator of several encrypted values in one text"),
        "pattern": Field("str", "A regular expression; its one group is an encrypted value in a larger text"),
        "where": Field("map|list", "Which rows are meant; all of several conditions must hold", shape=_CONDITION),
        "set": Field("map", "Columns that change with the cell: {new: 2, old: 1}, or {hash: sha1, of: key}"),
    },
)
_CLEAR = Shape(
    "column to clear",
    {
        "database": Field("str", "A name from keyturn_databases", required=True),
        "table": Field("str", "The table", required=True),
        "column": Field("str", "The column", required=True),
    },
)
_INDEX = Shape(
    "index to have",
    {
        "database": Field("str", "A name from keyturn_databases", required=True),
        "table": Field("str", "The table", required=True),
        "column": Field("str", "The column", required=True),
        "name": Field("str", "The index's name", required=True),
    },
)
_PROBE_TYPES = ("http", "command", "active_kid", "log", "token")
_STAMPS = Shape(
    "stamps",
    {
        "rotation_id": Field("str", "The column of the rotation"),
        "at": Field("str", "The column of the time"),
        "count": Field("str", "The column of how many times"),
    },
)
_DOCUMENTS = Shape(
    "table of signed documents",
    {
        "database": Field("str", "A name from keyturn_databases", required=True),
        "table": Field("str", "The table, with its schema where it is not on the search path", required=True),
        "document": Field("str", "The column with the JSON object that is signed", required=True),
        "signature": Field("str", "The column with the compact JWS", required=True),
        "tenant": Field("str", "The column that says whose a document is, where each tenant has keys of its own"),
        "kid": Field("str", "The column that says under which kid it is signed"),
        "version": Field("str", "The column with the number of the version"),
        "version_per": Field(
            "list", "Columns that rows of the same document share; their versions are counted together"
        ),
        "stamps": Field("map", "Columns that say when, in which rotation and how often it was signed", shape=_STAMPS),
        "where": Field("map|list", "Which rows are meant; all of several conditions must hold", shape=_CONDITION),
        "unsigned": Field("str", "What to do with rows that have no signature", choices=("keep", "sign")),
        "claims": Field("map", "Claims before the document's own members; {column} is filled in"),
        "lifetime": Field("str", "How long a signature is valid: 1y, 90d", pattern=LIFETIME),
        "header": Field("map", "The header beside alg and kid; {rotation_id} and {now} are filled in"),
        "allow_claims": Field("list", "Claims that a document may bring itself"),
        "may_be_empty": Field("bool", "Whether a table without a row that is meant is fine"),
    },
)
_PROBE = Shape(
    "probe",
    {
        "name": Field("str", "How reports call it"),
        "hosts": Field("str|list", "Where it runs; by default on the hosts of the consumers"),
        "type": Field("str", "How it asks", required=True, choices=_PROBE_TYPES),
        "url": Field("str", "The address"),
        "method": Field("str", "The HTTP method"),
        "headers": Field("map", "Headers; {value} stands for the secret"),
        "body": Field("str", "The body; {value} stands for the secret"),
        "command": Field("list", "The command; the value comes on its standard input"),
        "expect": Field("int|list", "The status, or the exit code"),
        "expect_body": Field("str", "A regular expression that the answer must match"),
        "version": Field("str", "Which version it presents", choices=("new", "old", "none")),
        "refused": Field("bool", "Whether a refusal is what is expected"),
        "timeout": Field("int", "Seconds"),
        "ca_file": Field("str", "Certificates to trust"),
        "token": Field("map", "A token that the version signs; {value} is the token then", shape=TOKEN),
        "path": Field("str|list", "A log file, or several; rotated ones are read too"),
        "unit": Field("str", "A unit in the journal"),
        "directory": Field("str", "A folder of journal files instead of the host's own", pattern=r"^/"),
        "service": Field("str", "A service whose log it is: its unit's journal, or its containers' output"),
        "pattern": Field("str", "What a line must match; {kid} stands for the kid, the group who names somebody"),
        "since": Field("str", "How far back it looks; to the beginning of the rotation by default", pattern=DURATION),
        "at_least": Field("int", "How many lines must match; 1 by default", minimum=1),
        "at_most": Field("int", "How many lines may match", minimum=0),
    },
)
_SECRET = Shape(
    "secret",
    {
        "kind": Field(
            "str", "What rotating it means: a role of this collection, or of another one", required=True, pattern=_KIND
        ),
        "options": Field("map", "What a kind of another collection needs"),
        "strategy": Field("str", "The order of phases its readers allow", choices=("replace", "overlap", "cutover")),
        "description": Field("str", "For people"),
        "generate": Field("map", "How a new value is made"),
        "derive": Field("map", "How it is made from another secret's value", shape=DERIVE),
        "auto_rotate": Field("bool", "Whether it turns when it is due; otherwise only by name. Yes by default"),
        "held": Field("bool", "Whether it is held back; by default where data or a server depends on it unnamed"),
        "keyset": Field("map", "What the readers of a keyset need", shape=KEYSET),
        "value_from": Field("map", "A person's own new value", shape=_SOURCE),
        "old_from": Field("map", "The value the data is under, where no store holds it", shape=_SOURCE),
        "stores": Field("list", "Where the value lives; every kind but signing_key needs one", shape=_STORE),
        "data": Field("list", "Columns encrypted under it", shape=_DATA),
        "key_table": Field("map", "The table that holds signing keys", shape=KEY_TABLE),
        "key_api": Field("map", "The admin HTTP API of the issuer that keeps its signing keys itself", shape=KEY_API),
        "clear": Field("list", "Columns computed from it, emptied once its readers have reloaded", shape=_CLEAR),
        "indexes": Field("list", "Indexes to make where they are missing", shape=_INDEX),
        "documents": Field("list", "Documents signed with it, signed again under the new key", shape=_DOCUMENTS),
        "server": Field("map|list", "Servers that check it: its password changes there too", shape=SERVER),
        "consumers": Field("list", "Services that read it"),
        "probes": Field("list", "Tests that a version is accepted or refused", shape=_PROBE),
        "cryptoperiod": Field("str", "How long a version may stay primary: 90d", pattern=DURATION),
        "sanitize": Field("bool", "Whether retire makes the tables anew, so that their files hold no old ciphertext"),
        "overlap_min": Field("str", "The least time before the previous version is retired: 24h", pattern=DURATION),
        "window": Field("map", "What the overlap window is computed from", shape=WINDOW),
        "jwks": Field("list", "Every address at which verifiers fetch its public keys", shape=JWKS),
        "watch": Field(
            "str",
            "How long logs are watched after an emergency; 1m by default where a log probe has at_most",
            pattern=DURATION,
        ),
        "notice": Field("str", "What users will notice"),
    },
)
_HEALTH = Shape(
    "health check",
    {
        "url": Field("str", "An address that answers when the service is well"),
        "expect_status": Field("int|list", "The status it answers with"),
        "expect_body": Field("str", "A regular expression that the answer must match"),
        "headers": Field("map", "Headers"),
        "ca_file": Field("str", "Certificates to trust"),
        "tcp": Field("str", "host:port"),
        "process": Field("map", "A process by its pid_file"),
        "systemd": Field("str", "A unit"),
        "command": Field("list", "A command that exits with 0"),
        "timeout": Field("int", "Seconds"),
        "running_is_enough": Field("bool", "Whether a running service without a check counts as healthy"),
    },
)
_SERVICE = Shape(
    "service",
    {
        "hosts": _HOSTS,
        "manager": Field("str", "Who starts and stops it", required=True, choices=("systemd", "command", "compose")),
        "unit": Field("str", "The systemd unit"),
        "project_dir": Field("str", "The folder of the Compose project", pattern=r"^/"),
        "files": Field("list", "The Compose files; by default those that it was started with"),
        "env_files": Field("list", "Files for --env-file; by default those that it was started with"),
        "project": Field("str", "The name of the Compose project; the folder's name by default"),
        "service": Field("str", "The name in the Compose files; this entry's own by default"),
        "docker_host": Field("str", "The Docker daemon's address; DOCKER_HOST or the host's own by default"),
        "rolling": Field("bool", "Whether new containers answer before old ones go; needs no fixed port or name"),
        "drain": Field("int", "Seconds between a new container's health and the end of an old one", minimum=0),
        "replicas": Field("int", "How many containers there are; as many as run by default", minimum=1),
        "restart_wait": Field(
            "int", "Seconds in which it must be well after a restart; goes before keyturn_wait", minimum=0
        ),
        "start": Field("list", "The command that starts it"),
        "stop": Field("list", "The command that stops it"),
        "restart": Field("list", "The command that restarts it; stop and start by default"),
        "command_timeout": Field(
            "int", "Seconds in which each of these commands must end, or it is killed; 300 by default", minimum=1
        ),
        "health": Field("map", "How to see that it is well", shape=_HEALTH),
        "depends_on": Field("list", "Services that must be well before it"),
        "quiesce": Field("str", "What it does while the key turns", choices=("stop", "writes", "none")),
    },
)
_DATABASE = Shape(
    "database",
    {
        "hosts": Field(
            "str|list",
            "The host that talks to it; of a group or several, the first leads and others help",
            required=True,
        ),
        "dsn": Field("str", "A libpq connection string; sealed on its way"),
        "dsn_file": Field("str", "A file of mode 0600 on that host with the connection string", pattern=r"^/"),
        "max_wait": Field("str", "How long locks are tried for before the run goes back", pattern=DURATION),
        "search": Field("bool", "Whether the plan looks for columns that the catalog does not name; yes by default"),
        "cut_over": Field("str", "How rows are swapped; auto by default", choices=("auto", "rows", "columns")),
        "max_writer_wait": Field(
            "str", "The longest wait of writers for which auto swaps by rows; 1s by default", pattern=DURATION
        ),
        "workers": Field(
            "int", "Processes that work side by side; 0, the default, for as many as suit the host", minimum=0
        ),
        "batch_rows": Field("int", "Rows of one transaction at most; 500 by default", minimum=1),
        "rate": Field("int", "Rows per second at most; 0, the default, for no limit", minimum=0),
        "max_lag": Field("int", "MiB of WAL that a standby may be behind; 0, the default, for no limit", minimum=0),
        "calm": Field("bool", "Gently, for a busy database: one process, 200 rows at a time, locks of 50 ms"),
    },
)

#: The shapes by the variable they describe.
SHAPES: dict[str, Shape] = {"keyturn_databases": _DATABASE, "keyturn_services": _SERVICE, "keyturn_secrets": _SECRET}


#: The sections of a secret that are work in a database.
_IN_DATABASES = ("data", "clear", "indexes", "documents")

_LAID_OVER = {
    "type": "object",
    "description": "Fields laid over those of the catalog, by name",
    "additionalProperties": {"type": "object"},
}


def json_schema() -> dict[str, Any]:
    """A JSON Schema for a variables file that holds a catalog."""
    properties: dict[str, Any] = {
        variable: {"type": "object", "additionalProperties": shape.json_schema()} for variable, shape in SHAPES.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "keyturn catalog",
        "type": "object",
        "properties": {
            **properties,
            **{variable: shape.json_schema() for variable, shape in KEEPING.items()},
            "keyturn_state_host": {"type": "string", "description": "The host that keeps the state"},
            "keyturn_catalog_file": {"type": "string", "description": "A secrets-config.yaml on the controller"},
            "keyturn_project": {**PROJECT.json_schema(), "description": "Where the paths of that file lie"},
            "keyturn_services_overlay": _LAID_OVER,
        },
        "patternProperties": {"^keyturn_secrets_": properties["keyturn_secrets"], "^keyturn_overlay(_|$)": _LAID_OVER},
    }


@dataclass(frozen=True)
class Catalog:
    """A checked catalog; host patterns are resolved to sorted lists of hosts."""

    secrets: Mapping[str, Mapping[str, Any]]
    services: Mapping[str, Mapping[str, Any]]
    databases: Mapping[str, Mapping[str, Any]]
    state_host: str
    backup: Mapping[str, Any]
    escrow: Mapping[str, Any]
    project: Mapping[str, Any]

    def databases_of(self, name: str) -> dict[str, list[str]]:
        """The databases with work of this secret, each with its hosts; the first leads, the others help."""
        secret = self.secrets[name]
        entries = [entry for section in _IN_DATABASES for entry in secret.get(section, ())]
        found = {entry["database"]: self.databases[entry["database"]]["hosts"] for entry in entries}
        if "key_table" in secret:
            name = secret["key_table"]["database"]
            found[name] = self.databases[name]["hosts"][:1]
        return found

    def hosts_of(self, name: str) -> list[str]:
        """All hosts that a rotation of this secret needs, the state host among them."""
        secret = self.secrets[name]
        found = {self.state_host}
        for store in secret["stores"]:
            found.update(store["hosts"])
        if "key_api" in secret:
            found.add(secret["key_api"]["hosts"][0])
            if "restart" in secret["key_api"]:
                found.update(self.services[secret["key_api"]["restart"]]["hosts"])
        under = secret.get("key_table", {}).get("under")
        if under:
            found.add(self.secrets[under]["stores"][0]["hosts"][0])
        found.update(hosts[0] for hosts in self.databases_of(name).values())
        for service in secret.get("consumers", ()):
            found.update(self.services[service]["hosts"])
        for probe in secret.get("probes", ()):
            found.update(probe.get("hosts", ()))
        for endpoint in secret.get("jwks", ()):
            found.update(endpoint["hosts"])
            if "service" in endpoint:
                found.update(self.services[endpoint["service"]]["hosts"])
        for server in secret.get("server", ()):
            found.update(talkers(server, self.databases))
        return sorted(found)


def merge_fragments(variables: Mapping[str, Any]) -> dict[str, Any]:
    """``keyturn_secrets`` and every ``keyturn_secrets_<anything>`` as one mapping.

    :raises KeyturnError: ``secret-twice`` when two of them define the same name.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for variable in sorted(variables):
        if variable != "keyturn_secrets" and not variable.startswith("keyturn_secrets_"):
            continue
        fragment = variables[variable]
        if not isinstance(fragment, Mapping):
            raise KeyturnError(
                "catalog-invalid", "must be a mapping of secrets", where=variable, hint="See docs/catalog.md"
            )
        for name, entry in fragment.items():
            if name in merged:
                raise KeyturnError(
                    "secret-twice",
                    f"{name} is defined in {origin[name]} and again here",
                    where=variable,
                    hint="Keep one of the two",
                )
            merged[name] = entry
            origin[name] = variable
    return merged


def _resolve(value: Any, groups: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """Host names behind a group, a host, or a list of both."""
    known = set(groups.get("all", ()))
    found: set[str] = set()
    for word in [value] if isinstance(value, str) else value:
        if word in groups:
            found.update(groups[word])
        elif word in known:
            found.add(word)
        else:
            raise KeyturnError(
                "host-unknown",
                f"{word!r} is no group and no host of the inventory",
                where=where,
                hint=nearest(str(word), {*groups, *known}),
            )
    if not found:
        raise KeyturnError("host-unknown", "no host in this group", where=where, hint="Add hosts to the inventory")
    return sorted(found)


def services_on(services: Any, groups: Mapping[str, Sequence[str]], host: str, manager: str) -> list[dict[str, Any]]:
    """The services of one manager on one host, each with its name. What is wrong in the catalog is left out here."""
    found = []
    for name, service in services.items() if isinstance(services, Mapping) else ():
        if not isinstance(service, Mapping) or service.get("manager") != manager:
            continue
        try:
            hosts = _resolve(service.get("hosts", ()), groups, f"keyturn_services.{name}.hosts")
        except (KeyturnError, TypeError):  # the plan says it, with its place
            continue
        if host in hosts:
            found.append({"name": name, **{key: value for key, value in service.items() if key != "hosts"}})
    return found


def _known(name: Any, table: Mapping[str, Any], what: str, where: str) -> None:
    if name not in table:
        raise KeyturnError(
            "catalog-invalid", f"{what} {str(name)!r} is not defined", where=where, hint=nearest(str(name), table)
        )


def _check_headers(headers: Mapping[str, Any], where: str) -> None:
    """Refuse a credential that is written out: the plan is shown and kept."""
    for name, text in headers.items():
        if str(name).lower() in CREDENTIAL_HEADERS and "{value" not in str(text):
            raise KeyturnError(
                "catalog-invalid",
                "a credential must not stand in the catalog",
                where=f"{where}.headers.{name}",
                hint="Use {value} in a probe, or a command that reads the credential itself",
            )


def _check_service(name: str, service: Mapping[str, Any], services: Mapping[str, Any]) -> None:
    where = f"keyturn_services.{name}"
    if service["manager"] == "systemd" and "unit" not in service:
        raise KeyturnError("catalog-invalid", "field 'unit' is missing", where=where, hint="Name the systemd unit")
    if service["manager"] == "compose" and "project_dir" not in service:
        raise KeyturnError(
            "catalog-invalid", "field 'project_dir' is missing", where=where, hint="Name the folder of the project"
        )
    if service["manager"] == "command":
        for line in ("start", "stop"):
            if line not in service:
                raise KeyturnError(
                    "catalog-invalid", f"field {line!r} is missing", where=where, hint="Give the command as a list"
                )
    _check_headers((service.get("health") or {}).get("headers") or {}, f"{where}.health")
    for other in service.get("depends_on", ()):
        _known(other, services, "service", f"{where}.depends_on")


def _check_stores(secret: Mapping[str, Any], where: str) -> None:
    if "stores" not in secret and secret["kind"] != SIGNING_KEY:
        hint = "Say where the value lives"
        raise KeyturnError("catalog-invalid", "field 'stores' is missing", where=where, hint=hint)
    if not secret.get("stores") and secret["kind"] != SIGNING_KEY:
        raise KeyturnError("catalog-invalid", "no store", where=f"{where}.stores", hint="Say where the value lives")
    for index, store in enumerate(secret.get("stores", ())):
        if "inside" in store:
            open_place(store["inside"], f"{where}.stores[{index}].inside")


def _check_envelope(envelope: Any, where: str) -> None:
    """Refuse an envelope that nobody knows, before a host is asked to read cells with it."""
    try:
        load_spec(envelope)
    except KeyturnError as error:
        raise KeyturnError("catalog-invalid", f"{error.where}: {error.message}", where=where, hint=error.hint) from None


def _check_secret(
    name: str, secrets: Mapping[str, Any], services: Mapping[str, Any], databases: Mapping[str, Any]
) -> None:
    where = f"keyturn_secrets.{name}"
    secret = secrets[name]
    for source in ("value_from", "old_from"):
        if source in secret and len(secret[source]) != 1:
            raise KeyturnError(
                "catalog-invalid",
                "must name exactly one source",
                where=f"{where}.{source}",
                hint="file, env or variable",
            )
    if "generate" in secret:
        check_spec(secret["generate"], f"{where}.generate")
    _check_stores(secret, where)
    tables = {"keyturn_databases": databases, "keyturn_services": services}
    check_signing_key(name, secret, secrets, tables, where)
    for section in _IN_DATABASES:
        for index, entry in enumerate(secret.get(section, ())):
            _known(entry["database"], databases, "database", f"{where}.{section}[{index}]")
    for index, entry in enumerate(secret.get("data", ())):
        place = f"{where}.data[{index}]"
        parse_conditions(entry.get("where"), place)
        parse_companions(entry.get("set"), place)
        parse_shape(entry, "", place)
        for field in ("envelope", "new_envelope"):
            if entry.get(field):
                _check_envelope(entry[field], f"{place}.{field}")
    if secret.get("documents") and secret["kind"] in ("encryption_key", "env_secret"):
        hint = "Name them in the entry of the key that signs them"
        message = "documents are signed with a signing key"
        raise KeyturnError("catalog-invalid", message, where=f"{where}.documents", hint=hint)
    for index, entry in enumerate(secret.get("documents", ())):
        place = f"{where}.documents[{index}]"
        parse_conditions(entry.get("where"), place)
        parse_form(entry, place)
    for consumer in secret.get("consumers", ()):
        _known(consumer, services, "service", f"{where}.consumers")
    check_servers(secret, databases, where)
    for index, endpoint in enumerate(secret.get("jwks", ())):
        _check_published(endpoint, services, f"{where}.jwks[{index}]")
    for index, probe in enumerate(secret.get("probes", ())):
        _check_headers(probe.get("headers") or {}, f"{where}.probes[{index}]")
        if probe["type"] in ("http", *PROBE_TYPES) and "url" not in probe:
            raise KeyturnError(
                "catalog-invalid", "field 'url' is missing", where=f"{where}.probes[{index}]", hint="Give the address"
            )
        if probe["type"] == "command" and "command" not in probe:
            raise KeyturnError(
                "catalog-invalid", "field 'command' is missing", where=f"{where}.probes[{index}]", hint="Give a list"
            )
        if probe["type"] == "log":
            _check_log(probe, secret, services, f"{where}.probes[{index}]")
    check_keyset(secret, where)
    declared(secret, where)
    if secret["kind"] == "encryption_key" and not secret.get("data"):
        raise KeyturnError(
            "catalog-invalid",
            "an encryption key without data",
            where=f"{where}.data",
            hint="Name the columns encrypted under it",
        )


def _check_published(endpoint: Mapping[str, Any], services: Mapping[str, Any], where: str) -> None:
    refresh, purge = endpoint.get("refresh", "wait"), endpoint.get("purge", {})
    check_url(endpoint["url"], where)
    _check_headers(endpoint.get("headers") or {}, where)
    if "url" in purge:
        check_url(purge["url"], f"{where}.purge")
    _check_headers(purge.get("headers") or {}, f"{where}.purge")
    if ("purge" in endpoint and refresh != "purge") or ("service" in endpoint) != (refresh == "restart"):
        raise KeyturnError(
            "catalog-invalid",
            "refresh and what belongs to it do not agree",
            where=where,
            hint="purge belongs to refresh: purge, service to refresh: restart",
        )
    if "service" in endpoint:
        _known(endpoint["service"], services, "service", f"{where}.service")


def _check_log(probe: Mapping[str, Any], secret: Mapping[str, Any], services: Mapping[str, Any], where: str) -> None:
    named = [name for name in ("path", "unit", "service") if name in probe]
    if len(named) > 1 or not (named or secret.get("consumers")):
        raise KeyturnError(
            "catalog-invalid",
            "a log needs one source",
            where=where,
            hint="Name path, unit or service, or none for the logs of all consumers",
        )
    for service in [probe["service"]] if "service" in probe else () if named else secret["consumers"]:
        _known(service, services, "service", where)
        if services[service]["manager"] == "command":
            raise KeyturnError(
                "catalog-invalid", f"nobody knows where {service} logs", where=where, hint="Name its log with path"
            )
    if "pattern" not in probe and probe.get("version", "none") == "none":
        raise KeyturnError(
            "catalog-invalid",
            "field 'pattern' is missing",
            where=where,
            hint="Give one, or a version whose value must not be in the log",
        )
    if probe.get("refused") and not ("pattern" in probe and "since" in probe):
        raise KeyturnError(
            "catalog-invalid",
            "a log that shows that the old version is not used needs pattern and since",
            where=where,
            hint="since: 15m",
        )


def load_catalog(variables: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> Catalog:
    """Check the catalog variables and resolve every host pattern.

    :param variables: Ansible variables by name, templated; others than ``keyturn_*`` are ignored.
    :param groups: group name to host names, with ``all``.
    :raises KeyturnError: the first thing that is wrong, with its place.
    """
    tables: dict[str, dict[str, Any]] = {
        "keyturn_databases": dict(variables.get("keyturn_databases") or {}),
        "keyturn_services": lay_over(
            variables.get("keyturn_services") or {},
            variables.get("keyturn_services_overlay") or {},
            "keyturn_services_overlay",
        ),
        "keyturn_secrets": merge_fragments(variables),
    }
    for fragment in sorted(name for name in variables if re.match(r"keyturn_overlay(_|$)", name)):
        tables["keyturn_secrets"] = lay_over_secrets(tables["keyturn_secrets"], variables[fragment] or {}, fragment)
    if not tables["keyturn_secrets"]:
        raise KeyturnError(
            "catalog-empty", "no secret is defined", where="keyturn_secrets", hint="See docs/catalog.md for a first one"
        )
    for variable, entries in tables.items():
        for name, entry in entries.items():
            check_name(str(name), f"name in {variable}")
            SHAPES[variable].check(entry, f"{variable}.{name}")
    databases, services, secrets = tables["keyturn_databases"], tables["keyturn_services"], tables["keyturn_secrets"]
    for name, service in services.items():
        _check_service(name, service, services)
    for name in secrets:
        _check_secret(name, secrets, services, databases)
    check_derived(secrets)
    check_cleared(secrets)
    state = variables.get("keyturn_state_host")
    if not isinstance(state, str) or not state:
        raise KeyturnError(
            "catalog-invalid",
            "is not set",
            where="keyturn_state_host",
            hint="Name the inventory host that keeps locks, open rotations and evidence",
        )
    if state not in groups.get("all", ()):
        raise KeyturnError(
            "host-unknown",
            f"{state!r} is no host of the inventory",
            where="keyturn_state_host",
            hint=nearest(state, groups.get("all", ())),
        )
    resolved_services = {
        name: {**service, "hosts": _resolve(service["hosts"], groups, f"keyturn_services.{name}.hosts")}
        for name, service in services.items()
    }
    resolved = _one_strategy({name: _resolved_secret(name, secret, groups, state) for name, secret in secrets.items()})
    for name, secret in resolved.items():
        check_hosts(secret, resolved_services, f"keyturn_secrets.{name}")
    return Catalog(
        secrets=resolved,
        services=resolved_services,
        databases={name: _resolved_database(name, entry, groups) for name, entry in databases.items()},
        state_host=state,
        backup=backup_policy(variables.get("keyturn_backup")),
        escrow=escrow_policy(variables.get("keyturn_escrow"), lambda hosts, where: _resolve(hosts, groups, where)),
        project=_resolved_project(variables.get("keyturn_project"), groups),
    )


def _resolved_project(project: Any, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Where the project of a catalog file lies; empty without one."""
    if not project:
        return {}
    PROJECT.check(project, "keyturn_project")
    hosts = _resolve(project["hosts"], groups, "keyturn_project.hosts")
    return {"hosts": hosts, "directory": project["directory"]}


def _resolved_database(name: str, entry: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Without the connection string, which stays where it is until it is sealed."""
    where = f"keyturn_databases.{name}"
    hosts = _in_order(entry["hosts"], groups, f"{where}.hosts")
    resolved = {key: value for key, value in entry.items() if key != "dsn"}
    for field in ("max_wait", "max_writer_wait"):
        if field in resolved:
            resolved[field] = parse_duration(resolved[field], f"{where}.{field}")
    return {**resolved, "hosts": hosts}


def _in_order(value: Any, groups: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """Hosts in the order in which they are named: the first leads."""
    hosts: list[str] = []
    for word in [value] if isinstance(value, str) else value:
        hosts += [host for host in _resolve(word, groups, where) if host not in hosts]
    if not hosts:
        raise KeyturnError("host-unknown", "no host is named", where=where, hint="Name a host or a group")
    return hosts


def _one_strategy(secrets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A derived value turns in the same run as its parent, so in the same order of phases."""
    for name, secret in secrets.items():
        parent = parent_of(secret)
        if parent and secret["strategy"] != secrets[parent]["strategy"]:
            raise KeyturnError(
                "catalog-invalid",
                f"is {secret['strategy']}, and {parent}, which it is made from, {secrets[parent]['strategy']}",
                where=f"keyturn_secrets.{name}.strategy",
                hint="Give both the same strategy",
            )
    return secrets


def _resolved_secret(
    name: str, secret: Mapping[str, Any], groups: Mapping[str, Sequence[str]], state_host: str
) -> dict[str, Any]:
    where = f"keyturn_secrets.{name}"
    resolved = dict(secret)
    resolved.setdefault("strategy", _STRATEGIES.get(secret["kind"], "replace"))
    resolved["stores"] = [
        {
            **store,
            "variable": store.get("variable", name),
            "path": store["path"] if "path" in store else command_place(store["read"]),
            "hosts": _resolve(store["hosts"], groups, f"{where}.stores[{index}].hosts"),
        }
        for index, store in enumerate(secret.get("stores", ()))
    ]
    if "server" in secret:
        resolved["server"] = resolved_servers(secret, lambda value, place: _resolve(value, groups, place), where)
    if "key_api" in secret:
        asks = secret["key_api"].get("hosts", state_host)
        resolved["key_api"] = {**secret["key_api"], "hosts": _in_order(asks, groups, f"{where}.key_api.hosts")}
    if "jwks" in secret:
        resolved["jwks"] = [
            {**endpoint, "hosts": _resolve(endpoint.get("hosts", state_host), groups, f"{where}.jwks[{index}].hosts")}
            for index, endpoint in enumerate(secret["jwks"])
        ]
    resolved["probes"] = [
        {**probe, "hosts": _resolve(probe["hosts"], groups, f"{where}.probes[{index}].hosts")}
        if "hosts" in probe
        else dict(probe)
        for index, probe in enumerate(secret.get("probes", ()))
    ]
    return resolved
