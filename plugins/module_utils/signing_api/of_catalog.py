# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog's field ``key_api``: a secret whose versions an issuer keeps behind its admin HTTP API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import (
    DURATION,
    Field,
    Shape,
    nearest,
    parse_duration,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.declared import API, parse_api
from ansible_collections.keyturn.rotation.plugins.module_utils.web import CREDENTIAL_HEADERS

__all__ = [
    "HELD_VALUES",
    "KEY_API",
    "SOURCES",
    "asked_elsewhere",
    "check_key_api",
    "check_probes",
    "job_of_api",
    "summary",
]

#: Where a value comes from: the first three on the controller, the others on the host that asks.
SOURCES = ("file", "env", "variable", "env_file", "host_file")
_SOURCE_FIELDS: Mapping[str, Field] = {
    "file": Field("str", "A file of mode 0600 on the controller"),
    "env": Field("str", "A variable of the controller's environment"),
    "variable": Field("str", "An Ansible variable (vaulted); with env_file, the variable in that file"),
    "env_file": Field("str", "A dotenv file on the host that asks", pattern=r"^/"),
    "host_file": Field("str", "A file of mode 0600 on the host that asks", pattern=r"^/"),
}
_SOURCE = Shape("where a value comes from", _SOURCE_FIELDS)
_HEADER = Shape(
    "header",
    {
        "name": Field("str", "The header's name", required=True),
        "text": Field("str", "A value that is no secret; {kid} and {uuid} are filled in"),
        **_SOURCE_FIELDS,
    },
)
_AROUND: Mapping[str, Field] = {
    "hosts": Field("str|list", "The host that asks; of several the first. By default the state host"),
    "bearer": Field("map", "Where the bearer comes from", shape=_SOURCE),
    "headers": Field("list", "More headers", shape=_HEADER),
    "client_secret": Field("map", "Where the secret of the client in token comes from", shape=_SOURCE),
    "client_cert": Field("map", "Where the client certificate comes from, a PEM with its key", shape=_SOURCE),
    "client_key": Field("str", "Its key on the host that asks, where it is not in the same host_file", pattern=r"^/"),
    "ca_file": Field("str", "Certificates to trust, on the host that asks", pattern=r"^/"),
    "timeout": Field("int", "Seconds for each wait on the network; 10 by default", minimum=1),
    "wait": Field("str", "How long a change may take to be seen; 30s by default", pattern=DURATION),
    "restart": Field("str", "The service that issues, where it reads its keys only when it starts"),
    "initial": Field("bool", "Whether an issuer without a key that signs gets its first one"),
}
KEY_API = Shape("admin API of signing keys", {**API.fields, **_AROUND})
#: Fields whose value never stands in the catalog, with what it is called in the context of its box.
HELD_VALUES: Mapping[str, str] = {"bearer": "bearer", "client_secret": "client", "client_cert": "certificate"}
#: Fields of a secret that an issuer of its own keys has no use for, and why.
_NOT_WITH = {
    "stores": "the issuer holds the versions",
    "data": "the issuer holds the versions",
    "server": "the issuer holds the versions",
    "derive": "the issuer makes its keys itself",
    "value_from": "the issuer makes its keys itself",
    "generate": "the issuer makes its keys itself; key_api.generate.body says how",
    "documents": "only the issuer can sign with its keys",
}
_NEEDS_VALUE = ("active_kid", "http", "command")
#: What a probe of the type ``token`` may say: the issuer makes the token.
_SHOWN = ("name", "version", "url", "method", "headers", "body", "expect", "expect_body", "ca_file", "timeout")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("key-api-invalid", message, where=where, hint=hint)


