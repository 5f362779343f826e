"""Which synthetic questions are worth training on: those whose page BM25 finds."""

from ..bm25 import bm25s
from ..schema import Page


class Finder:
    """BM25 over ``pages`` (bm25s, English stop words): whether a question finds its page among the first ``among``."""

    def __init__(self, pages: list[Page], among: int):
        self.ids = [page.page_id for page in pages]
        self.among = min(among, len(pages))
        self.index = bm25s.BM25()
        texts = bm25s.tokenize([page.text for page in pages], stopwords="en", show_progress=False)
        self.index.index(texts, show_progress=False)

    def finds(self, questions: list[str], page_ids: list[str]) -> list[bool]:
        """For each question whether BM25 ranks its page among the first."""
        if not questions:
            return []
        queries = bm25s.tokenize(questions, stopwords="en", show_progress=False)
        found, _ = self.index.retrieve(queries, k=self.among, show_progress=False)
        return [page_id in {self.ids[i] for i in hits} for page_id, hits in zip(page_ids, found)]
