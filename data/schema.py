"""The one table that everything speaks: pages, labelled examples, and the source that they came from."""

import hashlib
from dataclasses import dataclass, field


class DataError(ValueError):
    """Wrong input data; the message names the source, what is wrong and what to do."""


class RecordError(ValueError):
    """A record that cannot be read; the message names the field. `load_source` counts them."""


@dataclass
class Page:
    """A page to search: its text as MTEB's FinQARetrieval writes it, where it comes from, and its table's rows of cells
    where the source names one."""

    page_id: str
    text: str
    company: str = ""
    year: int | None = None
    table: list[list[str]] | None = field(default=None, repr=False)


@dataclass
class Example:
    """One question with its page.

    ``fact`` is the evidence's text (gold facts, or the page where the record names none), ``number`` the answer in the
    unit of `data.numbers` (NaN where it is none), ``facts`` all that the page offers by id, ``gold`` the ids among
    them that are the evidence: FinQA's ``gold_inds``, or where ``gold_derived`` says so, read off the program
        (`data.evidence`), which finds four fifths of them. ``kind`` is the family of its source's schema (finqa, tatqa,
        ...). ``evidence_known`` is False where the record names none, so that ``fact`` is the whole page.
    """

    question: str
    page: Page
    fact: str
    number: float
    facts: dict[str, str] = field(default_factory=dict, repr=False)
    gold: list[str] = field(default_factory=list)
    gold_derived: bool = False
    kind: str = ""
    evidence_known: bool = True

    @property
    def numeric_text(self) -> str:
        """What the numeric heads read."""
        return numeric_text(self.question, self.fact)


@dataclass
class Source:
    """What one file or Hub dataset gave: labelled examples and all pages, labelled or not."""

    name: str
    schema: str
    examples: list[Example]
    pages: dict[str, Page]
    sha256: str
    skipped: int = 0


def numeric_text(question: str, context: str) -> str:
    """The text that a numeric head reads, after retrieval: question and evidence."""
    return f"Question: {question} Context: {context}"


def text_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
