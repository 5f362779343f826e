"""Encoding speed as ratios against plain sentence-transformers at its defaults, on the same weights, in one run.

Plain fp32 in batches of 32 is the reference; beside it low-precision weights and smaller batches, which anybody can ask
sentence-transformers for, and this project's batches by tokens, in fp32 and low precision. Every row says how near its
vectors are to the reference's and what they find; a second table says where the time of each goes. ONNX and OpenVINO
int8 stand in the table where the folder has their files and the packages are here
(sentence_transformers_config/export.py writes and measures them elsewhere).

    python -m finmatryoshka.eval speed MODEL --data FILE [--texts 96] [--repeats 3] [--output FOLDER]
    python -m finmatryoshka.eval speed MODEL --data FILE --sizes [--output FOLDER]      cost over length and pages

A training step, and the trainer beside a bare loop: python -m finmatryoshka.training.speed.
"""

import argparse
import importlib.util
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from ..data.encoders import encoder_folder
from ..data.files import check_writable, written_whole
from ..data.loading import load_source
from ..encoding_finmatryoshka import best_precision
from .encoding import encode_by_length
from .environment import describe_machine
from .models import load_model
from .plots import write_cost_over_size
from .retrieval import RetrievalTask, cosine, retrieval_task, score_matrix
from .sizes import LENGTHS, PAGE_COUNTS, encoding_over_length, encoding_over_pages, size_tables
from .stopwatch import interleave, low_precision, memory_ratios, operator_shares, ratios, shares_of_peak, spread
from .tables import Table, markdown, print_tables

# By backend: the package that runs it and the int8 file that sentence_transformers_config/export.py writes.
INT8 = {
    "onnx": ("onnxruntime", "onnx/model_qint8_avx512_vnni.onnx"),
    "openvino": ("openvino", "openvino/openvino_model_qint8.xml"),
}


@dataclass
class Variant:
    """One way to encode: a model, and how it is called.

    Args:
        arithmetic: What its vectors depend on: variants that share it find the same pages.
        batch_size: Texts of a batch as sentence-transformers makes them; None: by tokens (eval/encoding.py).
        precision: What it multiplies in, beside the precision of its weights.
    """

    model: Any
    arithmetic: str
    batch_size: int | None = None
    precision: str = "fp32"

    def encode(self, encode: Callable, texts: list[str]) -> torch.Tensor:
        """(n, d) float32 on the CPU, by one of the model's methods."""
        if self.batch_size is None:
            return encode_by_length(self.model, encode, texts, self.precision)
        options = {"batch_size": self.batch_size, "show_progress_bar": False, "convert_to_tensor": True}
        return encode(texts, **options).float().cpu()

    def pages(self, texts: list[str]) -> torch.Tensor:
        return self.encode(self.model.encode_document, texts)

    def ndcg(self, task: RetrievalTask, dim: int) -> float:
        questions = self.encode(self.model.encode_query, list(task.queries.values()))
        pages = self.pages(list(task.corpus.values()))
        return score_matrix(task, cosine(questions[:, :dim], pages[:, :dim]).numpy()).ndcg


REFERENCE = "sentence-transformers, fp32, batches of 32"


def variants_of(name: str) -> dict[str, Variant]:
    """By what a row is called; the first is the reference."""
    plain = load_model(name, heads=False, dtype=torch.float32)
    dtype = low_precision()
    low = str(dtype).removeprefix("torch.")
    light = load_model(name, heads=False, dtype=dtype)
    best = best_precision(plain.device.type)
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    variants = {
        REFERENCE: Variant(plain, "fp32", 32),
        "sentence-transformers, fp32, batches of 8": Variant(plain, "fp32", 8),
        f"sentence-transformers, {low} weights, batches of 32": Variant(light, f"{low} weights", 32),
        f"sentence-transformers, {low} weights, batches of 8": Variant(light, f"{low} weights", 8),
        "batches by tokens, fp32": Variant(plain, "fp32"),
        f"batches by tokens, {low} weights": Variant(light, f"{low} weights"),
        f"batches by tokens, {short}{' (auto)' * (best == short)}": Variant(plain, f"{short} products", None, short),
    }
    for backend, (package, file) in INT8.items():
        folder = encoder_folder(name)
        if os.path.isfile(os.path.join(folder, file)) and importlib.util.find_spec(package):
            int8: Any = SentenceTransformer(folder, backend=backend, model_kwargs={"file_name": file})  # type: ignore[arg-type]
            variants[f"{backend}, int8, batches by tokens"] = Variant(int8, f"{backend} int8")
    return variants


