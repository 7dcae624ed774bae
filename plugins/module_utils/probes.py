# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared tests that a version of a secret is accepted, or refused.

A refusal proves something only if the endpoint lives and takes the new version: so a probe that expects one asks with
the old version and, in the same breath, with the new one. An endpoint that is down proves nothing (``unproven``).
A log that says nothing proves nothing either. A value goes into headers and bodies, or on a command's standard input;
never into an address, argv or environment.
"""

from __future__ import annotations

import base64
import calendar
import hmac
import json
import re
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils import values, web
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry
from ansible_collections.keyturn.rotation.plugins.module_utils.polling import pauses
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import parse_duration
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs.counting import Counted

__all__ = ["PROBE_TYPES", "ProbeType", "Reply", "Verdict", "fill", "misplaced_values", "run", "run_probes"]

ACCEPTED, REFUSED, UNPROVEN, FAILED = "accepted", "refused", "unproven", "failed"
_TIMEOUT = 10.0

Probe = Mapping[str, Any]
#: (secret, version) to the value.
Values = Callable[[str, str], bytes]


@dataclass(frozen=True)
class Reply:
    """What an endpoint said.

    :param code: HTTP status or exit code; None when there was no answer.
    :param detail: short; holds nothing that was sent or received.
    """

    code: int | None
    detail: str
    body: str = ""


@dataclass(frozen=True)
class ProbeType:
    """One way to ask.

    :param ask: asks once, with a value or without.
    :param validate: raises ``probe-invalid`` for a probe that could not test anything.
    :param accepted: codes that mean yes, where the probe names none.
    :param refused: codes that mean no, where the probe names none.
    :param judge: judges by itself, where an answer is no code.
    """

    ask: Callable[[Probe, bytes | None], Reply]
    validate: Callable[[Probe, str], None]
    accepted: tuple[int, ...]
    refused: tuple[int, ...]
    judge: Callable[[Probe, Values], Verdict] | None = None


@dataclass(frozen=True)
class Verdict:
    """The result of one probe: ``accepted``, ``refused``, ``unproven`` or ``failed``, and whether that was wanted."""

    result: str
    passed: bool
    detail: str


# -- templates ---------------------------------------------------------------------------------------------------------

_TEMPLATE = re.compile(r"\{value(?::(json|url|base64|basic:[^{}:]+))?\}")


def fill(text: str, value: bytes) -> str:
    """Put a value where ``{value}`` stands.

    ``{value:json}`` is a JSON string with its quotes, ``{value:url}`` percent-encoded, ``{value:base64}`` base64,
    ``{value:basic:USER}`` base64 of ``USER:value`` for the header ``Authorization: Basic`` (RFC 7617).

    :raises KeyturnError: ``value-unusable`` for bytes that are no UTF-8 where they stand as text.
    """

    def encode(found: re.Match[str]) -> str:
        form = found[1] or ""
        if form == "base64":
            return base64.b64encode(value).decode()
        if form.startswith("basic:"):
            return base64.b64encode(form[len("basic:") :].encode() + b":" + value).decode()
        if form == "url":
            return urllib.parse.quote(value, safe="")
        return json.dumps(_text(value)) if form == "json" else _text(value)

    return _TEMPLATE.sub(encode, text)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise KeyturnError(
            "value-unusable", "this value is no text", where="{value}", hint="Use {value:base64} or {value:url}"
        ) from None


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("probe-invalid", message, where=where, hint=hint)


# -- http --------------------------------------------------------------------------------------------------------------


def _ask_http(probe: Probe, value: bytes | None) -> Reply:
    headers = {str(name): str(text) for name, text in (probe.get("headers") or {}).items()}
    body = probe.get("body")
    if value is not None:
        headers = {name: fill(text, value) for name, text in headers.items()}
        body = fill(body, value) if body is not None else None
    answer = web.ask(
        web.Question(
            probe["url"],
            method=probe.get("method") or ("GET" if body is None else "POST"),
            headers=headers,
            body=None if body is None else body.encode(),
            timeout=float(probe.get("timeout") or _TIMEOUT),
            ca_file=probe.get("ca_file"),
        )
    )
    return Reply(answer.status, f"HTTP {answer.status}" if answer.status else answer.reason, answer.body)


def _validate_http(probe: Probe, where: str) -> None:
    if not probe.get("url"):
        raise _invalid("field 'url' is missing", where, "Give the address")
    web.check_url(probe["url"], where)
    if not re.fullmatch(r"[A-Za-z]*", probe.get("method") or ""):
        raise _invalid("method is no HTTP method", where, "Write GET or POST")
    if "{value" in urllib.parse.unquote(probe["url"]):
        raise _invalid("the value must not stand in the address", where, "Servers log it. Use a header or the body")
    texts = [str(text) for text in (probe.get("headers") or {}).values()] + [probe.get("body") or ""]
    used = any(_TEMPLATE.search(text) for text in texts)
    if _version(probe) and not used:
        raise _invalid("nothing in it uses the value", where, "Put the value into a header or the body")
    if used and not _version(probe):
        raise _invalid("it uses the value but names no version", where, "Set version to new or old")


# -- tokens ------------------------------------------------------------------------------------------------------------

_BEARER = {"Authorization": "Bearer {value}"}


def _as_http(probe: Probe) -> Probe:
    """A probe with a token is one by HTTP; the token stands where the value would."""
    used = probe.get("headers") or probe.get("body")
    return probe if used else {**probe, "headers": _BEARER}


def _token_of(probe: Probe) -> dict[str, Any]:
    return {key: value for key, value in (probe.get("token") or {}).items() if value is not None}


def _ask_with_token(probe: Probe, value: bytes | None) -> Reply:
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import kid_in
    from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import issued_at, sign_token

    key = value or b""
    kid = str((probe.get("kids") or {}).get(_version(probe)) or kid_in(key))
    spec = _token_of(probe)
    return _ask_http(_as_http(probe), sign_token(key, spec, kid, issued_at(spec, time.time())))


def _validate_token(probe: Probe, where: str) -> None:
    from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import check_token

    if not _version(probe):
        raise _invalid("it is not said which version signs the token", where, "Set version to new or old")
    _validate_http(_as_http(probe), where)
    check_token(_token_of(probe), where)


# -- commands ----------------------------------------------------------------------------------------------------------


def _ask_command(probe: Probe, value: bytes | None) -> Reply:
    ending = run_quietly(probe["command"], float(probe.get("timeout") or _TIMEOUT), value)
    return Reply(ending.code, ending.reason if ending.code is None else f"exit code {ending.code}")


def _validate_command(probe: Probe, where: str) -> None:
    if not probe.get("command"):
        raise _invalid("field 'command' is missing", where, "Give the command as a list")
    if any(_TEMPLATE.search(str(word)) for word in probe["command"]):
        raise _invalid("the value must not stand in a command line", where, "The command reads it from standard input")
    if probe.get("expect_body"):
        raise _invalid("expect_body is for http", where, "What a command prints is not read; let it exit with a code")


# -- keysets ----------------------------------------------------------------------------------------------------------


def _entry(value: bytes | None) -> Entry:
    return Entry.decode(value or b"", "the value of this probe")


def _judge_active_kid(probe: Probe, value_of: Values) -> Verdict:
    """Whether what a service signs, or says that it signs with, has the kid of the version."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import kids_in

    kid = _entry(value_of(str(probe.get("secret")), _version(probe))).kid
    reply = _ask_http(probe, None)
    if reply.code not in (probe.get("expect") or (200,)):
        return Verdict(FAILED, False, reply.detail)
    kids = kids_in(reply.body)
    if not kids:
        return Verdict(UNPROVEN, False, f"{reply.detail}, but the answer names no kid")
    if kids == {kid}:
        return Verdict(ACCEPTED, True, f"it signs with kid {kid}")
    return Verdict(REFUSED, False, "it still signs with another kid")


