"""Datasets of the Hub: ``org/name``, with ``#configuration``, ``@revision`` and ``:split`` where they are wanted."""

import re
from dataclasses import dataclass

from datasets import load_dataset
from datasets.exceptions import DataFilesNotFoundError

from .schema import DataError

# The Hub keeps a Parquet copy of every dataset there. `datasets` 4 and later run no scripts, so that a dataset which is
# one (dreamerdeo/finqa is README.md and finqa.py) can be read from that branch alone.
CONVERTED = "refs/convert/parquet"

_SPELLING = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:#(?P<configuration>[^@:]+))?(?:@(?P<revision>[^:]+))?(?::(?P<split>.+))?"
)


@dataclass(frozen=True)
class HubSource:
    """A dataset's id, and its configuration, revision and split where the source's name gives them."""

    name: str
    configuration: str | None = None
    revision: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, source: str) -> "HubSource":
        """Raises `DataError` for what is no Hub id in the spelling ``org/name#configuration@revision:split``."""
        match = _SPELLING.fullmatch(source)
        if match is None:
            raise DataError(
                f"{source}: neither a local file nor a Hub dataset; write org/name, with #configuration, @revision and "
                ":split behind it where they are wanted"
            )
        return cls(**match.groupdict())


def hub_records(source: str, split: str = "train") -> list[dict]:
    """The records of a Hub dataset's split: that of its spelling, or else ``split``.

    Raises:
        DataError: with what the Hub's client said.
    """
    wanted = HubSource.of(source)
    split = wanted.split or split
    try:
        return list(_loaded(wanted, split))
    except Exception as error:  # the Hub client's errors have no common base
        raise DataError(f"{source}: {_reason(error, split)}") from None


def _loaded(wanted: HubSource, split: str):
    if wanted.revision != CONVERTED:
        try:
            return load_dataset(wanted.name, wanted.configuration, revision=wanted.revision, split=split)
        except (RuntimeError, DataFilesNotFoundError) as error:
            script = isinstance(error, DataFilesNotFoundError) or "scripts are no longer supported" in str(error)
            if wanted.revision or not script:
                raise
    # The converted branch has no list of configurations: each is a folder.
    return load_dataset(wanted.name, data_dir=wanted.configuration, revision=CONVERTED, split=split)


def _reason(error: Exception, split: str) -> str:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, ValueError) and ("nknown split" in str(error) or "Bad split" in str(error)):
        return f"has no split {split!r} ({said}); name one of its own as org/name:split"
    if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
        return f"needs one of its configurations ({said}); name it as org/name#configuration"
    return (
        f"neither a local file nor loadable from the Hub ({said}); check the name, the revision and the network, or "
        "give local files with --data"
    )
