"""The evidence of a FinQA question: as its record names it, or read off its program's arguments."""

import re
from collections import Counter

from . import fields
from .programs import program_arguments
from .schema import RecordError

_FIGURE = re.compile(r"[0-9][0-9,]*\.?[0-9]*|\.[0-9]+")
_WORD = re.compile(r"[a-z]{2,}|(?:19|20)[0-9]{2}")


def named_evidence(gold: object, facts: dict[str, str]) -> tuple[list[str], list[str]]:
    """What ``gold_inds`` or ``gold_evidence`` names: (ids among ``facts`` where known, texts).

    A mapping from id to text as FinQA has it, or a list of ids or of texts, either also stored as text.
    """
    gold = fields.parsed(gold)
    if isinstance(gold, dict):
        # Parquet gives every record the ids of all records, the foreign ones as None.
        named = {str(name): words or facts.get(name) for name, words in gold.items() if words is not None}
        evidence = [words for words in named.values() if isinstance(words, str)]
        if len(evidence) < len(named):
            raise RecordError("gold_inds")
        return list(named), evidence
    items = fields.texts(gold, "gold_inds")
    ids_by_text = {" ".join(words.split()): name for name, words in facts.items()}
    ids = [item if item in facts else ids_by_text.get(" ".join(item.split())) for item in items]
    return [name for name in ids if name], [facts.get(item, item) for item in items]


def derived_evidence(program: str, question: str, facts: dict[str, str], table: list[list[str]]) -> list[str]:
    """The ids of the rows and sentences that hold what a program takes from its page, without the table's header.

    Figure by figure the fact that holds most of those still looked for, among equals a row before a sentence, then the
    one that shares most words with the question. ``docs/data.md`` says how well that agrees with ``gold_inds``. Raises
    ``ValueError`` for a program that cannot be read.
    """
    figures, rows = program_arguments(program)
    held = {name: _figures(text) for name, text in facts.items() if name != "table_0"}
    asked = set(_WORD.findall(question.lower()))
    wanted = dict.fromkeys(re.sub(r"[^0-9.]", "", figure) for figure in figures)
    holders = {figure: [name for name, known in held.items() if figure in known] for figure in wanted}
    missing = [figure for figure in wanted if holders[figure]]
    found = []
    while missing:
        count = Counter(name for figure in missing for name in holders[figure])
        best = max(
            count,
            key=lambda name: (
                count[name], name.startswith("table_"), len(asked & set(_WORD.findall(facts[name].lower()))),
            ),
        )  # fmt: skip
        found.append(best)
        missing = [figure for figure in missing if best not in holders[figure]]
    names = [row[0].strip() if row else "" for row in table]
    found += [f"table_{names.index(row)}" for row in rows if row in names]
    return list(dict.fromkeys(found))


def _figures(text: str) -> set[str]:
    return {figure.replace(",", "").rstrip(".") for figure in _FIGURE.findall(text)}
