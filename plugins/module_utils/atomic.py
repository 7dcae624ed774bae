# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or not there: private from the first byte, on the disk before they have their name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Mapping

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = [
    "ACCESS_LIST",
    "access_list",
    "check_plain_file",
    "check_replaceable",
    "fsync_dir",
    "private_dir",
    "read_file",
    "remove_file",
    "sweep",
    "write_file",
    "write_files",
]

#: The extended attribute that holds a file's access list (``setfacl``).
ACCESS_LIST = "system.posix_acl_access"
_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")
_TEMPORARY = re.compile(r"\.keyturn\.[0-9a-f]{16}")
_LABELS = ("security.selinux", "system.nfs4_acl")


def fsync_dir(path: str) -> None:
    """Make a rename in this directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_dir(path: str) -> str:
    """Make ``path`` (and what is missing above it) a directory of mode 0700 and return it.

    :raises KeyturnError: ``dir-unsafe`` for a symbolic link or a file in its place.
    """
    missing = []
    here = os.path.abspath(path)
    while not os.path.lexists(here):
        missing.append(here)
        here = os.path.dirname(here)
    for new in reversed(missing):
        try:
            os.mkdir(new, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise KeyturnError(
                "dir-failed",
                f"cannot make this directory ({error.strerror})",
                where=new,
                hint="Check space and permissions",
            ) from None
        else:
            fsync_dir(os.path.dirname(new))
    if os.path.islink(path) or not os.path.isdir(path):
        raise KeyturnError(
            "dir-unsafe", "is not a plain directory", where=path, hint="Remove what stands there, or name another place"
        )
    return path


def check_plain_file(path: str) -> os.stat_result:
    """The status of a regular file.

    :raises KeyturnError: ``file-missing``, ``file-unsafe`` (symbolic link, directory, device) or ``file-failed``.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise KeyturnError("file-missing", "does not exist", where=path, hint="Check the path") from None
    except OSError as error:
        raise KeyturnError(
            "file-failed", f"cannot be read ({error.strerror})", where=path, hint="Check its permissions"
        ) from None
    if stat.S_ISLNK(status.st_mode):
        raise KeyturnError("file-unsafe", "is a symbolic link", where=path, hint="Name the file it leads to")
    if not stat.S_ISREG(status.st_mode):
        raise KeyturnError("file-unsafe", "is not a regular file", where=path, hint="Name a file")
    return status


def check_replaceable(path: str) -> None:
    """Refuse a file that could not be replaced later: asked before anything is changed, and nothing is written.

    :raises KeyturnError: ``file-fixed``.
    """
    folder = os.path.dirname(path) or "."
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _fixed(path, f"nothing can be written into {folder}", "Check its permissions and its file system")
    if os.path.join(os.path.realpath(folder), os.path.basename(path)) in _mount_points():
        raise _fixed(path, "it is mounted by itself", "Mount its folder, or name the file that is mounted there")
    if os.geteuid() == 0 and os.path.lexists(path) and not os.access(path, os.W_OK):
        raise _fixed(path, "even root may not write it", "Look at its attributes (lsattr)")


def _fixed(path: str, why: str, hint: str) -> KeyturnError:
    return KeyturnError("file-fixed", f"could not be replaced: {why}", where=path, hint=hint)