def _validate_active_kid(probe: Probe, where: str) -> None:
    if not _version(probe) or probe.get("refused"):
        raise _invalid("it looks for the kid of a version", where, "Set version to new, and refused to false")
    _validate_http({**probe, "version": "none"}, where)


# -- containers --------------------------------------------------------------------------------------------------------


def _judge_containers(probe: Probe, value_of: Values) -> Verdict:
    """No container of the service may have the old value in its environment any more.

    A variable that is empty is told: it may be meant, or Compose has not found the file that sets it.
    """
    from ansible_collections.keyturn.rotation.plugins.module_utils.container_env import blanks, environments, holders

    secret = str(probe.get("secret"))
    new = value_of(secret, "new")
    try:
        old = value_of(secret, "old")
    except KeyturnError as error:
        if error.code != "file-missing":
            raise
        return Verdict(ACCEPTED, True, "there was no value before")
    if hmac.compare_digest(old, new):
        return Verdict(ACCEPTED, True, "the value has not changed")
    found = environments({"name": probe["service"], **probe}, float(probe.get("timeout") or _TIMEOUT))
    if not found:
        return Verdict(UNPROVEN, False, "it has no container")
    stale = holders(found, old, new)
    if stale:
        places = ", ".join(f"{container} has it in {variable}" for container, variable in stale)
        return Verdict(FAILED, False, f"the old value is still there: {places}. Make the containers anew")
    fresh = {container for container, _variable in holders(found, new, old)}
    empty = [place for place in blanks(found, probe.get("variables") or ()) if place[0] not in fresh]
    told = "".join(f"; {variable} is empty in {container}" for container, variable in empty)
    counted = f"{len(fresh)} of {len(found)} containers have the new value, none has the old one"
    return Verdict(ACCEPTED, True, counted + told)


