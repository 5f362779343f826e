"""Keeps what is evaluated out of what is trained on: by question, by page id, and by the share of a page's word
runs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .schema import Example, Page, text_id

# GPT-3 (Brown et al. 2020, appendix C) looks for shared runs of 13 words.
SHINGLE_WORDS = 13

# A text stays out of training when more than this share of its runs stands on evaluation pages. One shared run is no
# reason: filings repeat whole sentences of boilerplate, and a rule of "any run" threw away 748 of 2,651 FinQA questions
# and 1,388 filing pages whose own content is nowhere else.
MAX_SHARED = 0.2

# A random odd number: runs are compared by a polynomial hash of their words, modulo 2^64.
_MULTIPLIER = 0x9E3779B97F4A7C15
_POWERS = np.array([pow(_MULTIPLIER, i, 2**64) for i in range(1, SHINGLE_WORDS + 1)], dtype=np.uint64)


def words_of(text: str) -> list[str]:
    """Letters and digits in lower case, "1,200" as "1200": filings keep thousands separators that FinQA's pages
    lost."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text.lower()))


def shingles(text: str, width: int = SHINGLE_WORDS) -> set[str]:
    """All runs of ``width`` words (letters and digits, lower case) of a text."""
    words = words_of(text)
    return {" ".join(words[i : i + width]) for i in range(len(words) - width + 1)}


def _run_hashes(text: str) -> np.ndarray:
    """One 64-bit hash a run, in order: (words - 12,) uint64, empty for a shorter text. Good within one process."""
    hashes = np.fromiter(map(hash, words_of(text)), np.int64).view(np.uint64)
    if len(hashes) < SHINGLE_WORDS:
        return hashes[:0]
    return np.lib.stride_tricks.sliding_window_view(hashes, SHINGLE_WORDS) @ _POWERS


@dataclass
class Decontamination:
    """What may not reach the training side: questions and page ids of the evaluation, and its pages' runs of words.

    ``runs`` holds the sorted hashes of all runs, (n,) uint64.
    """

    questions: set[str]
    page_ids: set[str]
    runs: np.ndarray
    _judged: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)  # by `text_id`

    @classmethod
    def of(cls, examples: Iterable[Example], pages: Iterable[Page] = ()) -> "Decontamination":
        examples = list(examples)
        by_id = {(page.page_id, page.text): page for page in [*pages, *(example.page for example in examples)]}
        runs = [_run_hashes(page.text) for page in by_id.values()]
        return cls(
            {" ".join(words_of(example.question)) for example in examples},
            {page.page_id for page in by_id.values()},
            np.unique(np.concatenate(runs)) if runs else np.empty(0, np.uint64),
        )

    def shared(self, text: str) -> float:
        """The share, 0 to 1, of a text's runs that stand on evaluation pages; 0 for a text of fewer than 13 words."""
        runs = _run_hashes(text)
        if not len(runs) or not len(self.runs):
            return 0.0
        places = np.minimum(np.searchsorted(self.runs, runs), len(self.runs) - 1)
        return float(np.mean(self.runs[places] == runs))

    def leaks(self, text: str) -> bool:
        """Whether more than `MAX_SHARED` of a text's runs stand on evaluation pages; each text is judged once."""
        key = text_id(text)
        if key not in self._judged:
            self._judged[key] = self.shared(text) > MAX_SHARED
        return self._judged[key]

    def reason(self, example: Example) -> str | None:
        """Why an example must stay out of training ("question", "page" or "text"), or None."""
        if " ".join(words_of(example.question)) in self.questions:
            return "question"
        if example.page.page_id in self.page_ids:
            return "page"
        return "text" if self.leaks(example.page.text) or self._leaks_evidence(example) else None

    def _leaks_evidence(self, example: Example) -> bool:
        # Part of a page that was judged is judged with it; evidence from elsewhere (retrieved facts) on its own.
        return example.fact not in example.page.text and not example.facts and self.leaks(example.fact)
