"""A training step as ratios against plain sentence-transformers on the same encoder and pairs, measured in one run.

python -m finmatryoshka.training.speed [--data FILE] [--base minilm] [--length 640]
"""

import argparse
import statistics
import sys
import tempfile
from typing import cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn
from transformers import PreTrainedModel

from ..data.encoders import encoder_folder
from ..data.loading import load_source
from ..data.positions import extend_encoder
from ..eval.environment import describe_machine
from ..eval.speed import autocast, compared, interleave, low_precision, memory_ratios, ratios, shares_of_peak
from .backbone import as_sentence_transformer, load_finmatryoshka
from .losses import FinMatryoshkaLoss


def _step(model: SentenceTransformer, loss: nn.Module, columns: list[list[str]], with_labels: bool, dtype):
    """One whole optimiser step over ready-made features."""
    features = [_to(model.preprocess(column), model.device) for column in columns]
    labels = torch.zeros(len(columns[0]), device=model.device) if with_labels else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def step():
        optimizer.zero_grad()
        with autocast(dtype):
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m finmatryoshka.training.speed", description=__doc__)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--base", default="minilm", help="the encoder whose training step is measured")
    parser.add_argument("--length", type=int, default=640, help="tokens of a page while training")
    parser.add_argument("--dims", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    print(f"machine: {describe_machine()['machine']}")
    source = load_source(arguments.data, "validation")
    filler = " ".join(page.text for page in list(source.pages.values())[:20])  # pages long enough to fill --length
    examples = source.examples[: arguments.pairs]
    texts = [(e.question, (e.page.text + " " + filler), e.numeric_text[:600]) for e in examples]
    base = encoder_folder(arguments.base)
    for row in measure_training(base, texts, arguments.length, arguments.repeats, arguments.dims):
        extra = (
            f"  a step takes ×{row['step over one dimension']:.3f} of one dimension's"
            if "step over one dimension" in row
            else ""
        )
        print(f"{compared(row)}  {row['pairs per second']:.2f} pairs/s{extra}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
