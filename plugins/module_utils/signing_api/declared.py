# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An admin HTTP API for signing keys, declared by data: where each request goes and what its answer means. Pure."""

from __future__ import annotations

import json
import re
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, nearest
from ansible_collections.keyturn.rotation.plugins.module_utils.web import check_url

__all__ = ["API", "PRESETS", "address", "body", "header", "parse_api"]

_RULE = Shape(
    "what a member says",
    {
        "member": Field("str", "The member of a key", required=True),
        "is": Field("list", "What it is then", required=True),
    },
)
_REQUEST: Mapping[str, Field] = {
    "method": Field("str", "The HTTP method", pattern=r"^[A-Z]+$"),
    "path": Field("str", "The path below base, with a query where wanted; {kid} stands for the kid", pattern=r"^/"),
    "body": Field("map", "JSON to send; {kid} stands for the kid"),
    "auth": Field("bool", "Whether the bearer and the headers go along; true by default"),
}
_CHANGE = Shape("request", _REQUEST)
_GENERATE = Shape("request", {**_REQUEST, "kid": Field("str", "Where in the answer the new kid is; empty for nowhere")})
_LIST = Shape(
    "request",
    {
        **_REQUEST,
        "keys": Field("str", "Where in the answer the list is; empty where the answer is the list"),
        "kid": Field("str", "Where in a key its kid is"),
        "current": Field("map", "How a key shows that it signs", shape=_RULE),
        "usable": Field("map", "How a key shows that it is accepted; all are by default", shape=_RULE),
    },
)
_TOKEN = Shape(
    "request of a token",
    {
        "path": Field("str", "The path below base", required=True, pattern=r"^/"),
        "client": Field("str", "The client's identifier", required=True),
        "scope": Field("str", "The scope to ask for"),
        "auth": Field("str", "Where the client's secret goes", choices=("basic", "body")),
    },
)
#: What may be declared of an API.
API = Shape(
    "signing key API",
    {
        "base": Field("str", "The address that all paths are below", required=True),
        "shape": Field("str", "A preset"),
        "list": Field("map", "How keys are listed", shape=_LIST),
        "generate": Field("map", "How the next key is made", shape=_GENERATE),
        "promote": Field("map", "How a key is made the current one", shape=_CHANGE),
        "disable": Field("map", "How a key is disabled", shape=_CHANGE),
        "token": Field("map", "How a token is issued", shape=_TOKEN),
    },
)
_BY_PATH: dict[str, dict[str, Any]] = {
    "list": {"method": "GET", "path": "/.well-known/jwks.json", "keys": "keys", "kid": "kid", "auth": False},
    "generate": {"method": "POST", "path": "/api/v1/admin/keys/rotate", "kid": "nextKid"},
    "promote": {"method": "POST", "path": "/api/v1/admin/keys/{kid}/promote"},
}
#: Known APIs; what is declared besides goes before what they say.
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "by_path": _BY_PATH,
    "by_query": {**_BY_PATH, "promote": {"method": "POST", "path": "/api/v1/admin/keys/promote?kid={kid}"}},
}
_PLACE = re.compile(r"\{(\w*)\}")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("signing-api-invalid", message, where=where, hint=hint)


def parse_api(data: Mapping[str, Any], where: str = "api") -> dict[str, Any]:
    """The whole declaration: the preset filled up with what is given.

    :returns: ``base``, ``list``, ``generate``, ``promote``, and ``disable`` and ``token`` where there are any.
    :raises KeyturnError: ``signing-api-invalid``, ``url-invalid``.
    """
    try:
        API.check(data, where)
    except KeyturnError as error:
        raise _invalid(error.message, error.where, error.hint) from None
    shape = data.get("shape") or ""
    if shape and shape not in PRESETS:
        raise _invalid(f"unknown shape {shape!r}", where, nearest(shape, PRESETS))
    check_url(data["base"], f"{where}.base")
    if urllib.parse.urlsplit(data["base"]).query:
        raise _invalid("the address has a query", f"{where}.base", "Put it into the paths")
    api: dict[str, Any] = {"base": data["base"].rstrip("/")}
    for part in ("list", "generate", "promote", "disable"):
        known = {**PRESETS.get(shape, {}).get(part, {}), **(data.get(part) or {})}
        if known or part != "disable":
            api[part] = _whole_request(part, known, f"{where}.{part}")
    if data.get("token"):
        api["token"] = dict(data["token"])
    return api


def _whole_request(part: str, request: dict[str, Any], where: str) -> dict[str, Any]:
    if not request.get("path"):
        raise _invalid("field 'path' is missing", where, "Name it, or a shape")
    text = request["path"] + json.dumps(request.get("body") or {}, ensure_ascii=False)
    names = set(_PLACE.findall(request["path"])) | ({"kid"} if "{kid}" in text else set())
    wanted = {"kid"} if part in ("promote", "disable") else set()
    if names != wanted:
        hint = "Put {kid} into its path or its body" if wanted else "No key is named here: take {...} away"
        raise _invalid("does not say which key it is about" if wanted else "names a key", where, hint)
    default = {"method": "GET" if part == "list" else "POST", "auth": True}
    return {**default, **request}


def address(api: Mapping[str, Any], request: Mapping[str, Any], kid: str = "") -> str:
    """Where a request goes; the kid is percent-encoded.

    :raises KeyturnError: ``signing-api-invalid`` for a kid that would change the path.
    """
    if kid in (".", ".."):
        raise _invalid("this kid cannot stand in an address", repr(kid), "Send it in the body")
    return str(api["base"]) + str(request["path"]).replace("{kid}", urllib.parse.quote(kid, safe=""))


def body(request: Mapping[str, Any], kid: str = "") -> bytes | None:
    """The JSON that goes along; None where there is none."""
    content = request.get("body")
    return None if content is None else json.dumps(_put(content, kid)).encode()


def _put(content: Any, kid: str) -> Any:
    if isinstance(content, str):
        return content.replace("{kid}", kid)
    if isinstance(content, Mapping):
        return {key: _put(value, kid) for key, value in content.items()}
    return [_put(value, kid) for value in content] if isinstance(content, list) else content


def header(text: str, kid: str) -> str:
    """A header of one request: ``{kid}`` is the kid that it is about, ``{uuid}`` new each time."""
    return text.replace("{kid}", kid).replace("{uuid}", str(uuid.uuid4()))
