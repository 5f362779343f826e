"""How rows become batches: which pages a step holds, and what the loss is told about their texts.

A row is a page with its questions (training/datasets.py), so a batch of B rows encodes B pages, each once.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from .teacher import TeacherVectors

# What a row says about its texts, beside the texts themselves.
ABOUT = ("page_id", "negative_id", "company", "dataset_name")


class PageBatchSampler(DefaultBatchSampler):
    """Batches of rows with different ``page_id``, the same for the same ``seed`` and epoch; every batch is full.

    The last batch is filled up with other rows of the epoch, so that several processes stay in step. A row that shares
    its page with the batch waits for the next one (after the last: for another epoch). Only where a dataset has fewer
    pages than a batch does a batch hold one twice; the loss takes neither copy for wrong.

    Args:
        dataset: Rows with ``page_id`` and ``company`` ("" where it is not known).
        siblings: Chance that a page is followed by another one of its company: 0 shuffles, 1 puts companies in a row.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        siblings: float = 0.0,
    ):
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        plain = dataset.with_format(None)  # without the trainer's transform, which would read every text
        self.pages, self.companies = list(plain["page_id"]), list(plain["company"])
        self.siblings = siblings

    def __len__(self) -> int:
        whole, rest = divmod(len(self.pages), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        order = self._order(rng)
        waiting = order[::-1]
        for _ in range(len(self)):
            batch, seen = [], set()
            waiting = self._fill(batch, seen, waiting)
            if len(batch) < self.batch_size:
                self._fill(batch, seen, rng.sample(order, len(order)))
            while len(batch) < self.batch_size and waiting:
                batch.append(waiting.pop())
            yield batch

    def _order(self, rng: random.Random) -> list[int]:
        """All rows, shuffled, each followed by one of its company with chance ``siblings``."""
        rows = rng.sample(range(len(self.pages)), len(self.pages))
        family = defaultdict(list)
        for row in rows:
            if self.companies[row]:
                family[self.companies[row]].append(row)
        order, taken = [], set()
        for row in rows:
            while row is not None and row not in taken:
                order.append(row)
                taken.add(row)
                kin = family[self.companies[row]]
                while kin and kin[-1] in taken:
                    kin.pop()
                row = kin[-1] if kin and rng.random() < self.siblings else None
        return order

    def _fill(self, batch: list[int], seen: set[str], waiting: list[int]) -> list[int]:
        """Move rows of unseen pages from the end of ``waiting`` to ``batch`` until it is full; returns who waits on."""
        skipped = []
        while waiting and len(batch) < self.batch_size:
            row = waiting.pop()
            if self.pages[row] in seen:
                skipped.append(row)
            else:
                batch.append(row)
                seen.add(self.pages[row])
        return waiting + skipped[::-1]


@dataclass
class PageCollator(SentenceTransformerDataCollator):
    """Tokenises a batch of rows and tells the loss which page answers which question.

    A row has one list of questions (the first column), then one text a column (page, mined negative); with labels, the
    last column is the list of the questions' numeric texts, of which those without a number are left out. The texts of
    a column are sorted by length, so that they can be forwarded in chunks that are padded to their own longest only.

    Beside what sentence-transformers' collator gives, the first column has ``target`` (Q,), the place of each
    question's page in the second column, and ``right`` (Q, R), the numbers of all pages that answer it; the text columns
    have ``number`` (B,), the numbers of their pages; all have ``chunks``, a list of (begin, end, tokens); with a
    teacher, the ranked ones have ``teacher`` (n, D), its vectors.

    Args:
        right_pages: By question, the ids of all pages that answer it (`right_pages`).
        teacher: Vectors of all texts (training/teacher.py).
        tokens_per_forward: Padded tokens of a chunk; None puts a whole column into one.
    """

    right_pages: dict[str, set[str]] = field(default_factory=dict, repr=False)
    teacher: TeacherVectors | None = field(default=None, repr=False)
    tokens_per_forward: int | None = None

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {"dataset_name": features[0]["dataset_name"]} if "dataset_name" in features[0] else {}
        label = next((name for name in self.valid_label_columns if name in features[0]), None)
        question, page, *others = [name for name in features[0] if name not in ABOUT and name != label]
        numeric = others.pop() if label else None

        asked = [(text, place) for place, row in enumerate(features) for text in row[question]]
        asked = [asked[i] for i in self._add(batch, question, [text for text, _ in asked], "query")]
        places = self._add_pages(batch, page, features, "page_id")
        batch[f"{question}_target"] = torch.tensor([places.index(place) for _, place in asked])
        batch[f"{question}_right"] = self._right([(text, features[place]["page_id"]) for text, place in asked])
        for name in others:
            self._add_pages(batch, name, features, f"{name}_id")
        if numeric:
            pairs = [pair for row in features for pair in zip(row[numeric], row[label])]
            pairs = [(text, z) for text, z in pairs if z == z] or pairs[:1]
            order = self._add(batch, numeric, [text for text, _ in pairs])
            batch["label"] = torch.tensor([pairs[i][1] for i in order], dtype=torch.float32)
        return batch

    def _add(self, batch: dict, column: str, texts: list[str], role: str | None = None) -> list[int]:
        """Add a column's tokens, shortest text first, and what the teacher thinks of them; returns the order."""
        prompt = self._get_prompt_for_column(self._resolve_prompts(batch) or {}, column)
        tokens = self.preprocess_fn(texts, prompt=prompt, task=None)
        lengths, order = tokens["attention_mask"].sum(1).sort(stable=True)
        for name, value in tokens.items():
            batch[f"{column}_{name}"] = value[order] if torch.is_tensor(value) and value.ndim else value
        batch[f"{column}_chunks"] = chunks(lengths.tolist(), self.tokens_per_forward)
        if self.teacher and role:
            batch[f"{column}_teacher"] = self.teacher([texts[i] for i in order], role)
        return order.tolist()

    def _add_pages(self, batch: dict, column: str, features: list[dict], identity: str) -> list[int]:
        """Add a column of one text a row and the numbers of its pages; returns the order."""
        order = self._add(batch, column, [row[column] for row in features], "document")
        batch[f"{column}_number"] = torch.tensor([page_number(features[i][identity]) for i in order])
        return order

    def _right(self, asked: list[tuple[str, str]]) -> torch.Tensor:
        """(Q, R) page numbers, a question's own page first; who has fewer than R repeats it."""
        rows = [list(dict.fromkeys([own, *sorted(self.right_pages.get(text, ()))])) for text, own in asked]
        width = max(map(len, rows))
        return torch.tensor([[page_number(i) for i in row + row[:1] * (width - len(row))] for row in rows])


def chunks(lengths: list[int], tokens: int | None) -> list[tuple[int, int, int]]:
    """(begin, end, longest) of runs of ascending ``lengths`` that hold at most ``tokens`` when padded to their longest."""
    cuts = [0]
    for i, length in enumerate(lengths):
        if tokens and i > cuts[-1] and (i + 1 - cuts[-1]) * length > tokens:
            cuts.append(i)
    return [(begin, end, lengths[end - 1]) for begin, end in zip(cuts, [*cuts[1:], len(lengths)])]


def page_number(page_id: str) -> int:
    """A number for a page's id, the same in every process (64 bits: two pages meet by chance once in 10^10 corpora)."""
    return int.from_bytes(hashlib.blake2b(page_id.encode(), digest_size=8).digest(), signed=True)


def right_pages(datasets: Iterable[Dataset]) -> dict[str, set[str]]:
    """By question that stands on several pages, the ids of all of them; the first column holds the questions."""
    found = defaultdict(set)
    for dataset in datasets:
        for questions, page_id in zip(dataset[dataset.column_names[0]], dataset["page_id"]):
            for question in questions:
                found[question].add(page_id)
    return {question: pages for question, pages in found.items() if len(pages) > 1}