def _ask_nothing(_probe: Probe, _value: bytes | None) -> Reply:
    return Reply(None, "this probe is judged by itself")


def _validate_containers(probe: Probe, where: str) -> None:
    if not probe.get("service"):
        raise _invalid("field 'service' is missing", where, "Name the service of Docker Compose")
    if not (probe.get("project") or probe.get("project_dir")):
        raise _invalid("field 'project' is missing", where, "Name the project, or its folder")
    if _version(probe) != "old" or probe.get("refused"):
        raise _invalid("it looks for the old version", where, "Set version to old, and refused to false")


# -- logs --------------------------------------------------------------------------------------------------------------

_KID = "{kid}"
_SILENT = "nothing was logged at all in this time"


def _since(probe: Probe) -> float:
    """From when a log counts, in seconds since 1970: a time span before now, or the time that the caller gives."""
    said = str(probe.get("since") or "rotation")
    if said != "rotation":
        return time.time() - parse_duration(said, "since")
    return float(calendar.timegm(time.strptime(str(probe["started_at"])[:19], "%Y-%m-%dT%H:%M:%S")))


def _with_kid(probe: Probe, version: str, value_of: Values) -> str:
    """The pattern with the kid of a version in it."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import kid_in

    pattern = str(probe["pattern"])
    if _KID not in pattern:
        return pattern
    kid = (probe.get("kids") or {}).get(version) or kid_in(value_of(str(probe.get("secret")), version))
    if not kid:
        raise _invalid(f"the kid of the {version} version is not known", "log", "Give it in kids")
    return pattern.replace(_KID, re.escape(str(kid)))


def _judge_log(probe: Probe, value_of: Values) -> Verdict:
    """Patterns that must or must not be there; the use of the old version; or the value itself."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs import counting
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs.sources import lines_since

    since, where = _since(probe), f"probe {probe.get('name') or 'log'}"

    def counted(pattern: str) -> counting.Counted:
        return counting.count(lines_since(probe, since, where), pattern)

    try:
        if not probe.get("pattern"):
            value = value_of(str(probe["secret"]), _version(probe))
            return _judge_leak(counting.holding(lines_since(probe, since, where), value))
        if probe.get("refused"):
            return _judge_use(probe, counted, value_of)
        return _judge_pattern(probe, counted(_with_kid(probe, _version(probe) or "new", value_of)))
    except KeyturnError as error:
        if error.code not in ("log-unreadable", "docker-unreachable", "docker-library-missing", "value-short"):
            raise
        return Verdict(UNPROVEN, False, f"{error.message} ({error.where})")


def _judge_leak(found: Counted) -> Verdict:
    if found.matches:
        return Verdict(FAILED, False, f"the value stands in {found.matches} lines: it is known to who reads this log")
    if not found.lines:
        return Verdict(UNPROVEN, False, _SILENT)
    return Verdict(ACCEPTED, True, f"the value stands in none of {found.lines} lines")


