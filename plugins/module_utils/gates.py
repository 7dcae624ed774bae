# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true on all hosts before the next phase begins. Pure: answers in, problems out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.window import measured_by, overlap_window

__all__ = [
    "CLOCK_SECONDS",
    "agreement",
    "backups",
    "chosen_backup",
    "clocks",
    "forgotten",
    "joined_later",
    "keysets",
    "locked_out",
    "lost_hosts",
    "not_replaceable",
    "preflight",
    "readable",
    "same_in_backups",
    "scanned",
    "swapped_back",
    "unanswered",
    "windows",
]

#: By how much the clocks of hosts may differ.
CLOCK_SECONDS = 60.0
#: Codes of a database that does not answer.
_SILENT = ("dsn-failed", "connection-lost")
_DISK_BYTES = 64 * 1024 * 1024

Answers = Mapping[str, Mapping[str, Any]]


def lost_hosts(expected: Iterable[str], answers: Answers) -> list[str]:
    """Hosts of the plan that did not answer."""
    return sorted(set(expected) - set(answers))


def _libraries(host: str, missing: Iterable[Mapping[str, Any]]) -> list[str]:
    entries = list(missing)
    if not entries:
        return []
    names = ", ".join(str(entry["library"]) for entry in entries)
    packages = " ".join(str(entry["package"]) for entry in entries)
    return [f"{host}: the Python libraries {names} are missing. Install {packages}."]


def _different_values(found: Answers, hosts: int = 1) -> dict[str, str]:
    """Secrets of which stores hold different values, with the hosts that agree: ``one, two against three``.

    A host whose own stores differ is named with their paths.

    :param hosts: of how many hosts the values must be, at least.
    """
    held: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for host, said in sorted(found.items()):
        for name, secret in said.get("secrets", {}).items():
            for store in secret.get("stores", ()):
                if store.get("present") and store.get("fingerprint"):
                    places = held.setdefault(name, {}).setdefault(store["fingerprint"], [])
                    places.append((host, str(store.get("path") or "")))
    return {
        name: " against ".join(_places(places, values) for places in values.values())
        for name, values in sorted(held.items())
        if len(values) > 1 and len({host for places in values.values() for host, _path in places}) >= hosts
    }


