# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a stack was started with, from the labels of its containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import compose
from ansible_collections.keyturn.rotation.plugins.module_utils.waves import restart_batches

_LABEL = "com.docker.compose."


class _Engine:
    """Lists containers as the engine's API does."""

    def __init__(self, *labels: dict[str, str]) -> None:
        self.api = self
        self._labels = labels

    def containers(self, **_filters: Any) -> list[dict[str, Any]]:
        return [
            {"Id": f"{number:064}", "Names": [f"/c{number}"], "State": "running", "Created": number, "Labels": labels}
            for number, labels in enumerate(self._labels)
        ]


def _labels(folder: Path, files: str, env_files: str = "") -> dict[str, str]:
    return {
        f"{_LABEL}service": "api",
        f"{_LABEL}project.working_dir": str(folder),
        f"{_LABEL}project.config_files": files,
        f"{_LABEL}project.environment_file": env_files,
    }


def _said(folder: Path, *labels: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    class Connected:
        def __enter__(self) -> _Engine:
            return _Engine(*labels)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(compose, "connected", lambda _host: Connected())
    service = {"name": "api", "project": "shop", "project_dir": str(folder)}
    found = compose.info({"services": [service]})["services"]["api"]
    return found["files"], found["env_files"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "releases-2"
    made.mkdir()
    for name in ("compose.yml", "prod.yml", "prod.env"):
        (made / name).touch()
    return made


def test_those_of_the_latest_container_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, more, settings = (str(folder / name) for name in ("compose.yml", "prod.yml", "prod.env"))
    old, new = _labels(folder, base), _labels(folder, f"{base},{more}", settings)
    assert _said(folder, old, new, monkeypatch=monkeypatch) == ([base, more], [settings])
    assert _said(folder, new, old, monkeypatch=monkeypatch) == ([base], [])


def test_a_link_to_the_folder_is_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = tmp_path / "current"
    current.symlink_to(folder)
    labels = _labels(current, str(current / "compose.yml"))
    assert _said(folder, labels, monkeypatch=monkeypatch) == ([str(current / "compose.yml")], [])


def test_those_of_a_former_release_do_not_count(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = tmp_path / "releases-1"
    former.mkdir()
    (former / "compose.yml").touch()
    labels = _labels(former, str(former / "compose.yml"))
    assert _said(folder, labels, monkeypatch=monkeypatch) == ([], [])


@pytest.mark.parametrize("files", ["-", "", "compose.yml", "/nowhere/compose.yml", "{0}/compose.yml,/nowhere/prod.yml"])
def test_files_that_are_not_here_do_not_count(folder: Path, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _said(folder, _labels(folder, files.format(folder)), monkeypatch=monkeypatch) == ([], [])


def test_services_with_other_files_are_treated_by_themselves() -> None:
    common = {"manager": "compose", "project_dir": "/srv/shop", "wave": 0}
    services = [{**common, "name": name} for name in ("a", "b")] + [{**common, "name": "c", "env_files": ["c.env"]}]
    assert [[service["name"] for service in batch] for batch in restart_batches(services)] == [["a", "b"], ["c"]]


def test_services_that_were_started_with_other_files_are_treated_by_themselves() -> None:
    common = {"manager": "compose", "project_dir": "/srv/shop", "wave": 0}
    services = [{**common, "name": name} for name in ("a", "b", "c")] + [{**common, "name": "d", "files": ["own.yml"]}]
    plain, more = {"files": ["/srv/shop/compose.yml"], "env_files": []}, {"files": [], "env_files": ["/srv/prod.env"]}
    batches = restart_batches(services, {"a": plain, "b": plain, "c": more, "d": plain})
    assert [[service["name"] for service in batch] for batch in batches] == [["a", "b"], ["c"], ["d"]]
    assert [(batch[0].get("files"), batch[0].get("env_files")) for batch in batches] == [
        (["/srv/shop/compose.yml"], None),
        (None, ["/srv/prod.env"]),
        (["own.yml"], None),
    ]