def _api(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The whole declaration of the API, a preset filled in."""
    return parse_api({field: value for field, value in entry.items() if field in API.fields}, where)


def check_key_api(secret: Mapping[str, Any], services: Mapping[str, Any], where: str) -> None:
    """Refuse a secret behind an API that could not turn, or not go back.

    :raises KeyturnError: ``key-api-invalid``, ``signing-api-invalid``, ``url-invalid``, ``catalog-invalid``.
    """
    for field, why in _NOT_WITH.items():
        if secret.get(field):
            raise _invalid(f"does not go with key_api: {why}", f"{where}.{field}", "Take it away")
    entry, place = secret["key_api"], f"{where}.key_api"
    api = _api(entry, place)
    if not api.get("token") and not api["list"].get("current"):
        hint = (
            "Declare token, so that the kid of a fresh token shows it, or list.current. Without one of them nobody "
            "knows which key to go back to"
        )
        raise _invalid("nothing says which key signs", place, hint)
    if ("client_secret" in entry) != ("token" in api):
        raise _invalid("token and client_secret belong together", place, "Give both, or none")
    for field in HELD_VALUES:
        if field in entry:
            _check_source(entry[field], f"{place}.{field}")
    for index, header in enumerate(entry.get("headers", ())):
        _check_header(header, f"{place}.headers[{index}]")
    if "client_key" in entry and "host_file" not in entry.get("client_cert", {}):
        hint = "Put both into one PEM, or give client_cert: {host_file: ...}"
        raise _invalid("goes with a client_cert in a host_file", f"{place}.client_key", hint)
    _check_restart(secret, services, place)
    check_probes(secret, where)


def _check_source(source: Mapping[str, Any], where: str) -> None:
    named = [field for field in SOURCES if field in source]
    if named in (["variable", "env_file"], ["file"], ["env"], ["variable"], ["host_file"]):
        return
    hint = "On the controller: file, env or variable. On the host that asks: host_file, or env_file with variable"
    raise _invalid("must name exactly one source", where, hint)


def _check_header(header: Mapping[str, Any], where: str) -> None:
    source = {field: value for field, value in header.items() if field in SOURCES}
    if "text" not in header:
        _check_source(source, where)
    elif source:
        raise _invalid("has two values", where, "Give text, or one source of a value")
    elif header["name"].lower() in CREDENTIAL_HEADERS:
        hint = "Use bearer, or a source in place of text"
        raise _invalid("a credential must not stand in the catalog", where, hint)


def _check_restart(secret: Mapping[str, Any], services: Mapping[str, Any], where: str) -> None:
    service = secret["key_api"].get("restart")
    if service is None:
        return
    if service not in services:
        message = f"service {service!r} is not defined"
        raise _invalid(message, f"{where}.restart", nearest(service, services))
    if service in secret.get("consumers", ()):
        hint = "Take it out of consumers: it is restarted where that is needed"
        raise _invalid(f"{service} is a consumer too", f"{where}.restart", hint)


def check_probes(secret: Mapping[str, Any], where: str) -> None:
    """Refuse probes that would need a key: none ever leaves the issuer. Tokens can be had."""
    for index, probe in enumerate(secret.get("probes", ())):
        place = f"{where}.probes[{index}]"
        with_value = probe.get("version", "none") != "none" or probe["type"] == "active_kid"
        if probe["type"] in _NEEDS_VALUE and with_value:
            hint = "key_api.token looks at the kid of a fresh token, and a probe of the type token shows one"
            raise _invalid("needs a key, and the issuer keeps them to itself", place, hint)
        if probe["type"] == "token":
            _check_shown(secret, probe, place)
        if probe["type"] == "log" and "pattern" not in probe:
            raise _invalid("looks for a key that is not known here", place, "Give a pattern")


def _check_shown(secret: Mapping[str, Any], probe: Mapping[str, Any], where: str) -> None:
    if "token" not in secret["key_api"]:
        raise _invalid("no token can be had", where, "Declare key_api.token")
    if probe.get("refused"):
        hint = "Take it away: jwks shows at retire that the former key is gone"
        raise _invalid("nobody can sign with the former key any more", where, hint)
    if probe.get("version") not in ("new", "old"):
        raise _invalid("it is not said whose token is shown", where, "Set version to new or old")
    for field in probe:
        if field not in ("type", "refused", *_SHOWN):
            hint = "The issuer makes the token, and the host that asks it shows it"
            raise _invalid("does not go with key_api", f"{where}.{field}", hint)


def asked_elsewhere(secret: Mapping[str, Any], probe: Mapping[str, Any]) -> bool:
    """Whether the host that asks the issuer asks this probe itself, for it is who gets tokens."""
    return "key_api" in secret and probe["type"] == "token"


def job_of_api(name: str, secret: Mapping[str, Any], overlap_s: int) -> dict[str, Any]:
    """What the host that asks does for a secret of a resolved catalog; empty for other secrets. No value is in it."""
    entry = secret.get("key_api")
    if not entry:
        return {}
    sources = [*HELD_VALUES, "headers", "client_key", "ca_file", "timeout"]
    return {
        "secret": name,
        "host": entry["hosts"][0],
        "api": _api(entry, f"keyturn_secrets.{name}.key_api"),
        **{field: entry[field] for field in sources if field in entry},
        "shown_to": [
            {field: probe[field] for field in _SHOWN if field in probe}
            for probe in secret.get("probes", ())
            if asked_elsewhere(secret, probe)
        ],
        "wait": parse_duration(entry.get("wait", "30s")),
        "restart": entry.get("restart", ""),
        "initial": bool(entry.get("initial", False)),
        "overlap_s": overlap_s,
    }


def summary(secret: Mapping[str, Any]) -> dict[str, Any]:
    """What every host has to know of it: whether its issuer is restarted, and whether its former key stays listed."""
    entry = secret.get("key_api")
    if not entry:
        return {}
    return {
        **({"issuer": entry["restart"]} if "restart" in entry else {}),
        **({} if "disable" in _api(entry, "key_api") else {"stays_listed": True}),
    }
