"""Throughput as ratios against plain sentence-transformers fp32 on the same weights, measured in one run.

Variants take turns (interleaved repeats), so that a busy machine slows all of them; what is printed is the median and the
spread of the ratios, each beside the nDCG@10 of the same variant, the peak memory of one call as a ratio, and the share of what
the machine's matrix product reaches (bf16, or fp16 on a GPU): how much there is left to win. ONNX and OpenVINO need other
versions of transformers: sentence_transformers_config/export.py measures them likewise.

    python -m finmatryoshka.eval speed MODEL --data FILE
"""

import argparse
import statistics
import tempfile
import time
from contextlib import nullcontext

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ..training.backbone import as_sentence_transformer, extend_positions, load_finmatryoshka, packaged_minilm
from ..training.data import load_source
from ..training.losses import FinMatryoshkaLoss
from .machine import describe_machine, peak_memory
from .retrieval import EncodeOnce, evaluate_retrieval
from .run import load_model, retrieval_task


def interleave(variants: dict[str, callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each variant, one repeat of all after another; a first round warms up and does not count."""
    seconds = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], reference: str) -> dict[str, tuple[float, float, float]]:
    """Speed-up over ``reference`` within each repeat: (median, least, most)."""
    result = {}
    for name, times in seconds.items():
        speedups = [base / own for base, own in zip(seconds[reference], times)]
        result[name] = (statistics.median(speedups), min(speedups), max(speedups))
    return result


def memory_ratios(variants: dict[str, callable], reference: str) -> dict[str, float | None]:
    """Peak memory of one call of each variant over that of ``reference``; None where it cannot be read."""
    peaks = {name: peak_memory(variant) for name, variant in variants.items()}
    return {name: peak / peaks[reference] if peak and peaks[reference] else None for name, peak in peaks.items()}


# torch counts the attention of GPUs alone; the CPU's operators take the same arguments first.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(
        grad, q, k, v
    ),
}


def count_flops(call: callable) -> int:
    """Floating-point operations of the matrix products (attention's too) in one ``call``."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        call()
    return counter.get_total_flops()


def matrix_peak(repeats: int = 5) -> float:
    """Operations per second of a large square matrix product in low precision, the best of ``repeats``."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    square = torch.ones(size, size, dtype=_low_precision(), device=device)
    seconds = interleave({"product": lambda: square @ square}, repeats)["product"]
    return 2 * size**3 / min(seconds)


def _low_precision() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.bfloat16


def _autocast(dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, dtype=dtype) if dtype else nullcontext()


class _Autocast:
    """A SentenceTransformer that encodes under autocast."""

    def __init__(self, model, dtype):
        self.model, self.dtype = model, dtype

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_query(self, *args, **kwargs):
        with _autocast(self.dtype):
            return self.model.encode_query(*args, **kwargs)

    def encode_document(self, *args, **kwargs):
        with _autocast(self.dtype):
            return self.model.encode_document(*args, **kwargs)


def measure_encoding(model: SentenceTransformer, task, dim: int, repeats: int, texts: int) -> list[dict]:
    """Rows of variant, ratio (median, least, most), memory, share of peak and nDCG@10: fp32, the reference, and bf16 (fp16 on a GPU)."""
    pages = list(task.corpus.values())[:texts]
    low = _low_precision()
    models = {"fp32": _Autocast(model, None), str(low).removeprefix("torch."): _Autocast(model, low)}
    variants = {name: lambda m=m: m.encode_document(pages, batch_size=16, show_progress_bar=False) for name, m in models.items()}
    seconds = interleave(variants, repeats)
    speed = ratios(seconds, "fp32")
    memory = memory_ratios(variants, "fp32")
    quality = {name: evaluate_retrieval(EncodeOnce(m), task, [dim])[dim].ndcg for name, m in models.items()}
    share = _shares_of_peak(variants, seconds)
    return [
        {"variant": f"encode {name}", "ratio": speed[name], "memory": memory[name], "share of peak": share[name], "ndcg@10": quality[name]}
        for name in models
    ]


def _shares_of_peak(variants: dict[str, callable], seconds: dict[str, list[float]]) -> dict[str, float]:
    peak = matrix_peak()
    return {name: count_flops(variant) / statistics.median(seconds[name]) / peak for name, variant in variants.items()}


def _step(model: SentenceTransformer, loss: nn.Module, columns: list[list[str]], with_labels: bool, dtype):
    """One whole optimiser step over ready-made features."""
    features = [_to(model.preprocess(column), model.device) for column in columns]
    labels = torch.zeros(len(columns[0]), device=model.device) if with_labels else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def step():
        optimizer.zero_grad()
        with _autocast(dtype):
            value = loss([dict(column) for column in features], labels)
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        optimizer.step()

    return step


def measure_training(name: str, texts: list[tuple[str, str, str]], length: int, repeats: int, dims: list[int]) -> list[dict]:
    """Rows of variant, ratio, memory and share of peak of one training step over the same pairs at ``length`` tokens.

    The reference is what sentence-transformers' documentation shows: fp32, the checkpoint's own dropout, pairs under
    MultipleNegativesRankingLoss. Ours: low precision and no dropout; then ``dims`` instead of one dimension; then the
    numeric column.
    """
    plain = SentenceTransformer(name)
    _stretch(plain, length)
    questions, pages, numeric = (list(column) for column in zip(*texts))
    low = _low_precision()
    variants = {
        "plain sentence-transformers, fp32, its dropout": _step(plain, MultipleNegativesRankingLoss(plain), [questions, pages], False, None)
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
    memory, share = memory_ratios(variants, reference), _shares_of_peak(variants, seconds)
    rows = []
    for variant, ratio in ratios(seconds, reference).items():
        rate = len(texts) / statistics.median(seconds[variant])
        row = {"variant": variant, "ratio": ratio, "memory": memory[variant], "share of peak": share[variant], "pairs per second": rate}
        if variant != reference:
            row["step over one dimension"] = statistics.median(a / b for a, b in zip(seconds[variant], seconds[single]))
        rows.append(row)
    return rows


def _stretch(model: SentenceTransformer, length: int) -> None:
    """Let a plain SentenceTransformer read ``length`` tokens, by the same interpolation as ours."""

    class View:  # what extend_positions needs of a model
        config, backbone = model[0].auto_model.config, model[0].auto_model

    View.config.original_max_position_embeddings = None
    extend_positions(View, length)
    model.max_seq_length = length


def _to(features, device):
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in features.items()}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m finmatryoshka.eval speed", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--base", default="minilm", help="whose training step is measured")
    parser.add_argument("--length", type=int, default=640, help="tokens of a page while training")
    parser.add_argument("--dims", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--texts", type=int, default=64)
    arguments = parser.parse_args(argv)
    source = load_source(arguments.data, "validation")
    task = retrieval_task(source, [])
    print(f"machine: {describe_machine()['machine']}")
    model = load_model(arguments.model)
    dim = min(128, model.get_embedding_dimension())
    for row in measure_encoding(model, task, dim, arguments.repeats, arguments.texts):
        print(f"{_compared(row)}  nDCG@10 at {dim}: {row['ndcg@10']:.4f}")
    filler = " ".join(page.text for page in list(source.pages.values())[:20])  # pages long enough to fill --length
    examples = source.examples[: arguments.pairs]
    texts = [(e.question, (e.page.text + " " + filler), e.numeric[:600]) for e in examples]
    base = packaged_minilm() if arguments.base == "minilm" else arguments.base
    for row in measure_training(base, texts, arguments.length, arguments.repeats, arguments.dims):
        extra = f"  a step takes ×{row['step over one dimension']:.3f} of one dimension's" if "step over one dimension" in row else ""
        print(f"{_compared(row)}  {row['pairs per second']:.2f} pairs/s{extra}")


def _compared(row: dict) -> str:
    memory = "" if row["memory"] is None else f"  memory ×{row['memory']:.2f}"
    return "{:<70} speed ×{:.2f} ({:.2f}–{:.2f})".format(row["variant"], *row["ratio"]) + memory + f"  {row['share of peak']:.0%} of peak"
