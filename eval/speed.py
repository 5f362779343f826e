"""Encoding throughput as ratios against plain sentence-transformers fp32 on the same weights, measured in one run.

Variants take turns (interleaved repeats), so that a busy machine slows all of them; what is printed is the median and
the spread of the ratios, each beside the nDCG@10 of the same variant, the peak memory of one call as a ratio, and the
share of what the machine's matrix product reaches (bf16, or fp16 on a GPU): how much there is left to win. ONNX and
OpenVINO need other
versions of transformers: sentence_transformers_config/export.py measures them likewise, training/speed.py a training
    step.

    python -m finmatryoshka.eval speed MODEL --data FILE
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ..data.loading import load_source
from .environment import describe_machine, peak_memory
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
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
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
    square = torch.ones(size, size, dtype=low_precision(), device=device)
    seconds = interleave({"product": lambda: square @ square}, repeats)["product"]
    return 2 * size**3 / min(seconds)


def low_precision() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.bfloat16


def autocast(dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, dtype=dtype) if dtype else nullcontext()


class _Autocast:
    """A SentenceTransformer that encodes under autocast."""

    def __init__(self, model, dtype):
        self.model, self.dtype = model, dtype

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_query(self, *args, **kwargs):
        with autocast(self.dtype):
            return self.model.encode_query(*args, **kwargs)

    def encode_document(self, *args, **kwargs):
        with autocast(self.dtype):
            return self.model.encode_document(*args, **kwargs)


def measure_encoding(model: SentenceTransformer, task, dim: int, repeats: int, texts: int) -> list[dict]:
    """Rows of variant, ratio (median, least, most), memory, share of peak and nDCG@10: fp32, the reference, and bf16
    (fp16 on a GPU)."""
    pages = list(task.corpus.values())[:texts]
    low = low_precision()
    models = {"fp32": _Autocast(model, None), str(low).removeprefix("torch."): _Autocast(model, low)}
    variants = {
        name: lambda m=m: m.encode_document(pages, batch_size=16, show_progress_bar=False) for name, m in models.items()
    }
    seconds = interleave(variants, repeats)
    speed = ratios(seconds, "fp32")
    memory = memory_ratios(variants, "fp32")
    quality = {name: evaluate_retrieval(EncodeOnce(m), task, [dim])[dim].ndcg for name, m in models.items()}
    share = shares_of_peak(variants, seconds)
    return [
        {
            "variant": f"encode {name}",
            "ratio": speed[name],
            "memory": memory[name],
            "share of peak": share[name],
            "ndcg@10": quality[name],
        }
        for name in models
    ]


def shares_of_peak(variants: dict[str, callable], seconds: dict[str, list[float]]) -> dict[str, float]:
    peak = matrix_peak()
    return {name: count_flops(variant) / statistics.median(seconds[name]) / peak for name, variant in variants.items()}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m finmatryoshka.eval speed", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--texts", type=int, default=64)
    arguments = parser.parse_args(argv)
    source = load_source(arguments.data, "validation")
    task = retrieval_task(source, [])
    print(f"machine: {describe_machine()['machine']}")
    model = load_model(arguments.model)
    dim = min(128, model.get_embedding_dimension())
    for row in measure_encoding(model, task, dim, arguments.repeats, arguments.texts):
        print(f"{compared(row)}  nDCG@10 at {dim}: {row['ndcg@10']:.4f}")
    print("a training step: python -m finmatryoshka.training.speed")


def compared(row: dict) -> str:
    memory = "" if row["memory"] is None else f"  memory ×{row['memory']:.2f}"
    return (
        "{:<70} speed ×{:.2f} ({:.2f}–{:.2f})".format(row["variant"], *row["ratio"])
        + memory
        + f"  {row['share of peak']:.0%} of peak"
    )
