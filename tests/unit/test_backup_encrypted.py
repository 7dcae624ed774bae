# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that are encrypted, and folders that git must not see."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import FileVaultSecret, VaultLib, VaultSecret
from ansible.template import Templar
from ansible_collections.keyturn.rotation.plugins.module_utils import backup
from ansible_collections.keyturn.rotation.plugins.module_utils.backup import BACKUP_OPTIONS, Order
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import Lock
from ansible_collections.keyturn.rotation.plugins.module_utils.ignored import keep_out_of_git
from ansible_collections.keyturn.rotation.plugins.plugin_utils.backup_arguments import with_policy

from tests.support.hosts import NOW, Host

_VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors/file_encryption.json").read_text(encoding="utf-8")
)
_RECIPIENT: str = _VECTORS["age"][0]["recipients"][0]
_IDENTITY: str = _VECTORS["identities"][0]
_PASSWORD = b"a password of the controller"
_LOCKS = {
    "age": (Lock("age", (_RECIPIENT,)), _IDENTITY.encode()),
    "ansible_vault": (Lock("ansible_vault", password=_PASSWORD), _PASSWORD),
}


def _code(work: Callable[[], object]) -> str:
    with pytest.raises(KeyturnError) as caught:
        work()
    assert "KEY=" not in str(caught.value)
    assert _PASSWORD.decode() not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("kind", sorted(_LOCKS))
def test_an_encrypted_backup_holds_nothing_in_clear_and_is_restored(tmp_path: Path, kind: str) -> None:
    lock, key = _LOCKS[kind]
    env, absent = tmp_path / ".env", tmp_path / "none"
    env.write_bytes(b"KEY=of-before\n")
    folder = str(tmp_path / "b")
    order = Order((str(env), str(absent)), "r1", secrets=("KEY",), lock=lock)
    made, new = backup.create(folder, order, NOW)
    assert new
    assert made.encryption == kind
    for path in Path(folder).rglob("*"):
        assert path.is_dir() or b"of-before" not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert backup.create(folder, order, NOW)[1] is False
    backup.verify(made)
    env.write_bytes(b"KEY=of-after\n")
    absent.write_bytes(b"now")
    assert _code(lambda: backup.restore(made, folder, order, NOW)) == "backup-key-missing"
    assert _code(lambda: backup.restore(made, folder, order, NOW, key=b"wrong")) in (
        "identity-invalid",
        "password-wrong",
    )
    assert env.read_bytes() == b"KEY=of-after\n"
    _changed, safety = backup.restore(made, folder, order, NOW + timedelta(hours=1), key=key)
    assert (env.read_bytes(), absent.exists()) == (b"KEY=of-before\n", False)
    replaced = backup.find(folder, safety)
    assert replaced.encryption == kind, "what a restore replaces is encrypted like all others"
    assert backup.contents(replaced, key)[str(env)] == b"KEY=of-after\n"


