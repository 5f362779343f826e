"""A training step as ratios against plain sentence-transformers on the same encoder and pairs, measured in one run.

python -m finmatryoshka.training.speed [--data FILE] [--base minilm] [--length 640]
python -m finmatryoshka.training.speed --trainer      the trainer beside a bare loop over the same batches
python -m finmatryoshka.training.speed --sizes        cost over tokens a page and over pages
"""

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any, cast

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn
from transformers import PreTrainedModel

from ..data.encoders import encoder_folder
from ..data.loading import load_source
from ..data.positions import extend_encoder
from ..eval.environment import describe_machine
from ..eval.sizes import COUNTED_TOKENS, LENGTHS, PAGE_COUNTS, filled, length_row, size_tables
from ..eval.speed import write_speed
from ..eval.stopwatch import interleave, low_precision, memory_ratios, ratios, shares_of_peak, spread
from ..eval.tables import Table, print_tables
from .backbone import as_sentence_transformer, load_finmatryoshka
from .batches import PageBatchSampler, PageCollator, right_pages
from .losses import FinMatryoshkaLoss
from .trainer_speed import measure_trainer


def _step(model: SentenceTransformer, loss: nn.Module, columns: list[list[str]], with_labels: bool, dtype):
    """One whole optimiser step over ready-made features."""
    features = [_to(model.preprocess(column), model.device) for column in columns]
    labels = torch.zeros(len(columns[0]), device=model.device) if with_labels else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def step():
        optimizer.zero_grad()
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            value = loss([dict(column) for column in features], labels)
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        optimizer.step()

    return step


def measure_training(
    name: str, texts: list[tuple[str, str, str]], length: int, repeats: int, dims: list[int]
) -> list[dict]:
    """Rows of variant, ratio, memory and share of peak of one training step over the same pairs at ``length`` tokens.

    The reference is what sentence-transformers' documentation shows: fp32, the checkpoint's own dropout, pairs under
    MultipleNegativesRankingLoss. Ours: low precision and no dropout; then ``dims`` instead of one dimension; then the
    numeric_text column.
    """
    plain = SentenceTransformer(name)
    _stretch(plain, length)
    questions, pages, numeric = (list(column) for column in zip(*texts))
    low = low_precision()
    variants = {
        "plain sentence-transformers, fp32, its dropout": _step(
            plain, MultipleNegativesRankingLoss(plain), [questions, pages], False, None
        )
    }
    for label, matryoshka_dims, with_numbers in (
        ("one dimension", dims[:1], False),
        (f"{len(dims)} dimensions", dims, False),
        (f"{len(dims)} dimensions and numbers", dims, True),
    ):
        with tempfile.TemporaryDirectory() as folder:
            model = as_sentence_transformer(load_finmatryoshka(name, matryoshka_dims, length), name, folder)
        columns = [questions, pages, numeric] if with_numbers else [questions, pages]
        step = _step(model, FinMatryoshkaLoss(model), columns, with_numbers, low)
        variants[f"FinMatryoshka, {str(low).removeprefix('torch.')}, no dropout, {label}"] = step
    seconds = interleave(variants, repeats)
    reference, single = list(variants)[:2]
    memory, share = memory_ratios(variants, reference), shares_of_peak(variants, seconds)
    rows = []
    for variant, ratio in ratios(seconds, reference).items():
        rate = len(texts) / statistics.median(seconds[variant])
        row = {
            "variant": variant,
            "ratio": ratio,
            "memory": memory[variant],
            "share of peak": share[variant],
            "pairs per second": rate,
        }
        if variant != reference:
            row["step over one dimension"] = statistics.median(a / b for a, b in zip(seconds[variant], seconds[single]))
        rows.append(row)
    return rows


def _stretch(model: SentenceTransformer, length: int) -> None:
    """Let a plain SentenceTransformer read ``length`` tokens, by the same interpolation as ours."""
    transformer = model[0]
    plain = cast(PreTrainedModel, transformer.model)
    encoder, changes = extend_encoder(plain, plain.config, length)
    transformer.model = encoder
    for name, value in changes.items():
        setattr(encoder.config, name, value)
    model.max_seq_length = length


def _to(features, device):
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in features.items()}


def training_over_length(
    name: str, texts: list[tuple[str, str, str]], lengths: list[int], repeats: int, dims: list[int]
) -> list[dict]:
    """Rows of ``tokens`` a page and ``milliseconds`` of a pair in a training step (median, least, most)."""
    steps = {}
    for length in lengths:
        with tempfile.TemporaryDirectory() as folder:
            model = as_sentence_transformer(load_finmatryoshka(name, dims, length), name, folder)
        columns = [list(column) for column in list(zip(*texts))[:2]]
        steps[str(length)] = _step(model, FinMatryoshkaLoss(model), columns, False, low_precision())
    seconds = interleave(steps, repeats)
    return [length_row(int(tokens), [time / len(texts) for time in times]) for tokens, times in seconds.items()]


