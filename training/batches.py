"""How rows become batches: which pages a step holds, and what the loss is told about their texts.

A row is a page with its questions (training/datasets.py), so a batch of B rows encodes B pages, each once.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.util import all_gather, get_rank
from torch import Tensor

from .teacher import TeacherVectors

# What a row says about its texts, beside the texts themselves.
ABOUT = ("page_id", "negative_id", "company", "section", "dataset_name")
# What of a column's features the model reads, a value for each token.
TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# The columns of which a step may read a part.
THINNED = ("page", "negative")


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
            batch: list[int] = []
            seen: set[str] = set()
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
            following: int | None = row
            while following is not None and following not in taken:
                order.append(following)
                taken.add(following)
                kin = family[self.companies[following]]
                while kin and kin[-1] in taken:
                    kin.pop()
                following = kin[-1] if kin and rng.random() < self.siblings else None
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
    last column is the list of the questions' numeric texts. Those without a number are left out; where none has one,
    the shortest stands in, so that every process uses every parameter. The texts of a column are sorted by length, so
    that they can be forwarded in chunks that are padded to their own longest only.

    Beside what sentence-transformers' collator gives, the first column has ``target`` (Q,), the place of each
    question's page in the second column, and ``right`` (Q, R), the numbers of all pages that answer it; the text
    columns have ``number`` (B,), the numbers of their pages, and names of concepts ``section`` (B,), theirs; all have
    ``chunks``, a list of (begin, end, tokens); with a teacher, the ranked ones have ``teacher`` (n, D), its vectors;
    those that an anchor holds are marked as ``held``.

    Args:
        right_pages: By question, the ids of all pages that answer it (`right_pages`).
        teachers: By the name of a dataset's second column, vectors of its ranked texts (training/teacher.py).
        held: Names of second columns whose datasets an anchor holds.
        tokens_per_forward: Padded tokens of a chunk; None or 0 puts a whole column into one.
        keep_tokens: Share of the tokens of pages that are read, drawn anew for each batch, at their own positions.
        first_position: The backbone's position of a text's first token.
    """

    right_pages: dict[str, set[str]] = field(default_factory=dict, repr=False)
    teachers: dict[str, TeacherVectors] = field(default_factory=dict, repr=False)
    held: Collection[str] = ()
    tokens_per_forward: int | None = None
    keep_tokens: float = 1.0
    first_position: int = 0

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {"dataset_name": features[0]["dataset_name"]} if "dataset_name" in features[0] else {}
        label = next((name for name in self.valid_label_columns if name in features[0]), None)
        question, page, *others = [name for name in features[0] if name not in ABOUT and name != label]
        numeric = others.pop() if label else None
        teacher = self.teachers.get(page)

        asked = [(text, place) for place, row in enumerate(features) for text in row[question]]
        asked = [asked[i] for i in self._add(batch, question, [text for text, _ in asked], "query", teacher)]
        places = self._add_pages(batch, page, features, "page_id", teacher)
        batch[f"{question}_target"] = torch.tensor([places.index(place) for _, place in asked])
        batch[f"{question}_right"] = self._right([(text, features[place]["page_id"]) for text, place in asked])
        if "section" in features[0]:
            batch[f"{page}_section"] = torch.tensor([page_number(features[i]["section"]) for i in places])
        for name in others:
            self._add_pages(batch, name, features, f"{name}_id", teacher)
        if page in self.held:
            batch |= {f"{name}_held": True for name in (question, page, *others)}
        if numeric and label:
            pairs = [pair for row in features for pair in zip(row[numeric], row[label])]
            pairs = [(text, z) for text, z in pairs if z == z] or [min(pairs, key=lambda pair: len(pair[0]))]
            order = self._add(batch, numeric, [text for text, _ in pairs])
            batch["label"] = torch.tensor([pairs[i][1] for i in order], dtype=torch.float32)
        return batch

    def _add(
        self, batch: dict, column: str, texts: list[str], role: str = "", teacher: TeacherVectors | None = None
    ) -> list[int]:
        """Add a column's tokens, shortest text first, and what the teacher thinks of them; returns the order."""
        prompt = self._get_prompt_for_column(self._resolve_prompts(batch) or {}, column)
        tokens = self.preprocess_fn(texts, prompt=prompt, task=None)
        if column in THINNED and self.keep_tokens < 1:
            tokens = thinned(tokens, self._kept(tokens, texts), self.first_position)
        lengths, order = tokens["attention_mask"].sum(1).sort(stable=True)
        for name, value in tokens.items():
            batch[f"{column}_{name}"] = value[order] if torch.is_tensor(value) and value.ndim else value
        batch[f"{column}_chunks"] = chunks(lengths.tolist(), self.tokens_per_forward)
        if teacher:
            batch[f"{column}_teacher"] = teacher([texts[i] for i in order], role)
        return order.tolist()

    def _kept(self, tokens: dict[str, torch.Tensor], texts: list[str]) -> torch.Tensor:
        """(n, T): what a step reads of its pages; the ends always. The batch alone decides, so runs can be resumed."""
        ids, attended = tokens["input_ids"], tokens["attention_mask"].bool()
        generator = torch.Generator().manual_seed(page_number("\n".join(texts)) % 2**63)
        kept = torch.rand(ids.shape, generator=generator) < self.keep_tokens
        kept[:, 0] = True
        kept[torch.arange(len(ids)), attended.sum(1) - 1] = True
        return kept & attended

    def _add_pages(
        self, batch: dict, column: str, features: list[dict], identity: str, teacher: TeacherVectors | None
    ) -> list[int]:
        """Add a column of one text a row and the numbers of its pages; returns the order."""
        order = self._add(batch, column, [row[column] for row in features], "document", teacher)
        batch[f"{column}_number"] = torch.tensor([page_number(features[i][identity]) for i in order])
        return order

    def _right(self, asked: list[tuple[str, str]]) -> torch.Tensor:
        """(Q, R) page numbers, a question's own page first; who has fewer than R repeats it."""
        rows = [list(dict.fromkeys([own, *sorted(self.right_pages.get(text, ()))])) for text, own in asked]
        width = max(map(len, rows))
        return torch.tensor([[page_number(i) for i in row + row[:1] * (width - len(row))] for row in rows])