def test_a_tampered_copy_is_seen_without_a_key(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    made, _new = backup.create(str(tmp_path / "b"), Order((str(env),), "r1", lock=_LOCKS["age"][0]), NOW)
    (copy,) = Path(made.folder).rglob("*.age")
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x00")
    assert _code(lambda: backup.verify(made)) == "backup-damaged"


def test_the_copies_open_with_ansible_vault_itself(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    made, _new = backup.create(str(tmp_path / "b"), Order((str(env),), "r1", lock=_LOCKS["ansible_vault"][0]), NOW)
    (copy,) = Path(made.folder).rglob("*.vault")
    opened: bytes = VaultLib([("default", VaultSecret(_PASSWORD))]).decrypt(copy.read_bytes())
    assert opened == b"KEY=x\n"


def test_no_checksum_of_a_value_lies_in_clear_beside_an_encrypted_copy(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_bytes(b"KEY=x\n")
    order = Order((str(env),), "r1", lock=_LOCKS["age"][0])
    sums = set()
    for number in range(2):
        made, _new = backup.create(str(tmp_path / f"b{number}"), order, NOW)
        sums.add(json.loads(Path(made.folder, "metadata.json").read_text())["files"][0]["sha256"])
    assert len(sums) == 2


def _params(host: Host, state: str, **more: Any) -> dict[str, Any]:
    session = {"state_dir": str(host.state_dir), "session_dir": None, "rotation_id": "r1", "epoch": 1}
    return {**session, **{name: rule.get("default") for name, rule in BACKUP_OPTIONS.items()}, "state": state, **more}


def test_a_vault_password_comes_in_a_box(tmp_path: Path) -> None:
    host = Host(tmp_path)
    env = host.write(".env", b"KEY=x\n")
    encrypt = {"type": "ansible_vault", "recipients": [], "key": {"sealed": host.box(_PASSWORD, "backup", "encrypt")}}
    made = backup.run(_params(host, "created", files=[str(env)], encrypt=encrypt), False)["backup"]
    assert made["encryption"] == "ansible_vault"
    assert made["proven"] == "decrypted and compared"
    env.write_bytes(b"KEY=y\n")
    key = {"sealed": host.box(_PASSWORD, "backup", "key")}
    done = backup.run(_params(host, "restored", name="latest", key=key, encrypt=encrypt), False)
    assert (done["changed"], env.read_bytes()) == (True, b"KEY=x\n")
    assert _code(
        lambda: backup.run(_params(host, "created", files=[str(env)], encrypt={**encrypt, "key": None}), False)
    ) == ("backup-key-missing")


@pytest.mark.parametrize("content", [b"a password\n", b"a password\r\n", b" a password \n\n"])
def test_a_password_from_a_file_is_what_ansible_vault_takes_it_for(tmp_path: Path, content: bytes) -> None:
    """Else the file that a backup was made with does not open it with ``ansible-vault decrypt``."""
    host, loader = Host(tmp_path / "host"), DataLoader()
    path = tmp_path / "password"
    path.touch(0o600)
    path.write_bytes(content)
    theirs = FileVaultSecret(filename=str(path), loader=loader)
    theirs.load()
    encrypt = {"type": "ansible_vault", "key_from": {"file": str(path)}}
    places = {"directory": "", "filename_format": "", "retention_days": 90, "keep": 5, "gitignore": True}
    arguments = {"state": "created", "rotation_id": "r1", "policy": {**places, "encrypt": encrypt}}
    variables = {"__rotation_session": {"public": host.public}}
    filled = with_policy(arguments, Templar(loader), loader, variables)
    ours = host.session.open_box(filled["encrypt"]["key"]["sealed"], "r1/backup/encrypt")
    assert ours == theirs.bytes == b"a password"


def test_age_says_what_is_not_proven(tmp_path: Path) -> None:
    host = Host(tmp_path)
    env = host.write(".env", b"KEY=x\n")
    encrypt = {"type": "age", "recipients": [_RECIPIENT], "key": None}
    made = backup.run(_params(host, "created", files=[str(env)], encrypt=encrypt), False)["backup"]
    assert "is not proven" in made["proven"]
    bad = {"type": "age", "recipients": ["age1nobody"], "key": None}
    assert _code(lambda: backup.run(_params(host, "created", files=[str(env)], encrypt=bad), False)) == (
        "recipient-invalid"
    )


# -- git --------------------------------------------------------------------------------------------------------------


def test_a_backup_folder_in_a_work_tree_is_ignored_by_git(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    host = Host(tmp_path / "project")
    env = host.write(".env", b"KEY=x\n")
    folder = tmp_path / "project/backups/secrets"
    call = _params(host, "created", files=[str(env)], backup_dir="backups/secrets", root=str(tmp_path / "project"))
    assert backup.run(call, True)["changed"]
    assert not folder.exists()
    assert backup.run(call, False)["changed"]
    assert "backups" not in git("status", "--porcelain", "--untracked-files=all")
    assert (folder / ".gitignore").read_text() == "*\n"
    assert not backup.run(call, False)["changed"]


def test_what_a_person_wrote_into_gitignore_stays(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / ".gitignore").write_text("# ours")
    assert keep_out_of_git(str(folder), check_mode=True)
    assert keep_out_of_git(str(folder))
    assert (folder / ".gitignore").read_text() == "# ours\n*\n"
    assert not keep_out_of_git(str(folder))


def test_nothing_is_written_outside_of_a_work_tree(tmp_path: Path) -> None:
    assert not keep_out_of_git(str(tmp_path / "backups"))
    assert not (tmp_path / "backups").exists()
