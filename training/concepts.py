"""Pairs of names of one accounting concept, from US-GAAP tags in words; what eval/concepts.csv asks about stays out."""

import csv
import random
import re
from collections import defaultdict
from itertools import islice

from datasets import Dataset

from ..data.schema import DataError
from ..eval.concepts import load_concepts

# The column of a row's other name in the place of ``page``.
SYNONYM = "synonym"
_SMALL = set("a an and as at by for from in of on or other per the to with".split())


def concept_rows(file: str, count: str | int, seed: int) -> Dataset:
    """``count`` rows of a name (``question``, a list of one) and another name of the same concept (``synonym``).

    ``page_id`` is the concept, so that no batch holds two names of one concept as each other's negatives. Every concept
    gives as many pairs as the others, its names drawn at random.

    Args:
        file: CSV with columns ``words``, ``display_name``, ``concept`` and ``ambiguous`` (1: several concepts).

    Raises:
        DataError: ``count`` is no positive number, or as `concept_names`.
    """
    if not str(count).isdigit() or int(count) == 0:
        raise DataError(f"--concept_pairs {file} {count}: give a file and how many pairs to draw from it")
    concepts = [(concept, sorted(names)) for concept, names in concept_names(file).items()]
    rng = random.Random(seed)

    def pairs():
        while True:
            for concept, found in rng.sample(concepts, len(concepts)):
                yield concept, *rng.sample(found, 2)

    rows = [
        {"question": [name], SYNONYM: synonym, "page_id": concept, "company": ""}
        for concept, name, synonym in islice(pairs(), int(count))
    ]
    return Dataset.from_list(rows)


def concept_names(file: str) -> dict[str, set[str]]:
    """By concept that has two of them, its names in lower case: the tags' words and the display name.

    Left out: ambiguous tags, the concepts that collect the rest of a section ("Other..."), and every name that has the
    content words of a term of eval/concepts.csv.

    Raises:
        DataError: the file cannot be read, or no concept has two names.
    """
    asked = {content_words(pair[side]) for pair in load_concepts() for side in ("a", "b")}
    names: dict[str, set[str]] = defaultdict(set)
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                if row["ambiguous"] == "0" and not row["concept"].startswith("Other"):
                    names[row["concept"]] |= {row["words"].lower(), row["display_name"].lower()}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"--concept_pairs {file}: cannot be read as a table of concepts ({error})") from None
    asked.add(frozenset())  # a name without content says nothing
    left = {concept: {name for name in found if content_words(name) not in asked} for concept, found in names.items()}
    if not (several := {concept: found for concept, found in left.items() if len(found) > 1}):
        raise DataError(f"--concept_pairs {file}: no concept has two names")
    return several


def content_words(name: str) -> frozenset[str]:
    """The words of a name that carry its meaning, without plural endings."""
    words = re.findall("[a-z0-9]+", name.lower())
    return frozenset(re.sub("(?<=[^su])s$", "", word) for word in words if word not in _SMALL)
