"""What the trainer reads: examples and synthetic pairs as columns of text, windows of long pages, and the order of batches."""

import math
import random
import re
from functools import cache

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import SequentialSampler

from ..data.decontamination import words_of
from ..data.loading import load_source
from ..data.numbers import SignedLogScaler
from ..data.schema import Example, numeric_text
from ..data.splits import FinancialData
from ..data.synthesis.transplant import SyntheticPair, transplanted_pairs
from .arguments import DataArguments
from .hard_negatives import mined_negatives


def training_columns(
    examples: list[Example],
    scaler: SignedLogScaler,
    page_words: int | None = None,
    seed: int = 0,
    negatives: dict | None = None,
) -> Dataset:
    """What the loss reads: question, page (or a window of it around the evidence), numeric, label in z (NaN: none).

    ``negatives`` (`mined_negatives`) adds each example's own.
    """
    rng = random.Random(seed)
    pages = [window(example.page.text, page_words, _anchor(example), rng) for example in examples]
    return Dataset.from_dict(
        {
            "question": [example.question for example in examples],
            "page": pages,
            **negative_column(examples, negatives, page_words, rng),
            "numeric": [example.numeric for example in examples],
            "label": scaler.transform([example.number for example in examples]),
        }
    )


def negative_column(
    pairs: list, negatives: dict | None, page_words: int | None, rng: random.Random
) -> dict[str, list[str]]:
    """``negative``: each pair's mined page, or a window of it around its table; nothing where none were mined."""
    if negatives is None:
        return {}
    texts = [negatives[pair.question, pair.page.page_id].text for pair in pairs]
    return {"negative": [window(text, page_words, _table_start(text), rng) for text in texts]}


def _anchor(example: Example) -> int:
    """Where on its page an example's evidence stands: its first gold sentence, else the table, else the start."""
    texts = [example.facts[name] for name in example.gold if name.startswith("text_")]
    position = example.page.text.find(texts[0]) if texts else -1
    return position if position >= 0 else _table_start(example.page.text)


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
    leaks = cache(decontamination.leaks)
    pages = [page for name in data_args.synthesize for page in load_source(name).pages.values()]
    pages = [page for i, page in enumerate(pages) if (i % 5 == 4) == set_aside and not leaks(page.text)]
    if not set_aside:
        pages += {example.page.page_id: example.page for example in data.train}.values()
    # The shaped page can bring words together that layout kept apart: judged again as it is trained on.
    return [
        pair
        for pair in transplanted_pairs(data.train, pages, count, seed)
        if not leaks(pair.page.text) and " ".join(words_of(pair.question)) not in decontamination.questions
    ]


def training_datasets(
    data: FinancialData,
    data_args: DataArguments,
    scaler: SignedLogScaler,
    batch_size: int,
    seed: int,
    model: SentenceTransformer,
) -> dict[str, Dataset]:
    """The labelled pairs and whatever else the arguments ask for, by name, in the order in which batches take them.

    ``model`` mines the negatives, where they are asked for.
    """
    rng = random.Random(seed)

    def shuffled(items):
        return rng.sample(items, len(items))

    examples = [example for _ in range(data_args.labelled_repeats) for example in shuffled(data.train)]
    facts = [example for example in shuffled(data.train) if example.fact != example.page.text]
    pairs = synthesized(data, data_args, data_args.synthetic_pairs, seed, set_aside=False)
    facts += [pair for pair in pairs if math.isfinite(pair.number)]
    negatives = mined_negatives(model, [*data.train, *pairs]) if data_args.hard_negatives else None

    def laid_out(items):
        """No page twice in a batch, as the right one or as a negative; pairs without a negative are left out."""
        if negatives is None:
            keys = [(item.page.page_id,) for item in items]
        else:
            items = [item for item in items if (item.question, item.page.page_id) in negatives]
            keys = [(item.page.page_id, negatives[item.question, item.page.page_id].page_id) for item in items]
        return [items[i] for i in batches_without_repeats(keys, batch_size)]

    examples, pairs = laid_out(examples), laid_out(pairs)
    datasets = {"labelled": training_columns(examples, scaler, data_args.page_words, seed, negatives)}
    if pairs:
        texts = [window(pair.page.text, data_args.page_words, pair.evidence_start, rng) for pair in pairs]
        columns = {"question": [pair.question for pair in pairs], "page": texts}
        columns |= negative_column(pairs, negatives, data_args.page_words, rng)
        datasets["synthetic"] = Dataset.from_dict(columns)
    if data_args.fact_pairs:
        facts = shuffled(facts)[: data_args.fact_pairs]
        facts = [facts[i] for i in batches_without_repeats([(fact.fact,) for fact in facts], batch_size)]
        datasets["facts"] = Dataset.from_dict(
            {
                "question": [fact.question for fact in facts],
                "fact": [fact.fact for fact in facts],
                "numeric": [numeric_text(fact.question, fact.fact) for fact in facts],
                "label": scaler.transform([fact.number for fact in facts]),
            }
        )
    return datasets


def in_order(dataset, batch_size, drop_last, valid_label_columns=None, generator=None, seed=0):
    """A batch sampler that takes rows as `training_datasets` laid them out: no page twice, siblings together."""
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


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


def batches_without_repeats(keys: list[tuple[str, ...]], batch_size: int) -> list[int]:
    """An order of row numbers, close to the given one, in which no batch of ``batch_size`` holds a key twice.

    ``keys`` are those of each row: the id of its page, and of its negative where it has one.
    """
    order, waiting = [], list(range(len(keys)))
    while waiting:
        batch, seen, rest = [], set(), []
        for i in waiting:
            if len(batch) < batch_size and seen.isdisjoint(keys[i]):
                batch.append(i)
                seen.update(keys[i])
            else:
                rest.append(i)
            if len(batch) == batch_size and len(rest) > 4 * batch_size:
                break
        taken = set(batch)
        waiting = [i for i in waiting[: len(batch) + len(rest)] if i not in taken] + waiting[len(batch) + len(rest) :]
        order += batch
    return order
