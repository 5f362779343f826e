"""Short passages to be reminded of: what long pages make an encoder forget, kept by a teacher that has it.

A step of them asks which passage belongs to a sentence (the inverse cloze task, Lee et al. 2019) and learns its
teacher's similarities beside: the untouched encoder's (learning without forgetting, Li and Hoiem 2016) or a named
one's. Real questions are not among them: what the untouched encoder makes of those is what training on pages is to
change.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from ..data.schema import DataError, Page, text_id
from ..data.synthesis.transplant import SyntheticPair

# The column of a row's text in the place of ``page``: by it the rows of passages, and who teaches them, are known.
PASSAGE = "passage"
# How often a sentence stays in its passage, and is found by its words.
KEPT = 0.3
_SENTENCE_END = re.compile(r"(?<=[a-z)\d][.?!])\s+(?=[A-Z“\"])")
_COLUMNS = re.compile(r"\S {3,}\S")
_MIN_CHARACTERS, _MIN_LETTERS = 120, 0.7


def short_passages(pages: Sequence[Page], count: int, seed: int, leaks: Callable[[str], bool]) -> list[SyntheticPair]:
    """``count`` sentences in a question's place, each with a passage as its page: one to four that stand beside it.

    One is taken of a page of ``pages``, no passage twice; fewer where there are no more.

    Args:
        leaks: Whether a text shares too much with the evaluation side: a part of a page can where the whole does not.

    Raises:
        DataError: no page has prose.
    """
    rng = random.Random(seed)
    found: dict[str, SyntheticPair] = {}
    for page in rng.sample(pages, len(pages)):
        if len(found) >= count:
            break
        if paragraphs := list(prose(page.text)):
            sentence, text = _asked(rng.choice(paragraphs), rng)
            if not leaks(text) and not leaks(sentence):
                passage = Page(text_id(text), text, company=page.company)
                found.setdefault(text, SyntheticPair(sentence, passage, evidence_start=0))
    if not found:
        raise DataError("--passage_pairs: no page of --synthesize has prose; name pages that do, or leave it out")
    return list(found.values())


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
