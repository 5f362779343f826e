"""Adds ONNX or OpenVINO files to a trained folder, each with an int8 variant, and measures what they cost and gain.

    python sentence_transformers_config/export.py FOLDER onnx --pages FINQA_FILE [--output COPY]
    python sentence_transformers_config/export.py FOLDER openvino --pages FINQA_FILE [--output COPY]

Fails where nDCG@10 of an export is more than 0.005 from the folder's. The files land in FOLDER/onnx and
FOLDER/openvino, where ``SentenceTransformer(FOLDER, backend=...)`` looks for them, or in COPY beside a copy of all the
rest; nothing else in the folder is touched.

Stands alone (it imports sentence-transformers and optimum, not this project): optimum pins other versions of
transformers than this project needs, so it runs in an environment of its own (docs/doors.md).
"""

import argparse
import importlib.util
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

Backend = Literal["onnx", "openvino"]

SPEED_PAGES = 48
# What all are compared with: sentence-transformers at its defaults. The others are measured in batches of 8.
REFERENCE, REFERENCE_BATCH, BATCH = "torch, fp32, batches of 32", 32, 8
NDCG_TOLERANCE = 0.005
# by backend: what loads the int8 variant
INT8 = {
    "onnx": {"file_name": "onnx/model_qint8_avx512_vnni.onnx"},
    "openvino": {"file_name": "openvino/openvino_model_qint8.xml"},
}


def export(folder: str, backend: Backend) -> list[str]:
    """Write the backend's files into ``folder``; returns their names."""
    with tempfile.TemporaryDirectory() as place:
        model = SentenceTransformer(folder, backend=backend, model_kwargs={"export": True})
        model.save_pretrained(place, create_model_card=False)
        if backend == "onnx":
            quantize(model, place)
            write_projected(folder, f"{place}/onnx")
        else:
            import nncf
            import openvino

            core = openvino.Core()
            light = nncf.compress_weights(core.read_model(f"{place}/openvino/openvino_model.xml"))
            openvino.save_model(light, f"{place}/openvino/openvino_model_qint8.xml", compress_to_fp16=False)
        target = Path(folder) / backend
        if target.exists():
            shutil.rmtree(target)
        shutil.move(f"{place}/{backend}", target)
    return sorted(str(path.relative_to(folder)) for path in target.iterdir())


def quantize(model: SentenceTransformer, place: str) -> None:
    """Dynamic int8 of the weight products only.

    Left in fp32: products of two activations, as a softmax over a thousand tokens rounds to zero in 8 bits; those that
    narrow (the feed-forward's second), whose inputs have outliers; the first layer, whose errors all others carry on;
    embedding tables, as [CLS]'s position is an outlier.
    """
    import onnx
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    graph = onnx.load(f"{place}/onnx/model.onnx").graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    excluded = [
        node.name
        for node in products
        if node.input[1] not in shapes
        or shapes[node.input[1]][0] > shapes[node.input[1]][1]
        or re.search(r"layers?[./]0/", node.name)
    ]
    config = AutoQuantizationConfig.avx512_vnni(
        is_static=False, per_channel=True, operators_to_quantize=["MatMul"], nodes_to_exclude=excluded
    )
    export_dynamic_quantized_onnx_model(model, config, place, file_suffix="qint8_avx512_vnni")


def write_projected(folder: str, onnx_folder: str) -> None:
    """``projected.onnx``: the projection inside the graph, for runtimes that pool and normalise but know no Dense
    layer.

    The mean of projected tokens is the projection of their mean, so that mean pooling of this file's output is exact.
    """
    import onnx
    from safetensors.numpy import load_file

    weight = load_file(f"{folder}/2_Dense/model.safetensors")["linear.weight"].astype(np.float32)  # a release has fp16
    model = onnx.load(f"{onnx_folder}/model.onnx")
    output = model.graph.output[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["backbone_hidden_state" if name == output.name else name for name in names]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weight.T), "projection"))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["backbone_hidden_state", "projection"], [output.name]))
    output.type.tensor_type.shape.dim[-1].dim_value = len(weight)
    onnx.save(model, f"{onnx_folder}/projected.onnx")


class FastEmbed:
    """fastembed over ``onnx/projected.onnx``, with sentence-transformers' two methods."""

    def __init__(self, folder: str):
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        width = json.loads((Path(folder) / "2_Dense" / "config.json").read_text())["out_features"]
        TextEmbedding.add_custom_model(
            model="finmatryoshka", pooling=PoolingType.MEAN, normalization=True,
            sources=ModelSource(hf="org/finmatryoshka"), dim=width, model_file="onnx/projected.onnx",
        )  # fmt: skip
        self.model = TextEmbedding("finmatryoshka", specific_model_path=folder)

    def encode_query(self, texts: list[str], **kwargs) -> np.ndarray:
        return np.stack(list(self.model.embed(texts, batch_size=8)))

    encode_document = encode_query


