"""Folders and files written beside their place and moved there when they are whole."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike):
    """A folder beside ``path`` to write into, moved to ``path`` when the block ends well, removed when it does not."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(beside, path)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, content: str) -> None:
    """Write ``content`` beside ``path`` and move it there."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(content, encoding="utf-8")
    os.replace(beside, path)