class Answers(NamedTuple):
    """Which of a batch's C pages (mined negatives included) answer its Q questions.

    ``target`` (Q,) is the place of each question's own page, ``right`` (Q, R) the numbers of all that answer it and
    ``numbers`` (C,) those of the batch's pages; ``teacher`` are a teacher's vectors of both, (Q, D) and (C, D), and
    ``anchor`` those of the stage's start. Where pages are names of concepts, ``sections`` (C,) number where those
    stand in a company's statements.
    """

    target: Tensor
    right: Tensor | None = None
    numbers: Tensor | None = None
    teacher: tuple[Tensor, Tensor] | None = None
    anchor: tuple[Tensor, Tensor] | None = None
    sections: Tensor | None = None

    @classmethod
    def of(cls, columns: list[dict[str, Tensor]]) -> "Answers":
        """From `PageCollator`'s columns; of plain columns, page i answers question i alone."""
        questions, *pages = columns
        if "target" not in questions:
            return cls(torch.arange(len(questions["input_ids"]), device=questions["input_ids"].device))
        teacher, anchor = (
            (questions[whose], torch.cat([page[whose] for page in pages])) if whose in questions else None
            for whose in ("teacher", "anchor")
        )
        numbers = torch.cat([page["number"] for page in pages])
        return cls(questions["target"], questions["right"], numbers, teacher, anchor, pages[0].get("section"))

    def gathered(self, pages: int) -> "Answers":
        """The same among the pages of all processes, each of which has so many ``pages``."""
        teacher = self.teacher and (self.teacher[0], all_gather(self.teacher[1]))
        numbers = self.numbers if self.numbers is None else all_gather(self.numbers)
        sections = self.sections if self.sections is None else all_gather(self.sections)
        return Answers(self.target + get_rank() * pages, self.right, numbers, teacher, self.anchor, sections)

    def others(self) -> Tensor | None:
        """(Q, C): pages that answer a question as well as its own one does, or copies of that one; None: not known."""
        if self.numbers is None or self.right is None:
            return None
        answering = (self.numbers == self.right.unsqueeze(-1)).any(1)
        return answering & (torch.arange(len(self.numbers), device=self.numbers.device) != self.target.unsqueeze(-1))


def chunks(lengths: list[int], tokens: int | None) -> list[tuple[int, int, int]]:
    """(begin, end, longest) of runs of ascending ``lengths`` that hold at most ``tokens`` when padded to their longest.

    A run ends, too, where its shortest text would be padded by more than an eighth and 8 tokens. Without ``tokens`` all
    is one run.
    """
    cuts = [0]
    for i, length in enumerate(lengths):
        begin = cuts[-1]
        if tokens and i > begin and ((i + 1 - begin) * length > tokens or length > 1.125 * lengths[begin] + 8):
            cuts.append(i)
    return [(begin, end, lengths[end - 1]) for begin, end in zip(cuts, [*cuts[1:], len(lengths)])]


def thinned(tokens: dict[str, torch.Tensor], keep: torch.Tensor, first_position: int = 0) -> dict[str, torch.Tensor]:
    """(n, T) tokens without those where ``keep`` (n, T) is false, the others closed up, with their ``position_ids``."""
    order = (~keep).sort(dim=1, stable=True).indices[:, : int(keep.sum(1).max())]
    gathered = {name: tokens[name].gather(1, order) for name in TOKENS if name in tokens}
    return tokens | gathered | {"attention_mask": keep.long().gather(1, order), "position_ids": order + first_position}


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
