"""What the trainer reads: a row for each page with its questions, from examples and synthetic pairs."""

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer

from ..data.decontamination import words_of
from ..data.loading import load_source
from ..data.numbers import SignedLogScaler
from ..data.positions import first_position
from ..data.schema import DataError, Example, Page, text_id
from ..data.splits import FinancialData
from ..data.synthesis.transplant import SyntheticPair, is_set_aside, transplanted_pairs
from ..sentence_transformers_config.folder import finmatryoshka_of
from .arguments import DataArguments
from .batches import PageCollator, right_pages
from .concepts import SYNONYM, concept_rows
from .hard_negatives import mined_negatives
from .passages import PASSAGE, short_passages
from .teacher import TeacherVectors, teacher_vectors
from .trainer_arguments import FinTrainingArguments


def training_rows(
    pairs: Sequence[Example | SyntheticPair],
    scaler: SignedLogScaler | None = None,
    questions_per_page: int = 1,
    page_words: int | None = None,
    seed: int = 0,
    negatives: dict | None = None,
) -> Dataset:
    """A row for each page: its questions, its text and its ids; what training/batches.py reads.

    Columns: ``question`` (list), ``page`` (or a window of it around the evidence), with ``negatives`` the mined
    ``negative``, with a ``scaler`` ``numeric_text`` (list) and ``label`` (list, in z, NaN: none), then ``page_id``,
    ``negative_id`` and ``company``.

    Args:
        questions_per_page: A page with more of them makes several rows. One whose window depends on the question has
            one question a row.
        negatives: `mined_negatives`; pairs without one are left out.
    """
    rng = random.Random(seed)
    if negatives is not None:
        pairs = [pair for pair in pairs if (pair.question, pair.page.page_id) in negatives]
    rows = []
    for group in _grouped(pairs, questions_per_page, page_words):
        page = group[0].page
        row = {
            "question": [pair.question for pair in group],
            "page": window(page.text, page_words, evidence_start(group[0]), rng),
        }
        if negatives is not None:
            negative = negatives[group[0].question, page.page_id]
            row["negative"] = window(negative.text, page_words, _table_start(negative.text), rng)
            row["negative_id"] = negative.page_id
        rows.append(row | numeric_columns(group, scaler) | {"page_id": page.page_id, "company": page.company})
    return Dataset.from_list(rows)


def fact_rows(
    pairs: Sequence[Example | SyntheticPair], scaler: SignedLogScaler | None, questions_per_page: int = 1
) -> Dataset:
    """A row for each evidence text (``fact``) with its questions and their numbers, otherwise as `training_rows`."""
    by_fact = defaultdict(list)
    for pair in pairs:
        by_fact[pair.fact].append(pair)
    return Dataset.from_list(
        [
            {"question": [pair.question for pair in part], "fact": fact}
            | numeric_columns(part, scaler)
            | {"page_id": text_id(fact), "company": part[0].page.company}
            for fact, group in by_fact.items()
            for part in _parts(group, questions_per_page)
        ]
    )


def numeric_columns(pairs: Sequence[Example | SyntheticPair], scaler: SignedLogScaler | None) -> dict[str, list]:
    """``numeric_text`` and ``label`` of a row's questions; nothing without a ``scaler``.

    A question without known evidence has no label: its numeric text would be the whole page once more.
    """
    if scaler is None:
        return {}
    numbers = [pair.number if pair.evidence_known else math.nan for pair in pairs]
    labels = [float(z) for z in scaler.transform(numbers)]
    return {"numeric_text": [pair.numeric_text for pair in pairs], "label": labels}


def _grouped(pairs: Sequence, questions_per_page: int, page_words: int | None) -> Iterator[list]:
    """Pairs of one page side by side, at most ``questions_per_page`` of them, pages in order of their first pair."""
    by_page = defaultdict(list)
    for pair in pairs:
        by_page[pair.page.page_id].append(pair)
    for group in by_page.values():
        cut = page_words and len(group[0].page.text.split()) > page_words
        yield from _parts(group, 1 if cut else questions_per_page)


def _parts(group: list, size: int) -> list[list]:
    """The fewest parts of at most ``size``, as even as can be."""
    count = math.ceil(len(group) / size)
    return [group[i::count] for i in range(count)]


def evidence_start(pair: Example | SyntheticPair) -> int:
    """The character of its page where a pair's evidence stands: its first gold sentence, else the table, else 0."""
    if isinstance(pair, SyntheticPair):
        return pair.evidence_start
    texts = [pair.facts[name] for name in pair.gold if name.startswith("text_")]
    position = pair.page.text.find(texts[0]) if texts else -1
    return position if position >= 0 else _table_start(pair.page.text)


def _table_start(text: str) -> int:
    return max(text.find("[["), 0)


