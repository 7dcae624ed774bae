# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What still holds values under the old key once a rotation is over, in one line for plan and evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["after", "expected"]

_ELSEWHERE = "WAL and its archive, standbys, base backups and dumps"


def _tables(plan: Mapping[str, Any], sanitized: bool) -> list[str]:
    jobs = [job for work in plan["hosts"].values() for job in work["jobs"] if job["sanitize"] is sanitized]
    return sorted({column["table"] for job in jobs for column in job["columns"]})


def expected(plan: Mapping[str, Any]) -> str:
    """What the plan says; empty where no data is re-encrypted."""
    anew, kept = (", ".join(_tables(plan, sanitized)) for sanitized in (True, False))
    said = [f"retire makes {anew} anew, which nobody can use meanwhile"] if anew else []
    if anew or kept:
        dead = f"the files of {kept} (dead rows), " if kept else ""
        said.append(f"old ciphertext stays in {dead}{_ELSEWHERE}")
    return "; ".join(said)


def after(plan: Mapping[str, Any], status: str, retired: Iterable[Mapping[str, Any]]) -> str:
    """What the evidence says; empty where nothing is under another key now.

    :param status: how the run ended.
    :param retired: results of the step ``retire``.
    """
    tables = sorted({*_tables(plan, True), *_tables(plan, False)})
    if status not in ("overlap", "retired") or not tables:
        return ""
    anew = {str(made["table"]) for result in retired for made in result.get("sanitized", ())}
    if status == "retired" and anew and not _tables(plan, False):
        cleared = ", ".join(sorted(anew))
        return (
            f"the files of {cleared} hold no old ciphertext any more; {_ELSEWHERE}, samples in pg_statistic "
            "and freed blocks of the disk may"
        )
    return f"old ciphertext is still in the files of {', '.join(tables)} (dead rows), {_ELSEWHERE}"
