# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages in a real browser: what a person sees, and pictures in ``tests/output/report.png`` and ``status.png``."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import seal
from ansible_collections.keyturn.rotation.plugins.plugin_utils.status_page import status_page

from tests.support.evidence import NOW, full_record
from tests.support.page import Page
from tests.support.standing import HOSTILE, planned

BROWSER = "/usr/bin/chromium"
OUTPUT = Path(__file__).resolve().parents[1] / "output"
SIZE = (1000, 1600)


def browse(profile: Path, url: str, *options: str) -> bytes:
    """Open a page in Debian's Chromium, without network and without a window, and return what it prints."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={profile}",
        f"--window-size={SIZE[0]},{SIZE[1]}",
        *options,
        url,
    ]
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("evidence")
    return Path(seal(str(place), full_record(), now=NOW).report).as_uri()


def test_a_person_sees_the_report(report: str, tmp_path: Path) -> None:
    shown = Page(browse(tmp_path, report, "--dump-dom").decode())
    assert "Rotated" in shown.sections[""]
    assert "JWK_AES_KEY, AGENT_TOKEN" in shown.sections[""]
    assert "3 of 4 hosts done." in shown.sections["hosts"]
    assert [row[3] for row in shown.tables["phases"] if row[0] in ("migrate", "Total")] == ["1 min 14 s", "2 min 21 s"]
    assert [row[-1] for row in shown.tables["coverage"][1:3]] == ["complete", "complete"]
    assert [row[-1] for row in shown.tables["probes"][1:]] == ["accepted"] * 3
    assert "what still opens with the old key" in shown.sections["backups"].lower()


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("status") / "status.html"
    path.write_text(status_page(planned(), {}))
    return path.as_uri()


@pytest.mark.parametrize("name", ["report", "status"])
def test_the_picture_is_drawn(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> None:
    OUTPUT.mkdir(exist_ok=True)
    picture = OUTPUT / f"{name}.png"
    picture.unlink(missing_ok=True)
    browse(tmp_path, request.getfixturevalue(name), f"--screenshot={picture}")
    raw = picture.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", raw[16:24]) == SIZE
    assert len(raw) > 50_000  # an empty page of this size has a few thousand bytes


def test_a_person_sees_how_every_secret_stands(status: str, tmp_path: Path) -> None:
    shown = Page(browse(tmp_path, status, "--dump-dom").decode())
    assert [row[0] for row in shown.tables["secrets"][1:3]] == ["LATE_KEY", "DUE_TOKEN"]
    assert "LATE_KEY, r-back: rolled back from 2026-04-01 to 2026-04-20" in shown.sections["timeline"]


def test_a_hostile_name_runs_nothing_in_the_status(tmp_path: Path) -> None:
    of = planned()
    of["secrets"][0].update(name=HOSTILE, held_back=HOSTILE)
    (tmp_path / "status.html").write_text(status_page(of, {}))
    dom = browse(tmp_path / "profile", (tmp_path / "status.html").as_uri(), "--dump-dom")
    assert "script" not in Page(dom.decode()).tags


def test_nothing_runs_even_when_someone_adds_a_script(report: str, tmp_path: Path) -> None:
    text = Path(report.removeprefix("file://")).read_text()
    (tmp_path / "forged.html").write_text(
        text.replace(
            "</main>", '<p id="mark">still</p><script>document.getElementById("mark").remove()</script></main>'
        )
    )
    assert b'<p id="mark">still</p>' in browse(tmp_path / "profile", (tmp_path / "forged.html").as_uri(), "--dump-dom")


def test_the_report_prints_on_few_pages(report: str, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    browse(tmp_path / "profile", report, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    raw = paper.read_bytes()
    assert raw.startswith(b"%PDF-")
    assert 1 <= raw.count(b"/Type /Page\n") <= 4
