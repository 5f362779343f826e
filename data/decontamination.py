"""Keeps what is evaluated out of what is trained on: by question, by page, and by shared runs of words."""

import re
from dataclasses import dataclass

from .schema import Example, Page

# GPT-3 (Brown et al. 2020, appendix C) calls a document contaminated that shares a run of 13 words.
SHINGLE_WORDS = 13


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def shingles(text: str, width: int = SHINGLE_WORDS) -> set[str]:
    """All runs of ``width`` words (letters and digits, lower case) of a text."""
    words = words_of(text)
    return {" ".join(words[i : i + width]) for i in range(len(words) - width + 1)}


@dataclass
class Decontamination:
    """What may not reach the training side: questions, page ids, facts and word runs of the evaluation pages."""

    questions: set[str]
    page_ids: set[str]
    runs: set[str]

    @classmethod
    def of(cls, examples: list[Example], pages: list[Page] = ()) -> "Decontamination":
        pages = {page.page_id: page for page in [*pages, *(example.page for example in examples)]}
        runs = set().union(*(shingles(page.text) for page in pages.values())) if pages else set()
        return cls({" ".join(words_of(example.question)) for example in examples}, set(pages), runs)

    def leaks(self, text: str) -> bool:
        return not self.runs.isdisjoint(shingles(text))

    def reason(self, example: Example) -> str | None:
        """Why an example must stay out of training, or None."""
        if " ".join(words_of(example.question)) in self.questions:
            return "question"
        if example.page.page_id in self.page_ids:
            return "page"
        return "text" if self.leaks(example.page.text) or self.leaks(example.fact) else None
