"""Opens a folder through clients that are too heavy for the test run and prints the table of docs/doors.md.

    python -m finmatryoshka.sentence_transformers_config.clients FOLDER [--server http://127.0.0.1:7997]

sentence-transformers and transformers are opened by open_folder.py, in a process of its own. Each other client is
optional; one that is not installed, or fails, is a row with its reason. The reference is plain sentence-transformers at
full width; the difference is the largest over all numbers of the test texts' vectors. ONNX, OpenVINO and fastembed have
a script of their own, sentence_transformers_config/export.py. ``--server`` asks an OpenAI-compatible server that serves
FOLDER already.
"""

import argparse
import datetime
import importlib.metadata
import tempfile
from pathlib import Path

import httpx
import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_usearch

from .check import open_in_clean_process
from .folder import FolderError

TEXTS = [
    "what was the change in net sales in 2015?",
    "interest expense and long-term debt of the group , in thousands",
    "leases",
]


def _multi_process(folder):
    model = SentenceTransformer(folder)
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        return model.encode(TEXTS, pool=pool), None
    finally:
        model.stop_multi_process_pool(pool)


def _langchain(folder):
    from langchain_huggingface import HuggingFaceEmbeddings

    return np.array(HuggingFaceEmbeddings(model_name=folder).embed_documents(TEXTS)), None


def _llama_index(folder):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return np.array(
        HuggingFaceEmbedding(model_name=folder, query_instruction="", text_instruction="").get_text_embedding_batch(
            TEXTS
        )
    ), None


def _haystack(folder):
    from haystack import Document
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder

    embedder = SentenceTransformersDocumentEmbedder(model=folder, progress_bar=False)
    embedder.warm_up()
    return np.array([d.embedding for d in embedder.run([Document(content=text) for text in TEXTS])["documents"]]), None


def _usearch(folder):
    """On disk at 64-d int8, rescored: not the vectors but the best pages must be those of exact search over float
    vectors."""
    from usearch.index import Index

    model = SentenceTransformer(folder, truncate_dim=64)
    about = [
        (item, company, year)
        for item in ("net sales", "debt", "leases")
        for company in ("acme", "zeta")
        for year in range(2010, 2016)
    ]
    pages = model.encode([f"{item} of {company} in {year}" for item, company, year in about], normalize_embeddings=True)
    queries = model.encode(
        [f"what were {company}'s {item} for {year}?" for item, company, year in about], normalize_embeddings=True
    )
    ranges = (
        np.abs(pages).max() * np.array([[-1.0], [1.0]]) * np.ones(64)
    )  # one step for all: int8 products rank as cosines do
    with tempfile.TemporaryDirectory() as place:
        index = Index(ndim=64, metric="ip", dtype="i8")
        index.add(np.arange(len(pages)), quantize_embeddings(pages, "int8", ranges=ranges))
        index.save(f"{place}/pages.usearch")
        stored = Index.restore(f"{place}/pages.usearch")
        hits, *_ = semantic_search_usearch(
            queries, corpus_index=stored, corpus_precision="int8", top_k=1, ranges=ranges, rescore_multiplier=4
        )
    best = (queries @ pages.T).argmax(1)
    agreement = np.mean([hit["corpus_id"] == page for (hit, *_), page in zip(hits, best)])
    if agreement < 0.9:
        raise ValueError(f"only {agreement:.0%} of the best pages are those of exact search")
    return None, None


def _server(url: str):
    def opened(folder):
        answer = httpx.post(f"{url}/embeddings", json={"model": Path(folder).name, "input": TEXTS}, timeout=60)
        return np.array([item["embedding"] for item in answer.raise_for_status().json()["data"]]), None

    return opened


# name: (package whose version is shown, what opens it, tolerance)
DOORS = {
    "sentence-transformers, two processes": ("sentence-transformers", _multi_process, 1e-5),
    "LangChain HuggingFaceEmbeddings": ("langchain-huggingface", _langchain, 1e-5),
    "LlamaIndex HuggingFaceEmbedding": ("llama-index-embeddings-huggingface", _llama_index, 1e-5),
    "Haystack SentenceTransformersDocumentEmbedder": ("sentence-transformers-haystack", _haystack, 1e-5),
    "usearch on disk, 64-d int8": ("usearch", _usearch, None),
}


def main(folder: str, server: str | None = None) -> None:
    doors = DOORS | ({"OpenAI-compatible server": ("–", _server(server), 1e-5)} if server else {})
    found = open_in_clean_process(folder, TEXTS)
    if isinstance(found, str):
        raise FolderError(f"{folder}: {found}")
    reference = np.array(found["vectors"], dtype=np.float32)
    print(
        f"| door | version | largest difference | tolerance | {datetime.date.today()} |\n| --- | --- | --- | --- | --- |"
    )
    versions = {name: importlib.metadata.version(name.lower()) for name in ("sentence-transformers", "transformers")}
    for door, difference in found["differences"].items():
        version = versions["transformers" if door.startswith("AutoModel") else "sentence-transformers"]
        print(
            f"| {door} | {version} | {difference:.1e} | 1e-05 | {'opens' if difference < 1e-5 else 'OTHER VECTORS'} |"
        )
    for door, error in found["errors"].items():
        print(f"| {door} | – | – | 1e-05 | does not open: {error[:120]} |")
    for name, (package, opened, tolerance) in doors.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "–"
        try:
            vectors, dim = opened(folder)
            difference = 0.0 if vectors is None else float(np.abs(np.asarray(vectors) - reference[:, :dim]).max())
            verdict = "opens" if tolerance is None or difference < tolerance else "OTHER VECTORS"
            row = (
                f"{difference:.1e}" if vectors is not None else "–",
                f"{tolerance:.0e}" if tolerance else "9 of 10 best pages",
                verdict,
            )
        except Exception as error:  # a door that cannot open is a row, not an end
            row = (
                "–",
                f"{tolerance:.0e}" if tolerance else "9 of 10 best pages",
                f"does not open: {type(error).__name__}: {str(error).splitlines()[0][:120]}",
            )
        print(f"| {name} | {version} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--server")
    main(**vars(parser.parse_args()))