def batches_over_pages(model: SentenceTransformer, pages: list[str], counts: list[int], size: int) -> list[dict]:
    """Rows of ``pages`` and the ``seconds`` of an epoch beside its steps: rows, their order, and every batch's tokens,
    at `COUNTED_TOKENS` a page."""
    model.max_seq_length = COUNTED_TOKENS
    rows = []
    for count in counts:
        texts = filled(pages, count, COUNTED_TOKENS)
        started = time.perf_counter()
        dataset = Dataset.from_list(
            [{"question": [f"question {i}"], "page": t, "page_id": str(i), "company": ""} for i, t in enumerate(texts)]
        )
        collator = PageCollator(model.preprocess, right_pages=right_pages([dataset]))
        for batch in PageBatchSampler(dataset, min(size, count), drop_last=False):
            collator([dataset[i] for i in batch])
        rows.append({"pages": count, "seconds": time.perf_counter() - started})
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.training.speed", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", default="sample", help="a labelled source")
    parser.add_argument("--base", default="minilm", help="the encoder whose training step is measured")
    parser.add_argument("--length", type=int, default=640, help="tokens of a page while training")
    parser.add_argument("--dims", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--pairs", type=int, default=10, help="of a step; with --trainer: pages of a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trainer", action="store_true", help="the trainer beside a bare loop over the same batches")
    parser.add_argument("--steps", type=int, default=8, help="with --trainer: steps that count in each repeat")
    parser.add_argument("--sizes", action="store_true", help="cost over tokens a page and over pages")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="with --sizes: tokens a page")
    parser.add_argument("--counts", nargs="+", type=int, default=list(PAGE_COUNTS), help="with --sizes: pages")
    parser.add_argument("--output", help="with --sizes: folder for speed.json, speed.md and the picture")
    arguments = parser.parse_args(argv)
    print(f"machine: {describe_machine()['machine']}")
    base = encoder_folder(arguments.base)
    if arguments.trainer:
        rows = measure_trainer(
            base, arguments.data, arguments.length, arguments.dims, arguments.pairs, arguments.steps, arguments.repeats
        )
        print_tables([trainer_table(rows)])
        return 0
    source = load_source(arguments.data, "validation")
    filler = " ".join(page.text for page in list(source.pages.values())[:20])  # pages long enough to fill --length
    examples = source.examples[: arguments.pairs]
    texts = [(e.question, (e.page.text + " " + filler), e.numeric_text[:600]) for e in examples]
    if arguments.sizes:
        results: dict[str, Any] = {"base": arguments.base, "data": arguments.data, **describe_machine()}
        results["over_length"] = training_over_length(base, texts, arguments.lengths, arguments.repeats, arguments.dims)
        pages = [page.text for page in source.pages.values()]
        results["over_pages"] = batches_over_pages(SentenceTransformer(base), pages, arguments.counts, 32)
        tables = size_tables("training", results)
        print_tables(tables)
        if arguments.output:
            write_speed(results, tables, arguments.output)
        return 0
    print_tables([step_table(measure_training(base, texts, arguments.length, arguments.repeats, arguments.dims))])
    return 0


def step_table(rows: list[dict]) -> Table:
    columns = ["a training step", "pairs/s", "speed", "memory", "of peak", "a step over one dimension's"]
    shown = [
        [
            row["variant"], f"{row['pairs per second']:.2f}", spread(row["ratio"]),
            "–" if row["memory"] is None else f"×{row['memory']:.2f}", f"{row['share of peak']:.0%}",
            f"×{row['step over one dimension']:.3f}" if "step over one dimension" in row else "–",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("", columns, shown, "speed: median (least–most) of interleaved repeats over the first row")


def trainer_table(rows: list[dict]) -> Table:
    shown = [
        [
            row["variant"], f"{row['pairs per second']:.2f}", spread(row["ratio"]), f"{row['share of peak']:.0%}",
            "–" if row["memory"] is None else f"{row['memory'] / 2**30:.1f} GiB",
        ]
        for row in rows
    ]  # fmt: skip
    note = "speed: median (least–most) of interleaved repeats over the bare loop"
    return Table("", ["training", "pairs/s", "speed", "of peak", "memory"], shown, note)


if __name__ == "__main__":
    sys.exit(main())
