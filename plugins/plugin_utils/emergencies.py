# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the account says where a compromised version is replaced: how long it may still be accepted, and what is left
to do. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of
from ansible_collections.keyturn.rotation.plugins.module_utils.window import Exposure, exposure, measured_by
from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import duration

__all__ = ["STATES", "announced", "exposed", "exposures", "has_turned", "longest", "notes", "verdict"]

#: Register status to the states of the new and the old version.
STATES = {"replaced": ("primary", "compromised"), "replacing": ("staged", "compromised")}
_WITHOUT_WATCH = "no logs were watched for failed authentications"


def exposures(plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Exposure]:
    """By secret of an emergency's plan, how long its old version may still be accepted once it is disabled.

    :param answers: by host, what ``jwks_info`` said of the keys of each secret.
    """
    measured = measured_by(answers)
    return {name: exposure(planned, measured.get(name, {})) for name, planned in plan.get("emergency", {}).items()}


def longest(plan: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> int:
    """Seconds after which no cache can show what is disabled; 0 where nothing is."""
    return max((one.seconds for one in exposures(plan, answers).values()), default=0)


def _words(name: str, one: Exposure) -> str:
    parts = " + ".join(f"{duration(part.seconds)} {part.name} ({part.source})" for part in one.parts)
    known = f"; {one.unknown}" if one.unknown else ""
    return f"{name}: tokens of the old key can still be accepted for {duration(one.seconds)} = {parts}{known}"


def announced(run: Any) -> list[str]:
    """The lines of the plan."""
    found = []
    for name, one in exposures(run.plan, run.answers.get("jwks", {})).items():
        found.append(
            f"  emergency   {name}: the present key is disabled at once, without an overlap; there is no way back"
        )
        found.append(f"  exposed     {_words(name, one)}")
    return found


def has_turned(rotation: Mapping[str, Any]) -> bool:
    """Whether the old version is disabled."""
    return "refresh" in rotation.get("entered", ())


def exposed(run: Any) -> list[dict[str, Any]]:
    """How long each old version may be accepted, for the evidence: seconds, until when, and the parts."""
    found = []
    for name, one in exposures(run.plan, run.answers.get("jwks", {})).items():
        since = run.rotation.get("disabled_at")
        found.append(
            {
                "secret": name,
                "seconds": one.seconds,
                "until": stamp_of(parse_stamp(since) + one.seconds) if since else None,
                "parts": [{"name": part.name, "seconds": part.seconds, "source": part.source} for part in one.parts],
                "unknown": one.unknown,
            }
        )
    return found


def notes(run: Any, status: str) -> list[str]:
    """What a person should know, for the evidence and the end of the run."""
    causes = [f"{host}: {said['task']}: {said['msg']}" for host, said in sorted(run.answers.get("cause", {}).items())]
    if status not in STATES:
        return causes if status == "refused" else []
    found = [_words(name, one) for name, one in exposures(run.plan, run.answers.get("jwks", {})).items()]
    found += causes
    if status == "replaced" and not run.answers.get("watched"):
        found.append(_WITHOUT_WATCH)
    return found


def verdict(run: Any, lost: list[str]) -> str:
    """Why an emergency is not over, and what holds."""
    holds = (
        "The new key signs and the former one is disabled"
        if has_turned(run.rotation)
        else "Whether the former key is disabled yet stands in its table"
    )
    why = "; ".join(said["msg"] for _host, said in sorted(run.answers.get("cause", {}).items()))
    missing = f"{', '.join(lost)} could not be reached" if lost else ""
    text = ". ".join(filter(None, (why.rstrip(". "), missing)))
    if "replace" not in run.rotation.get("entered", ()):
        return (
            f"The emergency was refused. Nothing was replaced, and the compromised version is in use as before. {text}"
        )
    return f"The emergency is not over. {holds}; nothing was brought back. Run the same command again. {text}"
