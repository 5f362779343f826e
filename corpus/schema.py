"""What a corpus table holds, and which model its vectors come from."""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

PREFIX_DIM = 64
STORAGES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
PAGE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("company", pa.string()),
        ("year", pa.int32()),
        ("document", pa.string()),
        ("page", pa.string()),
        ("digest", pa.string()),
    ]
)
_METADATA_KEY = b"finmatryoshka"


class CorpusError(ValueError):
    """A table, model or query that cannot be used; the message names it, what is wrong and what to do."""


@dataclass(frozen=True)
class Identity:
    """The model behind a table's vectors: everything that changes them, and ``model``, the name people know it by."""

    model: str
    weights: str
    dim: int
    storage: str
    max_seq_length: int
    prompts: dict[str, str]

    def __str__(self) -> str:
        return f"{self.model} (weights {self.weights[:8]}, {self.dim} dimensions, {self.storage})"

    def check(self, other: "Identity", path: str) -> None:
        """Raises `CorpusError`, with both names, where ``other``'s vectors do not belong into this table."""
        differing = [
            name
            for name, value in asdict(self).items()
            if name != "model" and value != getattr(other, name)
        ]  # fmt: skip
        if differing:
            raise CorpusError(
                f"{path} holds vectors of {self}, not of {other} (they differ in {', '.join(differing)}); "
                "use the same model and options, or another table"
            )

    def table_schema(self) -> pa.Schema:
        """`PAGE_SCHEMA` with ``vector`` (``dim`` numbers) and, beyond 64 dimensions, ``prefix`` (the first 64,
        float16).

        ``prefix`` is a float column because LanceDB quantises to int8 inside an index and indexes no int8 column.
        """
        fields = [*PAGE_SCHEMA, pa.field("vector", pa.list_(STORAGES[self.storage], self.dim))]
        if self.dim > PREFIX_DIM:
            fields.append(pa.field("prefix", pa.list_(pa.float16(), PREFIX_DIM)))
        return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(asdict(self)).encode()})

    @classmethod
    def of_schema(cls, schema: pa.Schema, path: str) -> "Identity":
        """The identity in a table's metadata. Raises `CorpusError` for a table that `index` did not write."""
        try:
            return cls(**json.loads((schema.metadata or {})[_METADATA_KEY]))
        except (KeyError, TypeError, ValueError):
            raise CorpusError(f"{path}: is no table of finmatryoshka.corpus; make one with its index command") from None
