"""Which synthetic questions are worth training on: those whose page BM25 finds; siblings of a company next to each other."""

import random
import re
from collections import defaultdict

import bm25s

from ..schema import Page
from .layout import as_finqa_page
from .questions import SyntheticPair, ask


def synthetic_pairs(
    pages: list[Page], count: int, seed: int = 13, keep_rank: int = 5, company_share: float = 0.15
) -> list[SyntheticPair]:
    """Up to ``count`` (question, page) pairs from filing ``pages``, neighbouring pages of a company next to each other.

    A question is kept when BM25 ranks its page among the first ``keep_rank`` of all pages, so that it names what sets its
    page apart; ``company_share`` of the questions name the company where the page's text does.
    """
    rng = random.Random(seed)
    shaped = [result for result in map(as_finqa_page, pages) if result]
    rng.shuffle(shaped)
    candidates = []
    for item in shaped:
        company = item.page.company.lower()
        for _ in range(2):
            pair = ask(item, rng)
            if pair is None:
                continue
            if company and company in item.page.text and rng.random() < company_share:
                pair.question = pair.question.rstrip("?") + f" for {company}?"
            candidates.append(pair)
        if len(candidates) > 2.5 * count:
            break
    kept = _found_by_bm25(candidates, [item.page for item in shaped], keep_rank)
    return _siblings_together(kept, rng)[:count]


def _found_by_bm25(pairs: list[SyntheticPair], pages: list[Page], keep_rank: int) -> list[SyntheticPair]:
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize([page.text for page in pages], stopwords="en", show_progress=False), show_progress=False
    )
    queries = bm25s.tokenize([pair.question for pair in pairs], stopwords="en", show_progress=False)
    found, _ = retriever.retrieve(queries, k=min(keep_rank, len(pages)), show_progress=False)
    ids = [page.page_id for page in pages]
    return [pair for pair, hits in zip(pairs, found) if pair.page.page_id in {ids[i] for i in hits}]


def _siblings_together(pairs: list[SyntheticPair], rng: random.Random, size: int = 8) -> list[SyntheticPair]:
    """Runs of up to ``size`` pairs of one company whose questions share words, the runs in random order."""
    by_company = defaultdict(list)
    for pair in pairs:
        by_company[pair.page.company].append(pair)
    runs = []
    for members in by_company.values():
        # Pages with like line items, years apart, sort next to each other by their question's rarest words.
        members.sort(
            key=lambda pair: sorted(set(re.findall("[a-z]{5,}", pair.question)), key=lambda w: (-len(w), w))[:2]
        )
        runs += [members[i : i + size] for i in range(0, len(members), size)]
    rng.shuffle(runs)
    return [pair for run in runs for pair in run]
