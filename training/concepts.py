"""Pairs of names of one accounting concept, from US-GAAP tags in words; what eval/concepts.csv asks about stays out."""

import csv
import random
import re
from collections import defaultdict

from datasets import Dataset

from ..data.schema import DataError
from ..eval.concepts import load_concepts

# The column of a row's other name in the place of ``page``.
SYNONYM = "synonym"
_SMALL = set("a an and as at by for from in of on or other per the to with".split())


def concept_rows(file: str, count: str | int, seed: int) -> Dataset:
    """``count`` rows of a name (``question``, a list of one) and another name of the same concept (``synonym``).

    ``page_id`` is the concept, so that no batch holds two names of one concept as each other's negatives; ``section``
    is where it stands in a company's statements. A concept is drawn by the square root of how many names it has.

    Args:
        file: CSV with columns ``words``, ``display_name``, ``concept``, ``statement``, ``section`` and ``ambiguous``
            (1: several concepts).

    Raises:
        DataError: ``count`` is no positive number, or as `concept_names`.
    """
    if not str(count).isdigit() or int(count) == 0:
        raise DataError(f"--concept_pairs {file} {count}: give a file and how many pairs to draw from it")
    concepts = [(stands, sorted(names)) for stands, names in concept_names(file).items()]
    rng = random.Random(seed)
    drawn = rng.choices(concepts, [len(names) ** 0.5 for _, names in concepts], k=int(count))
    pairs = [(*stands, *rng.sample(names, 2)) for stands, names in drawn]
    rows = [
        {"question": [name], SYNONYM: synonym, "page_id": concept, "company": "", "section": section}
        for concept, section, name, synonym in pairs
    ]
    return Dataset.from_list(rows)


def concept_names(file: str) -> dict[tuple[str, str], set[str]]:
    """By concept that has two of them and its section, its names in lower case: the tags' words and the display name.

    Left out: ambiguous tags and those without a section, the concepts that collect the rest of one ("Other..."), and
    every name that has the content words of a term of eval/concepts.csv.

    Raises:
        DataError: the file cannot be read, or no concept has two names.
    """
    asked = {content_words(pair[side]) for pair in load_concepts() for side in ("a", "b")}
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                if row["section"] and row["ambiguous"] == "0" and not row["concept"].startswith("Other"):
                    stands = row["concept"], f"{row['statement']}: {row['section']}"
                    names[stands] |= {row["words"].lower(), row["display_name"].lower()}
    except KeyError as error:
        raise DataError(f"--concept_pairs {file}: a table of concepts has a column {error}, this has none") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--concept_pairs {file}: cannot be read as a table of concepts ({error})") from None
    asked.add(frozenset())  # a name without content says nothing
    left = {stands: {name for name in found if content_words(name) not in asked} for stands, found in names.items()}
    if not (several := {stands: found for stands, found in left.items() if len(found) > 1}):
        raise DataError(f"--concept_pairs {file}: no concept has two names (rows without a section do not count)")
    return several


def content_words(name: str) -> frozenset[str]:
    """The words of a name that carry its meaning, without plural endings."""
    words = re.findall("[a-z0-9]+", name.lower())
    return frozenset(re.sub("(?<=[^su])s$", "", word) for word in words if word not in _SMALL)