class ByTokens:
    """A model whose texts are read in batches of about as many tokens each: the folder's encoding_finmatryoshka.py."""

    def __init__(self, folder: str, model: SentenceTransformer):
        spec: Any = importlib.util.spec_from_file_location("encoding", f"{folder}/encoding_finmatryoshka.py")
        self.encoding, self.model = importlib.util.module_from_spec(spec), model
        spec.loader.exec_module(self.encoding)

    def encode_query(self, texts: list[str], **kwargs) -> np.ndarray:
        return self._encode(self.model.encode_query, texts)

    def encode_document(self, texts: list[str], **kwargs) -> np.ndarray:
        return self._encode(self.model.encode_document, texts)

    def _encode(self, encode: Callable, texts: list[str]) -> np.ndarray:
        tokenizer: Any = self.model.tokenizer
        tokenize = partial(tokenizer, truncation=True, max_length=self.model.max_seq_length)
        vectors: dict[int, np.ndarray] = {}
        for positions, _ in self.encoding.batches_by_length(texts, tokenize, self.encoding.tokens_per_batch("cpu")):
            batch = encode([texts[i] for i in positions], batch_size=len(positions), show_progress_bar=False)
            vectors.update(zip(positions, batch))
        return np.stack([vectors[i] for i in range(len(texts))])


def load(folder: str, backend: Backend, int8: bool) -> SentenceTransformer:
    return SentenceTransformer(
        folder, backend=backend, model_kwargs=INT8[backend] if int8 else {"file_name": _plain(backend)}
    )


def _plain(backend: str) -> str:
    return "onnx/model.onnx" if backend == "onnx" else "openvino/openvino_model.xml"


def questions_and_pages(path: str) -> tuple[list[str], list[str], np.ndarray]:
    """Distinct questions, distinct pages and each question's page number, from a file in FinQA's schema."""
    records = json.loads(Path(path).read_text(encoding="utf-8"))
    pages: dict[str, int] = {}
    questions: dict[str, int] = {}
    for record in records:
        text = " ".join(record["pre_text"]) + str(record["table"]) + " ".join(record["post_text"])
        questions.setdefault(record["qa"]["question"], pages.setdefault(text, len(pages)))
    return list(questions), list(pages), np.array(list(questions.values()))


def ndcg_at_10(questions: np.ndarray, pages: np.ndarray, relevant: np.ndarray) -> float:
    """With one relevant page a question: 1 / log2(1 + rank), 0 beyond ten."""
    scores = questions @ pages.T
    rank = (scores > scores[np.arange(len(relevant)), relevant][:, None]).sum(1) + 1
    return float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0).mean())


def speed_ups(models: dict, pages: list[str], repeats: int = 3) -> dict[str, list[float]]:
    """Speed over `REFERENCE` in each repeat, in ascending order; the models take turns, after a round that does not
    count."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter()
            size = REFERENCE_BATCH if name == REFERENCE else BATCH
            model.encode_document(pages, batch_size=size, show_progress_bar=False)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: sorted(base / own for base, own in zip(seconds[REFERENCE][1:], own[1:])) for name, own in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("backend", choices=list(INT8))
    parser.add_argument("--pages", required=True, help="a file in FinQA's schema, to compare vectors and nDCG@10 on")
    parser.add_argument("--output", help="a copy of FOLDER that the files go to; FOLDER itself by default")
    args = parser.parse_args()
    if args.output:
        args.folder = shutil.copytree(args.folder, args.output, dirs_exist_ok=True)
    for name in export(args.folder, args.backend):
        print(f"written: {args.folder}/{name}")
    questions, pages, relevant = questions_and_pages(args.pages)
    plain = SentenceTransformer(args.folder, device="cpu")
    models: dict[str, Any] = {REFERENCE: plain, "torch, fp32": plain}
    models["torch, bf16"] = SentenceTransformer(args.folder, device="cpu").bfloat16()
    models |= {f"{args.backend}{', int8' * int8}": load(args.folder, args.backend, int8) for int8 in (False, True)}
    models[f"{args.backend}, int8, batches by tokens"] = ByTokens(args.folder, models[f"{args.backend}, int8"])
    if args.backend == "onnx" and importlib.util.find_spec("fastembed"):
        models["fastembed"] = FastEmbed(args.folder)
    faster = speed_ups(models, pages[:SPEED_PAGES])
    exact, off = None, []
    quality = f"nDCG@10 of {len(questions)} questions on {len(pages)} pages"
    print(f"| backend | largest difference | least cosine | {quality} | pages per second, ratio |")
    print("| --- | --- | --- | --- | --- |")
    for name, model in models.items():
        vectors = [
            model.encode_query(questions, show_progress_bar=False),
            model.encode_document(pages, show_progress_bar=False),
        ]
        exact = exact or vectors
        stacked, against = np.concatenate(vectors), np.concatenate(exact)
        ratio = f"{statistics.median(faster[name]):.2f} ({faster[name][0]:.2f}–{faster[name][-1]:.2f})"
        difference, cosine = np.abs(stacked - against).max(), (stacked * against).sum(1).min()
        ndcg = ndcg_at_10(vectors[0], vectors[1], relevant)
        print(f"| {name} | {difference:.1e} | {cosine:.4f} | {ndcg:.4f} | {ratio} |", flush=True)
        if args.backend in name and abs(ndcg - ndcg_at_10(exact[0], exact[1], relevant)) > NDCG_TOLERANCE:
            off.append(name)
    if off:
        raise SystemExit(f"error: nDCG@10 of {', '.join(off)} is more than {NDCG_TOLERANCE} from the folder's")


if __name__ == "__main__":
    main()
