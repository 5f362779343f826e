"""Folders and files written beside their place and moved there when they are whole; what dead processes left is
swept."""

import ctypes
import errno
import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

# What the disk says, as opposed to what a bug says: full, over quota or limit, read-only, not ours, broken.
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
    errno.EEXIST,
}  # fmt: skip


class WriteError(OSError):
    """A place that cannot be written; one line that says which, why, and that what was there is as it was."""


@contextmanager
def written_whole(path: str | os.PathLike):
    """A folder beside ``path`` to write into, moved to ``path`` when the block ends well, removed when it does not.

    The move is one step where the system has one (Linux): whoever opens ``path`` meanwhile, or after a kill, finds the
    old folder or the new one, whole. Raises `WriteError` where the disk refuses.
    """
    path = Path(path).resolve()
    beside = _beside(path, "partial")
    with _one_line(path):
        sweep(path)
        beside.mkdir(parents=True)
        try:
            yield beside
            if not path.exists():
                os.replace(beside, path)
            elif not _exchange(beside, path):
                old = _beside(path, "old")
                os.replace(path, old)
                os.replace(beside, path)
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def replace_file(path: Path, content: str) -> None:
    """Write ``content`` beside ``path`` and move it there. Raises `WriteError` where the disk refuses."""
    path = Path(path).resolve()
    beside = _beside(path, "partial")
    with _one_line(path):
        try:
            beside.write_text(content, encoding="utf-8")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(path: str | os.PathLike) -> None:
    """Raise `WriteError` now where `written_whole` would after all the work; sweeps as it does."""
    path = Path(path).resolve()
    with _one_line(path):
        sweep(path)
        _beside(path, "partial").mkdir(parents=True)
        _beside(path, "partial").rmdir()


def sweep(path: Path) -> None:
    """Remove what processes that are gone left beside ``path``; a folder that one moved away and did not replace comes
    back."""
    if not path.parent.is_dir():
        return
    for left in path.parent.iterdir():
        name = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.(partial|old)", left.name)
        if not name or (int(name[1]) != os.getpid() and _alive(int(name[1]))):
            continue
        if name[2] == "old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{what}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return process > 0


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux's renameat2 with RENAME_EXCHANGE); False where that cannot be done."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        return ctypes.CDLL(None).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    except (AttributeError, OSError, TypeError):  # no such call on this system
        return False


@contextmanager
def _one_line(path: Path):
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        reason = _disk_reason(error)
        if reason is None:
            raise
        raise WriteError(f"{path}: cannot be written ({reason}); nothing there was changed") from error


def _disk_reason(error: Exception) -> str | None:
    """What the disk says, of Python's own errors and of safetensors', which carry Rust's ``(os error 28)``; None of
    others."""
    rust = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) else int(rust[1]) if rust else None
    return os.strerror(code) if code in _DISK_ERRORS else None