def measure_encoding(
    variants: dict[str, Variant], task: RetrievalTask, dim: int, repeats: int, count: int, quality: bool = True
) -> list[dict]:
    """Rows of ``variant``, ``pages per second`` (median), ``ratio`` to the first variant (median, least, most),
    ``memory`` (ratio of the peaks), ``share of peak``, ``least cosine`` to its vectors, ``ndcg@10`` at ``dim``, and
    ``operators``, the shares of its time.

    Args:
        task: Its first ``count`` pages are encoded; all of it where the ``quality`` is measured, which is slow.
    """
    pages, reference = list(task.corpus.values())[:count], next(iter(variants))
    calls: dict[str, Callable] = {name: lambda v=v: v.pages(pages) for name, v in variants.items()}
    seconds = interleave(calls, repeats)
    speed, memory, share = ratios(seconds, reference), memory_ratios(calls, reference), shares_of_peak(calls, seconds)
    exact = variants[reference].pages(pages)
    found: dict[str, float | None] = {}
    rows = []
    for name, variant in variants.items():
        if variant.arithmetic not in found:
            found[variant.arithmetic] = variant.ndcg(task, dim) if quality else None
        rows.append(
            {
                "variant": name,
                "pages per second": len(pages) / statistics.median(seconds[name]),
                "ratio": speed[name],
                "memory": memory[name],
                "share of peak": share[name],
                "least cosine": torch.nn.functional.cosine_similarity(variant.pages(pages), exact).min().item(),
                "ndcg@10": found[variant.arithmetic],
                "operators": operator_shares(calls[name]),
            }
        )
    return rows


def encoding_table(rows: list[dict], dim: int, pages: int, repeats: int) -> Table:
    columns = ["encoding", "pages/s", "speed", "memory", "of peak", "least cosine", f"nDCG@10 at {dim}"]
    shown = [
        [
            row["variant"], f"{row['pages per second']:.1f}", spread(row["ratio"]), _shown(row["memory"], "×{:.2f}"),
            _shown(row["share of peak"], "{:.0%}"), f"{row['least cosine']:.4f}", _shown(row["ndcg@10"], "{:.4f}"),
        ]
        for row in rows
    ]  # fmt: skip
    machine = describe_machine()["machine"]
    note = (
        f"{machine}; {pages} pages; speed: median (least–most) of {repeats} interleaved repeats over the first row; of "
        "peak: share of what a large matrix product reaches in low precision; least cosine to the first row's vectors"
    )
    return Table("Encoding speed", columns, shown, note)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def operators_table(rows: list[dict]) -> Table:
    """Where the time of each variant goes."""
    shown = [
        [row["variant"], ", ".join(f"{name.removeprefix('aten::')} {share:.0%}" for name, share in found.items())]
        for row in rows
        if (found := {name: share for name, share in row["operators"].items() if share >= 0.01})
    ]
    return Table("Operators by their share of the time (from 1%)", ["encoding", "operators"], shown)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.eval speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", default="sample", help="a labelled source, whose pages are encoded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--texts", type=int, default=96, help="pages encoded in each repeat (with --sizes: 16 is much)")
    parser.add_argument("--skip_quality", action="store_true", help="leave out nDCG@10, which reads every page")
    parser.add_argument("--sizes", action="store_true", help="cost over tokens a page and over pages instead")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="with --sizes: tokens a page")
    parser.add_argument("--counts", nargs="+", type=int, default=list(PAGE_COUNTS), help="with --sizes: pages")
    parser.add_argument("--output", help="folder for speed.json, speed.md and the picture of --sizes")
    arguments = parser.parse_args(argv)
    if arguments.output:
        check_writable(arguments.output)
    task = retrieval_task(load_source(arguments.data, "validation"), [])
    results: dict[str, Any] = {"model": arguments.model, "data": arguments.data, **describe_machine()}
    if arguments.sizes:
        model, pages = load_model(arguments.model, heads=False), list(task.corpus.values())
        texts, repeats = arguments.texts, arguments.repeats
        results["over_length"] = encoding_over_length(model, pages, arguments.lengths, texts, repeats)
        results["over_pages"] = encoding_over_pages(model, pages, arguments.counts)
        tables = size_tables("encoding", results)
    else:
        variants = variants_of(arguments.model)
        dim = min(128, next(iter(variants.values())).model.get_embedding_dimension() or 128)
        quality = not arguments.skip_quality
        rows = measure_encoding(variants, task, dim, arguments.repeats, arguments.texts, quality)
        results["encoding"] = rows
        count = min(arguments.texts, len(task.corpus))
        tables = [encoding_table(rows, dim, count, arguments.repeats), operators_table(rows)]
    print_tables(tables)
    if arguments.output:
        write_speed(results, tables, arguments.output)


def write_speed(results: dict, tables: list[Table], output: str) -> None:
    """``speed.json``, ``speed.md`` and, of sizes, the picture ``cost_over_size``: ``output``, whole or not at all."""
    with written_whole(output) as folder:
        (folder / "speed.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (folder / "speed.md").write_text(markdown(tables), encoding="utf-8")
        if "over_length" in results:
            write_cost_over_size(results, folder)
    print(f"written: {Path(output) / 'speed.json'}")