def _judge_use(probe: Probe, counted: Callable[[str], Counted], value_of: Values) -> Verdict:
    """Silence is no proof: the same log must show the new version in use, or at least that somebody writes it."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs.counting import names

    old = counted(_with_kid(probe, "old", value_of))
    if old.matches:
        who = names(old)
        return Verdict(
            ACCEPTED, False, f"the old version was used {old.matches} times" + (f", by {who}" if who else "")
        )
    if _KID not in str(probe["pattern"]):
        if old.lines:
            return Verdict(REFUSED, True, f"the old version is in none of {old.lines} lines")
        return Verdict(UNPROVEN, False, _SILENT)
    new = counted(_with_kid(probe, "new", value_of))
    if not new.matches:
        return Verdict(UNPROVEN, False, "neither the old nor the new version was used in this time")
    return Verdict(REFUSED, True, f"the old version was not used, the new one {new.matches} times")


def _judge_pattern(probe: Probe, found: Counted) -> Verdict:
    if probe.get("at_most") is not None:
        most = int(probe["at_most"])
        if found.matches > most:
            return Verdict(FAILED, False, f"{found.matches} lines match, at most {most} may{_named(found)}")
        if not found.lines:
            return Verdict(UNPROVEN, False, _SILENT)
        return Verdict(ACCEPTED, True, f"{found.matches} of {found.lines} lines match")
    least = int(probe.get("at_least") or 1)
    if found.dated >= least:
        return Verdict(ACCEPTED, True, f"{found.dated} of {found.lines} lines match")
    undated = f"; {found.matches - found.dated} more are of an unknown time" if found.matches > found.dated else ""
    return Verdict(FAILED, False, f"{found.dated} of {found.lines} lines match, expected {least}{undated}")


def _named(found: Counted) -> str:
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs.counting import names

    return f" ({names(found)})" if found.who else ""


def _validate_log(probe: Probe, where: str) -> None:
    from ansible_collections.keyturn.rotation.plugins.module_utils.logs.sources import source_of

    if source_of(probe, where) == "service" and not (probe.get("project") or probe.get("project_dir")):
        raise _invalid("field 'project' is missing", where, "Name the project, or its folder")
    pattern = str(probe.get("pattern") or "")
    if not pattern and (not _version(probe) or probe.get("refused")):
        raise _invalid(
            "field 'pattern' is missing", where, "Give a pattern, or a version whose value must not be there"
        )
    if probe.get("refused") and not probe.get("since"):
        raise _invalid("it is not said since when the old version must not be used", where, "Set since: 15m")
    if "{value" in pattern:
        raise _invalid("the value must not stand in a pattern", where, "Leave pattern away to look for the value")
    if probe.get("at_least") is not None and probe.get("at_most") is not None:
        raise _invalid("at_least and at_most exclude each other", where, "Name one of them")
    try:
        re.compile(pattern.replace(_KID, "kid"))
    except re.error:
        raise _invalid("pattern is no regular expression", where, "Escape special characters") from None
    try:
        _since({"started_at": "", **probe})
    except (KeyturnError, ValueError):
        raise _invalid(
            "it is not said since when", where, "Set since to a time span like 15m, or give the module a time"
        ) from None


#: How to ask, by a probe's ``type``.
PROBE_TYPES: dict[str, ProbeType] = {
    "http": ProbeType(_ask_http, _validate_http, accepted=(200,), refused=(401, 403)),
    "token": ProbeType(_ask_with_token, _validate_token, accepted=(200,), refused=(401, 403)),
    "command": ProbeType(_ask_command, _validate_command, accepted=(0,), refused=tuple(range(1, 256))),
    "active_kid": ProbeType(_ask_nothing, _validate_active_kid, (), (), _judge_active_kid),
    "log": ProbeType(_ask_nothing, _validate_log, (), (), _judge_log),
    "container_env": ProbeType(_ask_nothing, _validate_containers, (), (), _judge_containers),
}


# -- judging -----------------------------------------------------------------------------------------------------------


def _version(probe: Probe) -> str:
    """``new``, ``old``, or an empty text for a probe that uses no value."""
    version = probe.get("version") or "none"
    return "" if version == "none" else str(version)


def _expected(probe: Probe) -> tuple[int, ...]:
    kind = PROBE_TYPES[probe["type"]]
    return tuple(probe.get("expect") or (kind.refused if probe.get("refused") else kind.accepted))


def _matches(probe: Probe, reply: Reply) -> bool:
    pattern = probe.get("expect_body")
    return reply.code in _expected(probe) and (not pattern or re.search(pattern, reply.body) is not None)


_SAME = ("type", "secret", "url", "method", "headers", "body", "command", "claims", "token")


def _positive(probe: Probe, probes: Sequence[Probe]) -> Probe:
    """The probe that shows the new version accepted: the same one as declared for it, or this one with defaults."""
    for other in probes:
        asks_the_same = all((other.get(key) or None) == (probe.get(key) or None) for key in _SAME)
        if asks_the_same and not other.get("refused") and _version(other) == "new":
            return other
    return {
        **probe,
        "version": "new",
        "refused": False,
        "expect": probe.get("accept"),
        "expect_body": None,
    }


def _say(probe: Probe, reply: Reply) -> str:
    if reply.code is None:
        return reply.detail
    if reply.code in _expected(probe):
        return f"{reply.detail}, but the answer does not match expect_body"
    codes = _expected(probe)
    few = len(codes) < 10
    return f"{reply.detail}, expected {', '.join(map(str, codes)) if few else f'{codes[0]} to {codes[-1]}'}"


def _judge(probe: Probe, probes: Sequence[Probe], value_of: Values) -> Verdict:
    kind, secret, version = PROBE_TYPES[probe["type"]], str(probe.get("secret") or ""), _version(probe)
    if kind.judge is not None:
        return kind.judge(probe, value_of)
    value = value_of(secret, version) if version else None
    if probe.get("refused"):
        return _judge_refusal(probe, _positive(probe, probes), value, value_of(secret, "new"))
    reply = kind.ask(probe, value)
    if _matches(probe, reply):
        return Verdict(ACCEPTED, True, reply.detail)
    return Verdict(REFUSED if reply.code in kind.refused else FAILED, False, _say(probe, reply))


def _judge_refusal(probe: Probe, positive: Probe, old: bytes | None, new: bytes) -> Verdict:
    kind = PROBE_TYPES[probe["type"]]
    if old is None or hmac.compare_digest(old, new):
        return Verdict(UNPROVEN, False, "the old and the new value are the same")
    reply = kind.ask(probe, old)
    if not _matches(probe, reply):
        if _matches(positive, reply):
            return Verdict(ACCEPTED, False, f"{reply.detail}: the old version is still accepted")
        return Verdict(UNPROVEN, False, _say(probe, reply))
    proof = kind.ask(positive, new)
    if not _matches(positive, proof) or _matches(probe, proof):
        return Verdict(
            UNPROVEN, False, f"{reply.detail}, but the new version is not accepted either ({_say(positive, proof)})"
        )
    return Verdict(REFUSED, True, f"{reply.detail}; the new version: {proof.detail}")


def _name(probe: Probe, index: int) -> str:
    if probe.get("name"):
        return str(probe["name"])
    what = " refused" if probe.get("refused") else ""
    return (
        " ".join(filter(None, [f"#{index + 1}", str(probe.get("secret") or ""), probe["type"], _version(probe)])) + what
    )


def _validate(probe: Probe, where: str) -> None:
    kind = PROBE_TYPES.get(probe["type"])
    if kind is None:
        raise _invalid(f"there is no type {probe['type']!r}", where, f"Known are {', '.join(sorted(PROBE_TYPES))}")
    if _version(probe) and not probe.get("secret"):
        raise _invalid("it is not said whose value it uses", where, "Name the secret")
    if probe.get("refused") and _version(probe) != "old":
        raise _invalid("only the old version can be expected to be refused", where, "Set version to old")
    kind.validate(probe, where)
    try:
        re.compile(probe.get("expect_body") or "")
    except re.error:
        raise _invalid("expect_body is no regular expression", where, "Escape special characters") from None


def _check_overlap(probe: Probe, positive: Probe, where: str) -> None:
    both = set(_expected(probe)) & set(_expected(positive))
    if both and not (probe.get("expect_body") or positive.get("expect_body")):
        raise _invalid(
            f"{', '.join(str(code) for code in sorted(both))} would mean both refused and accepted",
            where,
            "expect names the codes of a refusal here, accept those of the new version",
        )


def run_probes(
    probes: Sequence[Probe],
    value_of: Values,
    wait: float = 0.0,
    interval: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Ask every probe, and again those that do not pass, until all do or ``wait`` seconds are over.

    :returns: per probe ``name``, ``type``, ``secret``, ``version``, ``refused`` (whether that is wanted), ``expected``
        (``accepted`` or ``refused``), ``result``, ``passed``, ``detail``.
    :raises KeyturnError: ``probe-invalid``, ``url-invalid``, ``header-invalid``, ``value-unusable``, and what
        ``value_of`` raises; all probes are checked before the first one asks.
    """
    names = [_name(probe, index) for index, probe in enumerate(probes)]
    for probe, name in zip(probes, names):
        _validate(probe, f"probe {name}")
        if probe.get("refused") and PROBE_TYPES[probe["type"]].judge is None:
            _check_overlap(probe, _positive(probe, probes), f"probe {name}")
    deadline = clock() + wait
    verdicts = [_judge(probe, probes, value_of) for probe in probes]
    for pause in pauses(interval):
        left = deadline - clock()
        if left <= 0 or all(verdict.passed for verdict in verdicts):
            break
        sleep(min(pause, left))
        verdicts = [
            verdict if verdict.passed else _judge(probe, probes, value_of) for probe, verdict in zip(probes, verdicts)
        ]
    return [
        {
            "name": name,
            "type": probe["type"],
            "secret": str(probe.get("secret") or ""),
            "version": _version(probe) or "none",
            "refused": bool(probe.get("refused")),
            "expected": REFUSED if probe.get("refused") else ACCEPTED,
            "result": verdict.result,
            "passed": verdict.passed,
            "detail": verdict.detail,
        }
        for probe, name, verdict in zip(probes, names, verdicts)
    ]


