"""Short passages to be reminded of: what long pages make an encoder forget, kept by its untouched self as the teacher.

A step of them asks which passage belongs to a sentence (the inverse cloze task, Lee et al. 2019) or answers a real
question, and learns the untouched encoder's similarities beside (learning without forgetting, Li and Hoiem 2016).
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from datasets import Dataset

from ..data.schema import DataError, Example, Page, text_id

PASSAGE = "passage"
# How often a sentence stays in its passage, and is found by its words.
KEPT = 0.3
_SENTENCE_END = re.compile(r"(?<=[a-z)\d][.?!])\s+(?=[A-Z“\"])")
_COLUMNS = re.compile(r"\S {3,}\S")
_MIN_CHARACTERS, _MIN_LETTERS = 120, 0.7


class Passage(NamedTuple):
    """A question, or a sentence in its place, and the short passage that it belongs to."""

    question: str
    page: Page


def short_passages(examples: Sequence[Example], pages: Sequence[Page], count: int, seed: int) -> list[Passage]:
    """``count`` passages, no text twice, fewer where there are no more.

    Half of them, where there are as many, are questions of ``examples`` with their evidence; the others sentences of
    ``pages`` with one to four that stand beside them, a page each.

    Raises:
        DataError: neither evidence nor prose.
    """
    rng = random.Random(seed)
    known = [example for example in examples if example.evidence_known]
    rng.shuffle(known)
    found: dict[str, Passage] = {}
    for example in known:
        if len(found) >= count // 2:
            break
        found.setdefault(example.fact, _passage(example.question, example.fact, example.page))
    for page in rng.sample(pages, len(pages)):
        if len(found) >= count:
            break
        if paragraphs := list(prose(page.text)):
            sentence, text = _asked(rng.choice(paragraphs), rng)
            found.setdefault(text, _passage(sentence, text, page))
    if not found:
        raise DataError(
            "--passage_pairs: no question's evidence is known and no page of --synthesize has prose; leave it out"
        )
    return list(found.values())


def passage_rows(passages: Sequence[Passage]) -> Dataset:
    """A row for each: ``question`` (a list of one), ``passage`` and its ids, as training/batches.py reads them."""
    return Dataset.from_list(
        [
            {"question": [question], PASSAGE: page.text, "page_id": page.page_id, "company": page.company}
            for question, page in passages
        ]
    )


def _passage(question: str, text: str, page: Page) -> Passage:
    return Passage(question, Page(text_id(text), text, company=page.company))


def prose(text: str) -> Iterator[list[str]]:
    """The sentences of each paragraph of layout text that has two; no table, heading or list of figures."""
    for block in re.split(r"\n\s*\n", text):
        paragraph = " ".join(block.split())
        letters = sum(map(str.isalpha, paragraph))
        if _COLUMNS.search(block) or len(paragraph) < _MIN_CHARACTERS or letters < _MIN_LETTERS * len(paragraph):
            continue
        sentences = [sentence for sentence in _SENTENCE_END.split(paragraph) if 30 <= len(sentence) <= 400]
        if len(sentences) > 1:
            yield sentences


def _asked(sentences: list[str], rng: random.Random) -> tuple[str, str]:
    """One of two or more sentences, and up to two on either side of it, mostly without itself."""
    at = rng.randrange(len(sentences))
    begin, end = max(0, at - rng.randrange(3)), min(len(sentences), at + 1 + rng.randrange(3))
    if end - begin < 2:
        begin, end = (at - 1, at + 1) if at else (0, 2)
    kept = rng.random() < KEPT
    return sentences[at], " ".join(s for i, s in enumerate(sentences[begin:end], begin) if kept or i != at)