def _places(places: Iterable[tuple[str, str]], values: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """The hosts that hold one of several values."""
    named = []
    for host, path in places:
        is_split = sum(host in dict(others) for others in values.values()) > 1
        named.append(f"{host} in {path}" if is_split else host)
    return ", ".join(dict.fromkeys(named))


def same_in_backups(found: Answers, confirmed: Iterable[str] = ()) -> list[str]:
    """Secrets of which the backups of these hosts hold different values, as those of different days do.

    :param confirmed: secrets of which a person said that this is as it should be.
    """
    return [
        f"{name}: the backups hold different values ({hosts}). Nothing was restored. Name one that all hosts have, or "
        "name the secret with keyturn_confirm."
        for name, hosts in _different_values(found).items()
        if name not in set(confirmed)
    ]


def not_replaceable(found: Answers) -> list[str]:
    """Files of hosts that cannot be replaced."""
    return [
        f"{host}: {problem['msg']} Nothing was restored."
        for host, said in sorted(found.items())
        for problem in said.get("problems", ())
        if problem["code"] == "file-fixed"
    ]


def clocks(plan: Mapping[str, Any], answers: Answers) -> list[str]:
    """Which host's clock is certainly not that of the others, where one is not.

    Hosts are not asked at the same time, and one may take long to answer. So each clock is taken against the
    controller's, which goes on meanwhile: it is ahead by what lies between two numbers.

    :param answers: what each host said when the run was opened there: ``clock`` and ``asked``.
    """
    ahead: dict[str, tuple[float, float]] = {}
    for host, said in answers.items():
        if host in plan["hosts"]:
            before, after = said.get("asked") or (0.0, 0.0)
            ahead[host] = (float(said["clock"]) - after, float(said["clock"]) - before)
    if not ahead:
        return []
    latest, first = max(least for least, _most in ahead.values()), min(most for _least, most in ahead.values())
    if latest - first <= CLOCK_SECONDS:
        return []
    middles = {host: (least + most) / 2 for host, (least, most) in ahead.items()}
    worst = max(middles, key=lambda name: abs(middles[name] - sorted(middles.values())[len(middles) // 2]))
    return [f"{worst}: its clock is off by more than {int(CLOCK_SECONDS)} s. Set it."]


def preflight(
    plan: Mapping[str, Any], answers: Mapping[str, Answers], check_health: bool, check_clocks: bool = True
) -> list[str]:
    """Everything that keeps a rotation from beginning, one line each.

    :param answers: by step (``session``, ``found``, ``baseline``) what each host said.
    :param check_health: whether services must be healthy (not when a run goes on past promote).
    :param check_clocks: whether clocks must agree (not where a compromised key is replaced: that cannot wait).
    """
    problems = [
        f"{host}: cannot be reached. Bring it back"
        f"{', or waive it with keyturn_waive' if _may_be_missing(plan, host) else ': nothing goes on without it'}."
        for host in lost_hosts(plan["hosts"], answers["session"])
    ]
    for host, said in sorted(answers["session"].items()):
        problems += _libraries(host, said["missing"])
        if not said.get("compose", True):
            problems.append(f"{host}: docker compose is missing. Install Docker Compose v2.")
        if host in plan["hosts"] and said["disk_free"] < _DISK_BYTES:
            problems.append(f"{host}: only {said['disk_free'] >> 20} MiB are free where the state lies. Make room.")
        if host in plan["hosts"] and check_health and said.get("loose"):
            problems.append(f"{host}: others may write to {said['loose']}, where the state lies. Set its mode to 0700.")
    problems += clocks(plan, answers["session"]) if check_clocks else []
    for host, said in sorted(answers["found"].items()):
        # Two stores of one file have one trouble
        problems += dict.fromkeys(f"{host}: {problem['msg']}" for problem in said.get("problems", ()))
    if check_health:
        problems += [
            f"{name}: hosts hold different values ({hosts}). Bring them to the same one first."
            for name, hosts in _different_values(answers["found"], hosts=2).items()
        ]
    if check_health:
        for host, said in sorted(answers["baseline"].items()):
            way_out = f", or stop it and leave {host} out with keyturn_waive" if _may_be_missing(plan, host) else ""
            problems += [
                f"{host}: {name} is {service['status']} ({service['detail']}). Mend it before a key turns{way_out}."
                for name, service in sorted(said["services"].items())
                if service["status"] != "healthy"
            ]
    return problems


def _may_be_missing(plan: Mapping[str, Any], host: str) -> bool:
    """Whether a rotation may do without a host: others hold the same secrets, and it reaches no data or server."""
    holds = {name: {secret["name"] for secret in work.get("secrets", ())} for name, work in plan["hosts"].items()}
    others = {name for other, names in holds.items() if other != host for name in names}
    work = plan["hosts"].get(host, {})
    reaches = any(work.get(part) for part in ("jobs", "servers", "signing"))
    return bool(holds.get(host)) and holds[host] <= others and not reaches


def agreement(plan: Mapping[str, Any], answers: Answers, states: Iterable[str]) -> list[str]:
    """Problems where hosts do not hold the same version in the same state, n/n.

    :param answers: what the module ``secret`` said on each host.
    :param states: the states that are right now.
    """
    allowed = set(states)
    problems: list[str] = []
    for name in plan["origins"]:
        expected = [host for host, work in plan["hosts"].items() if any(s["name"] == name for s in work["secrets"])]
        said = {
            host: answers[host]["secrets"][name]
            for host in expected
            if name in answers.get(host, {}).get("secrets", {})
        }
        problems += [f"{host}: did not answer for {name}." for host in expected if host not in said]
        prints = {entry["fingerprints"].get("new") for entry in said.values()}
        if len(prints) > 1:
            problems.append(f"{name}: hosts hold different new versions ({', '.join(sorted(said))}).")
        problems += [
            f"{host}: {name} is {entry['state']}, not {' or '.join(sorted(allowed))}."
            for host, entry in sorted(said.items())
            if entry["state"] not in allowed
        ]
    return problems


def joined_later(plan: Mapping[str, Any], found: Answers, rotation_id: str, retiring: bool) -> dict[str, str]:
    """Hosts that have stores of a secret which turned without them: this rotation has no version there.

    :param found: what ``secret_info`` said on each host.
    :param retiring: whether nothing may have joined; on the way back only what holds the new version has to be named.
    :returns: by host what is wrong and what to do.
    """
    later: dict[str, str] = {}
    for name in (secret["name"] for secret in plan["secrets"]):
        said = {
            host: found[host]["secrets"][name]
            for host, work in plan["hosts"].items()
            if any(entry["name"] == name for entry in work["secrets"])
            and name in found.get(host, {}).get("secrets", {})
        }
        kept = {host: entry["versions"].get(rotation_id) for host, entry in sorted(said.items())}
        new = {version["fingerprints"].get("new") for version in kept.values() if version} - {"", None}
        first = next((host for host, version in kept.items() if version), "")
        for host in [host for host, version in kept.items() if first and not version]:
            holds = {store["fingerprint"] for store in said[host]["stores"] if store["present"]}
            if retiring:
                later[host] = (
                    f"{host} was not there when {name} turned, so there is nothing that could be retired there. Take "
                    f"{host} out of the inventory to retire the others, or turn {name} once more, which takes it along."
                )
            elif holds & new:
                later[host] = (
                    f"{host} holds the new version of {name} and was not there when it turned, so it cannot be brought "
                    f"back. Put the value of before there (secrets/{name}/{rotation_id}/old in the state folder of "
                    f"{first}), or take {host} out of the inventory. Then run the rollback playbook."
                )
    return later


def forgotten(
    plan: Mapping[str, Any], found: Answers, boxes: Answers, rotation_id: str
) -> dict[str, dict[str, list[str]]]:
    """What a retire that was interrupted cannot ask for any more: versions that hosts have forgotten already.

    :param found: what ``secret_info`` said on each host.
    :param boxes: sealed values by recipient, secret and version.
    :returns: by host, ``here``: its own secrets of which it keeps no version, and ``data``: secrets that some host has
        forgotten and whose new value nobody can give to this one.
    """
    states = {
        host: {
            name: (secret.get("versions") or {}).get(rotation_id, {}).get("state", "")
            for name, secret in said.get("secrets", {}).items()
        }
        for host, said in found.items()
    }
    retired = {name for said in states.values() for name, state in said.items() if state == "retired"}
    gone: dict[str, dict[str, list[str]]] = {}
    for host, work in plan["hosts"].items():
        kept = {name for name, state in states.get(host, {}).items() if state not in ("", "retired")}
        given = {name for name, versions in boxes.get(host, {}).items() if "new" in versions}
        gone[host] = {
            "here": sorted({entry["name"] for entry in work.get("secrets", ())} - kept),
            "data": sorted(retired - given),
        }
    return gone


def keysets(plan: Mapping[str, Any], answers: Answers) -> list[str]:
    """Hosts that do not hold the same keyset, n/n: the same kids, keys and active kid.

    :param answers: what ``keyset_info`` said on each host.
    """
    problems: list[str] = []
    for name in (secret["name"] for secret in plan["secrets"] if secret["kind"] == "keyset"):
        expected = [host for host, work in plan["hosts"].items() if any(s["name"] == name for s in work["secrets"])]
        by_mark: dict[str, list[str]] = {}
        for host in expected:
            mark = answers.get(host, {}).get("keysets", {}).get(name, {}).get("fingerprint", "")
            if mark:
                by_mark.setdefault(mark, []).append(host)
            else:
                problems.append(f"{host}: did not tell what {name} holds.")
        if len(by_mark) > 1:
            apart = " against ".join(", ".join(hosts) for hosts in by_mark.values())
            problems.append(f"{name}: hosts hold different keysets ({apart}).")
    for host, said in sorted(answers.items()):
        problems += [f"{host}: {problem['msg']}" for problem in said.get("problems", ())]
    return problems


def swapped_back(plan: Mapping[str, Any], answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Hosts whose data is not known to be readable under the previous version again: no store may follow there.

    :param answers: by host, the results of its jobs.
    """
    problems = []
    for host, work in plan["hosts"].items():
        for job in work["jobs"]:
            done = [
                result
                for result in answers.get(host, [])
                if (result.get("job") or {}).get("database") == job["database"] and not result.get("failed")
            ]
            if not done:
                problems.append(f"{host}: the data in {job['database']} was not brought back.")
        back = {said["secret"] for result in answers.get(host, []) for said in result.get("servers", ())}
        problems += _signing_back(host, work, answers.get(host, []))
        missing = sorted({server["secret"] for server in work.get("servers", ())} - back)
        problems += [f"{host}: the password of {name} was not brought back in its server." for name in missing]
    return problems


def unanswered(plan: Mapping[str, Any], answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What keeps a way back from all of the data, where services have the new version: what went back in one place
    alone could not be read by them until the rest follows.

    Other failures than silence are left to the way back itself, which may do what a look cannot.

    :param answers: by host, what its jobs said when they were asked; none for a host that is lost.
    """
    problems = [
        f"{host}: cannot be reached, and data is brought back there."
        for host, work in plan["hosts"].items()
        if work["jobs"] and host not in answers
    ]
    problems += [
        f"{host}: {result.get('msg', 'does not answer')}"
        for host, results in sorted(answers.items())
        for result in results
        if result.get("failed") and result.get("code") in _SILENT
    ]
    if problems:
        problems.append(
            "No row was brought back, and services go on with the new version. Make it answer, then run the rollback "
            "playbook."
        )
    return problems


def _signing_back(host: str, work: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[str]:
    back = {result["signing"]["secret"] for result in results if result.get("signing") and not result.get("failed")}
    missing = sorted({job["secret"] for job in work.get("signing", ())} - back)
    return [f"{host}: the former keys of {name} were not brought back." for name in missing]


def scanned(results: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[str]:
    """Columns with rows that open under no key: nothing may be written then."""
    problems = []
    for host, step, result in results:
        named = {(row["table"], row["column"]): row["keys"] for row in result.get("unknown", ())}
        for row in result.get("coverage", ()) if step == "preflight" else ():
            if row["unknown"]:
                keys = ", ".join(str(key) for key in named.get((row["table"], row["column"]), ()))
                problems.append(
                    f"{host}: {row['unknown']} rows of {row['table']}.{row['column']} open under neither key"
                    + (f" (primary keys: {keys})" if keys else "")
                    + ". Check the key, the envelope, and these rows."
                )
    return problems


def locked_out(plan: Mapping[str, Any], results: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[str]:
    """Connections that log in as a role whose password turns in the same rotation: from promote on, and on the way
    back, they would be refused, with rows and stores apart.
    """
    turning = {
        server["role"]: server["secret"]
        for work in plan["hosts"].values()
        for server in work.get("servers", ())
        if server["type"] == "postgres"
    }
    problems = {}
    for host, step, result in results:
        role = result.get("server", {}).get("role") if step == "preflight" else None
        if role in turning:
            job, other = result["job"], turning[role]
            problems[host, job["database"]] = (
                f"{host}: the connection of {job['database']}, which {job['secret']} needs, logs in as {role}, whose "
                f"password {other} turns in the same rotation. Turn {other} in a run of its own."
            )
    return list(problems.values())


def windows(plan: Mapping[str, Any], answers: Answers) -> list[str]:
    """Secrets of which the overlap window cannot be computed: nothing is staged then.

    :param answers: by host, what ``jwks_info`` said of the keys of each secret.
    """
    measured = measured_by(answers)
    problems = []
    for secret in plan["secrets"]:
        name, planned = secret["name"], secret.get("window")
        if planned is not None:
            try:
                overlap_window(planned["figures"], measured.get(name, {}), planned["floor"], f"keyturn_secrets.{name}")
            except KeyturnError as error:
                problems.append(str(error))
    return problems


def chosen_backup(known: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any] | None:
    """The backup of one host that a person means: by name, by time, by rotation, or the latest; the oldest first."""
    whole = [backup for backup in known if backup["complete"] and not backup["reason"]]
    if wanted == "latest":
        return whole[-1] if whole else None
    of_rotation = [backup for backup in whole if wanted and backup["rotation_id"] == wanted]
    named = [backup for backup in known if wanted in (backup["name"], backup["short_name"])]
    return next(reversed(of_rotation or named), None)


def backups(plan: Mapping[str, Any], answers: Answers, wanted: str, now: float) -> list[str]:
    """Hosts on which the backup that is asked for cannot be restored.

    :param answers: by host, ``backups`` as ``secret_backup`` lists them.
    :param now: the present time of the state host, in seconds. Later than that no backup was made.
    """
    problems = []
    rotations = set()
    for host in sorted(host for host, work in plan["hosts"].items() if work["secrets"]):
        if host not in answers:
            problems.append(f"{host}: did not say which backups it has.")
            continue
        backup = chosen_backup(answers[host]["backups"], wanted)
        if backup is None:
            problems.append(f"{host}: has no backup {wanted}. Run without keyturn_restore to see what it has.")
            continue
        rotations.add(backup["rotation_id"])
        if not backup["complete"]:
            problems.append(
                f"{host}: {backup['name']} is not whole, or another program made it and keyturn_project_dir does not "
                "say where its files belong."
            )
        elif wanted == "latest" and datetime.fromisoformat(backup["time"]).timestamp() > now + CLOCK_SECONDS:
            problems.append(
                f"{host}: {backup['name']} is of a time that has not come yet, so a clock was wrong when it was made, "
                "and which backup is the latest is not known. Name one of them."
            )
        elif backup["checksums"] == "wrong":
            problems.append(f"{host}: {backup['name']} is not as it was made. Choose another one.")
    if wanted == "latest" and len(rotations) > 1:
        problems.append(
            "The latest backups of these hosts are of different rotations "
            f"({', '.join(sorted(rotation or 'none' for rotation in rotations))}). Name one of them."
        )
    return problems


def readable(results: Iterable[tuple[str, str, Mapping[str, Any]]], confirmed: Iterable[str] = ()) -> list[str]:
    """Columns with rows that the version in a backup does not open.

    :param confirmed: secrets of which a person said that this is as it should be.
    """
    problems = []
    for host, step, result in results:
        if (result.get("job") or {}).get("secret") in set(confirmed):
            continue
        for row in result.get("coverage", ()) if step == "preflight" else ():
            shut = row["total"] - row["old"] - row["null"] - row["plaintext"]
            if shut:
                problems.append(
                    f"{host}: {shut} rows of {row['table']}.{row['column']} are not under the key of this backup. "
                    "Nothing was restored. To bring that key back with its data, rotate with value_from; to restore "
                    "the files all the same, name the secret with keyturn_confirm."
                )
    return problems