def _mount_points() -> set[str]:
    """Where something is mounted (proc(5): the fifth field); none where the system does not say."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as stream:
            fields = [line.split() for line in stream]
    except OSError:
        return set()
    return {_ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), line[4]) for line in fields if len(line) > 4}


def read_file(path: str) -> bytes:
    """The bytes of a regular file, never through a symbolic link at its end."""
    check_plain_file(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise KeyturnError(
            "file-failed", f"cannot be read ({error.strerror})", where=path, hint="Check its permissions"
        ) from None
    with os.fdopen(handle, "rb") as stream:
        return stream.read()


def access_list(path: str) -> bytes | None:
    """The access list of a file, or None where it has none beside its mode."""
    return _attribute(path, ACCESS_LIST)


def _attribute(file: str | int, name: str) -> bytes | None:
    try:
        return os.getxattr(file, name)
    except OSError:
        return None


def _stage(path: str, content: bytes, mode: int | None, keep: os.stat_result | None) -> tuple[str, int]:
    """Write ``content`` beside ``path`` under a name of its own, synced; return that name, and a handle with its lock.

    The lock tells :func:`sweep` that somebody is at work, and ends with the process.
    """
    temporary = os.path.join(os.path.dirname(path) or ".", f".keyturn.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    wanted = mode
    if wanted is None:
        wanted = stat.S_IMODE(keep.st_mode) if keep else 0o600
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(content)
        if keep is not None and (keep.st_uid, keep.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, keep.st_uid, keep.st_gid)
        if keep is not None:
            _copy_attributes(path, handle)
        if keep is not None and mode is None:
            _copy_access_list(path, handle)
        if wanted != 0o600:
            os.fchmod(handle, wanted)
        os.fsync(handle)
    except BaseException:
        os.close(handle)
        os.unlink(temporary)
        raise
    return temporary, handle


def sweep(folder: str) -> None:
    """Remove what a process that was killed has left in a folder under a temporary name: there may be values in it."""
    try:
        left = [name for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]
    except OSError:
        return
    for name in left:
        with contextlib.suppress(OSError):
            _remove_left(os.path.join(folder, name))


def _remove_left(path: str) -> None:
    """Remove one such file unless it is locked: its process lives. An empty one may be about to be."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            os.unlink(path)
    finally:
        os.close(handle)


def _copy_attributes(path: str, handle: int) -> None:
    """Keep what people and the system have written on the file that is replaced: its SELinux context, its notes."""
    try:
        notes = [name for name in os.listxattr(path) if name.startswith("user.")]
    except OSError:
        notes = []
    for name in (*_LABELS, *notes):
        value = _attribute(path, name)
        if value is not None:
            os.setxattr(handle, name, value)


def _copy_access_list(path: str, handle: int) -> None:
    """Keep the access list of the file that is replaced, before its mode is set.

    With one, the mode's bits of the group are the most that anybody named in it may do: on a file without it they would
    open it to the whole group. A list that the folder hands down to new files goes where the file had none.
    """
    value = access_list(path)
    if value is not None:
        os.setxattr(handle, ACCESS_LIST, value)
    elif _attribute(handle, ACCESS_LIST) is not None:
        os.removexattr(handle, ACCESS_LIST)


def write_files(contents: Mapping[str, bytes], mode: int | None = None) -> None:
    """Replace several files; all are on the disk under temporary names before the first takes its name.

    Owner, mode, access list, SELinux context and other attributes of a file that exists are kept; where ``mode`` is
    given, that takes the place of mode and access list. A new file is 0600.

    :param contents: path to new bytes.
    :raises KeyturnError: ``file-unsafe`` for a symbolic link in a file's place, ``file-failed`` when the disk refuses;
        nothing was replaced then.
    """
    staged: dict[str, str] = {}
    handles: list[int] = []
    folders = {os.path.dirname(path) or "." for path in contents}
    for folder in folders:
        sweep(folder)
    try:
        for path, content in contents.items():
            keep = check_plain_file(path) if os.path.lexists(path) else None
            try:
                staged[path], handle = _stage(path, content, mode, keep)
            except OSError as error:
                raise KeyturnError(
                    "file-failed",
                    f"cannot be written ({error.strerror})",
                    where=path,
                    hint="Check space and permissions",
                ) from None
            handles.append(handle)
        for path in contents:
            os.rename(staged[path], path)
            del staged[path]
        for folder in folders:
            fsync_dir(folder)
    finally:
        for temporary in staged.values():
            os.unlink(temporary)
        for handle in handles:
            os.close(handle)


def write_file(path: str, content: bytes, mode: int | None = None) -> None:
    """Replace one file; see :func:`write_files`."""
    write_files({path: content}, mode)


def remove_file(path: str) -> bool:
    """Remove a file for good and say whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    fsync_dir(os.path.dirname(path) or ".")
    return True