def synthesized(
    data: FinancialData, data_args: DataArguments, count: int, seed: int, set_aside: bool
) -> list[SyntheticPair]:
    """Questions transplanted to pages that share no text with the evaluation side, none of them an evaluation question.

    The pages are four fifths of the filing pages and the labelled ones, or (`set_aside`) the fifth that is left: the
    backbone never sees it, the projection is refitted on it.
    """
    if not (data_args.synthesize and count):
        return []
    decontamination = data.decontamination
    pages = unlabelled_pages(data, data_args, set_aside)
    if not set_aside:
        pages += {example.page.page_id: example.page for example in data.train}.values()
    # The shaped page can bring words together that layout kept apart: judged again as it is trained on.
    return [
        pair
        for pair in transplanted_pairs(data.train, pages, count, seed)
        if not decontamination.leaks(pair.page.text)
        and " ".join(words_of(pair.question)) not in decontamination.questions
    ]


def unlabelled_pages(data: FinancialData, data_args: DataArguments, set_aside: bool) -> list[Page]:
    """The filing pages, or the fifth of them that is `set_aside`, that share no text with the evaluation side."""
    pages = [page for name in data_args.synthesize or [] for page in load_source(name).pages.values()]
    pages = [page for i, page in enumerate(pages) if is_set_aside(i) == set_aside]
    return [page for page in pages if not data.decontamination.leaks(page.text)]


def training_datasets(
    data: FinancialData, data_args: DataArguments, scaler: SignedLogScaler | None, seed: int,
    model: SentenceTransformer | None,
) -> dict[str, Dataset]:  # fmt: skip
    """The labelled pages and whatever else the arguments ask for, by name; their order means nothing.

    ``model`` mines the negatives, where they are asked for; None mines none.
    """
    rng = random.Random(seed)
    pairs = synthesized(data, data_args, data_args.synthetic_pairs, seed, set_aside=False)
    negatives = (
        mined_negatives(model, [*data.train, *pairs]) if model is not None and data_args.hard_negatives else None
    )
    options: dict[str, Any] = {
        "questions_per_page": data_args.questions_per_page,
        "page_words": data_args.page_words,
        "negatives": negatives,
    }
    datasets = {}
    for name in sorted({example.kind for example in data.train}) if not data_args.mix_sources else [None]:
        examples = [example for example in data.train if name in (None, example.kind)]
        repeats = [training_rows(examples, scaler, seed=seed + i, **options) for i in range(data_args.labelled_repeats)]
        datasets[name or "labelled"] = concatenate_datasets(repeats)
    if pairs:
        datasets["synthetic"] = training_rows(pairs, seed=seed, **options)
    if data_args.fact_pairs:
        facts: list[Example | SyntheticPair] = [example for example in data.train if example.evidence_known]
        facts += [pair for pair in pairs if math.isfinite(pair.number)]
        if not facts:
            raise DataError("--fact_pairs: no question of --data says where its evidence stands; leave it out")
        facts = rng.sample(facts, min(len(facts), data_args.fact_pairs))
        datasets["facts"] = fact_rows(facts, scaler, data_args.questions_per_page)
    if data_args.passage_pairs:
        pages = unlabelled_pages(data, data_args, set_aside=False)
        passages = short_passages(pages, data_args.passage_pairs, seed, data.decontamination.leaks)
        datasets["passages"] = training_rows(passages).rename_column("page", PASSAGE)
    if data_args.concept_pairs:
        file, count = data_args.concept_pairs
        datasets["concepts"] = concept_rows(file, count, seed)
    return {name: rows for name, rows in datasets.items() if len(rows)}  # a kind none of whose pages has a negative


def page_collator(
    model: SentenceTransformer, args: FinTrainingArguments, datasets: list[Dataset], untouched: str
) -> PageCollator:
    """The collator of ``datasets``, with the vectors of who teaches them.

    Passages are taught by the ``passage_teacher`` of ``args`` or else the ``untouched`` encoder, all others by their
    ``teacher``, if any. Names of concepts are neither taught nor held by an anchor: what they are to learn, their table
    says.
    """
    config = finmatryoshka_of(model).config
    teachers: dict[str, TeacherVectors] = {}
    texts = [rows for rows in datasets if SYNONYM not in rows.column_names]
    if args.teacher_weight and args.anchor_weight < 1:
        with args.main_process_first(local=False, desc="teacher"):
            for folders, reminded in ((args.teacher or [], False), (args.passage_teacher or [untouched], True)):
                taught = [rows for rows in texts if (PASSAGE in rows.column_names) == reminded]
                if folders and taught:
                    vectors = teacher_vectors(folders, taught, Path(args.output_dir))
                    teachers |= {rows.column_names[1]: vectors for rows in taught}
    return PageCollator(
        model.preprocess,
        prompts=args.prompts,
        right_pages=right_pages(datasets),
        teachers=teachers,
        held={rows.column_names[1] for rows in texts},
        tokens_per_forward=args.tokens_per_forward,
        keep_tokens=args.keep_tokens,
        first_position=first_position(config),
    )


def window(text: str, words: int | None, anchor: int, rng: random.Random) -> str:
    """About ``words`` words of ``text`` that hold what stands at character ``anchor``; None for all of it."""
    if not words:
        return text
    spans = [match.start() for match in re.finditer(r"\S+", text)]
    if len(spans) <= words:
        return text
    at = sum(1 for start in spans if start < anchor)
    first = rng.randrange(max(0, at - words // 2), at + 1)
    first = min(first, len(spans) - words)
    last = spans[first + words] if first + words < len(spans) else len(text)
    return text[spans[first] : last].strip()