# -- the module --------------------------------------------------------------------------------------------------------


def _reader(session: Session, references: Mapping[str, Any]) -> Values:
    """Values by their references, each read once and only when a probe uses it."""
    known: dict[tuple[str, str], bytes] = {}

    def value_of(secret: str, version: str) -> bytes:
        if (secret, version) not in known:
            where = f"values.{secret}.{version}"
            reference = (references.get(secret) or {}).get(version)
            if not isinstance(reference, Mapping):
                raise KeyturnError("reference-missing", "a probe needs this value", where=where, hint="Say where it is")
            if reference.get("value") is not None:
                raise KeyturnError(
                    "reference-invalid",
                    "a value itself is not taken here, it would show in the task's arguments",
                    where=where,
                    hint="Name one of file, env_file with variable, sealed",
                )
            known[secret, version] = values.resolve(session, reference, f"{session.rotation_id}/{secret}/{version}")
        return known[secret, version]

    return value_of


def misplaced_values(params: Mapping[str, Any]) -> list[str]:
    """Values that stand in the arguments although none may: they are refused, and not repeated in the answer."""
    references = [
        reference
        for versions in (params["values"] or {}).values()
        if isinstance(versions, Mapping)
        for reference in versions.values()
    ]
    given = [reference.get("value") if isinstance(reference, Mapping) else reference for reference in references]
    return [str(value) for value in given if value]


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The result of the module ``secret_probe``: ``probes``, ``passed``; a failure keeps both."""
    session = Session.from_params(params)
    references = params["values"] or {}
    only = next(iter(references)) if len(references) == 1 else None
    kids = params.get("kids") or {}
    probes = []
    for probe in params["probes"]:
        secret = probe.get("secret") or (only if _version(probe) else None)
        probes.append({**probe, "secret": secret, "kids": kids.get(secret), "started_at": params.get("since") or ""})
    results = run_probes(probes, _reader(session, references), params["wait"], params["interval"])
    problems = [f"{entry['name']}: {entry['result']} ({entry['detail']})" for entry in results if not entry["passed"]]
    answer: dict[str, Any] = {"changed": False, "probes": results, "passed": not problems}
    if problems and params["fail"]:
        error = KeyturnError("probe-failed", "; ".join(problems), hint="Look at the service and its logs")
        answer.update(error.as_result(), failed=True)
    return answer
