"""One evaluation from models and data to a results dictionary: what the command line and `make reproduce` call."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from ..data.decontamination import Decontamination
from ..data.encoders import packaged_minilm
from ..data.loading import load_source
from ..data.numbers import SignedLogScaler
from ..data.schema import Example, Page, Source
from ..modeling_finmatryoshka import HEADS_FILE
from .baselines import projection_baselines, seed_recipe
from .concepts import concept_scores, concept_similarities
from .environment import describe_machine
from .facts import evaluate_facts
from .geometry import embedding_quality
from .numeric import evaluate_numbers, labelled, predict_z
from .plots import write_pictures
from .quantization import evaluate_cost
from .retrieval import (
    EncodeOnce,
    EvaluationError,
    RetrievalScores,
    RetrievalTask,
    bm25_scores,
    evaluate_retrieval,
    reciprocal_rank_fusion,
    score_matrix,
    similarity_matrix,
    task_name,
)
from .tables import markdown

SCHEMA_VERSION = 2
SECTIONS = ("retrieval", "facts", "numbers", "quality", "concepts", "cost")
QUALITY_TEXTS = 500


@dataclass
class EvaluationPlan:
    """What to measure: models, sources, dimensions, sections; ``base`` and ``train_data`` give the baselines, ``beside`` names
    further models for the retrieval tables alone."""

    models: list[str]
    data: list[str]
    dims: list[int] = field(default_factory=lambda: [256, 128, 64])
    corpus_data: list[str] = field(default_factory=list)
    train_data: list[str] = field(default_factory=list)
    base: str | None = None
    beside: list[str] = field(default_factory=list)
    sections: tuple[str, ...] = SECTIONS
    narrow: str = "fail"
    seed: int = 13
    batch_size: int = 32
    skip_invalid: bool = False


def run_evaluation(plan: EvaluationPlan) -> tuple[dict, dict]:
    """Results (schema: docs/results.md) and the arrays that only pictures need.

    Raises `EvaluationError` and `DataError` in one line.
    """
    sources = [load_source(name, "validation", plan.skip_invalid) for name in plan.data]
    train = [example for name in plan.train_data for example in load_source(name, "train", plan.skip_invalid).examples]
    extra = [page for name in plan.corpus_data for page in load_source(name, "train", plan.skip_invalid).pages.values()]
    tasks = [retrieval_task(source, extra) for source in sources if source.examples]
    if not tasks:
        raise EvaluationError(f"{', '.join(plan.data)}: no question to evaluate on")
    models = {name: load_model(name) for name in dict.fromkeys(plan.models)}
    beside = {name: load_model(name) for name in dict.fromkeys(plan.beside)}
    dims = {name: usable_dims(name, model, plan) for name, model in (models | beside).items()}
    results = {
        "schema_version": SCHEMA_VERSION,
        "models": {name: describe_model(name, model, dims[name]) for name, model in models.items()},
        "data": {source.name: source.sha256 for source in sources},
        "corpus_data": plan.corpus_data,
        "train_data": plan.train_data,
        "base": plan.base,
        "beside": plan.beside,
        "seed": plan.seed,
        **describe_machine(),
    }
    shared = {name: EncodeOnce(model) for name, model in models.items()}
    others = {name: EncodeOnce(model) for name, model in beside.items()}
    pictures: dict = {"similarities": {}, "concepts": {}, "numbers": {}}
    base = EncodeOnce(load_model(plan.base)) if plan.base else None
    examples = [example for source in sources for example in source.examples]
    # What baselines are fitted on is separated as training data is: a ridge that saw the answers would prove nothing.
    decontamination = Decontamination.of(examples)
    train = [example for example in train if decontamination.reason(example) is None]
    base_train = train if base is not None else []
    steps = tqdm([s for s in SECTIONS if s in plan.sections], desc="evaluating")
    for section in steps:
        steps.set_postfix_str(section)
        if section == "retrieval":
            results["retrieval"] = _retrieval(tasks, shared, others, dims, base, base_train, plan)
        elif section == "facts":
            results["facts"] = {n: evaluate_facts(m, examples, dims[n]) for n, m in shared.items()}
        elif section == "numbers" and train:
            results["numbers"] = _numbers(models, train, sources, base, pictures)
        elif section == "quality":
            results["quality"] = {n: _quality(m, tasks[0], dims[n]) for n, m in shared.items()}
        elif section == "concepts":
            pictures["concepts"] = {n: concept_similarities(m, dims[n]) for n, m in shared.items()}
            results["concepts"] = {
                n: {d: concept_scores(s) for d, s in by_dim.items()} for n, by_dim in pictures["concepts"].items()
            }
        elif section == "cost":
            results["cost"] = {n: evaluate_cost(m, tasks[0], dims[n]) for n, m in shared.items()}
    name = next(iter(models))
    pictures["similarities"] = {d: _first_similarities(shared[name], tasks[0], d) for d in dims[name]}
    return results, pictures


def retrieval_task(source: Source, extra: list[Page]) -> RetrievalTask:
    """The task of one source: its questions over its own pages and, for FinQA, the ``corpus_data`` pages as well."""
    name = task_name(source.name)
    corpus = list(source.pages.values()) + (extra if source.schema.startswith("finqa") else [])
    return RetrievalTask.of(name, source.examples, corpus)


def load_model(name: str) -> SentenceTransformer:
    """A folder or Hub id as sentence-transformers loads it; ``minilm`` is the packaged encoder. One line when it fails."""
    path = packaged_minilm() if name == "minilm" else name
    if path.startswith((".", "/")) and not os.path.isdir(path):
        raise EvaluationError(f"{name}: no such folder")
    try:
        return SentenceTransformer(path, trust_remote_code=os.path.isfile(os.path.join(path, HEADS_FILE)))
    except Exception as error:  # the clients' errors have no common base
        raise EvaluationError(
            f"{name}: cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        ) from None


def usable_dims(name: str, model, plan: EvaluationPlan) -> list[int]:
    """The dimensions to measure ``model`` at; a narrower model fails or skips, as the plan says."""
    width = model.get_embedding_dimension()
    for dim in plan.dims:
        if dim < 1:
            raise EvaluationError(f"dimension {dim}: must be positive")
    wide = [dim for dim in plan.dims if dim > width]
    if wide and plan.narrow == "fail":
        raise EvaluationError(
            f"{name} is {width} wide, dimension {wide[0]} asked for; pass --dims up to {width} or --narrow skip"
        )
    usable = [dim for dim in plan.dims if dim <= width]
    if not usable:
        raise EvaluationError(f"{name} is {width} wide: none of the dimensions {plan.dims} is left")
    return usable


def describe_model(name: str, model, dims: list[int]) -> dict:
    """Where a model came from, so that the same one can be had again: a revision or the weights' hash."""
    path = Path(packaged_minilm() if name == "minilm" else name)
    weights = path / "model.safetensors"
    return {
        "width": model.get_embedding_dimension(),
        "max_seq_length": model.max_seq_length,
        "dims": dims,
        "prompts": model.prompts,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        "weights": {
            str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(path.rglob("*.safetensors"))
        },
        "revision": model.model_card_data.base_model_revision if not path.is_dir() else None,
    }


def _retrieval(tasks, shared, others, dims, base, train, plan) -> dict:
    projected = projection_baselines(base, tasks, plan.dims, train, plan.seed) if base is not None else {}
    seed = seed_recipe(base, tasks, plan.dims, train, plan.seed) if base is not None and train else None
    results = {}
    for task in tasks:
        systems: dict[str, dict[int, RetrievalScores]] = {}
        for name, model in (shared | others).items():
            systems[name] = evaluate_retrieval(model, task, dims[name], batch_size=plan.batch_size)
        lexical = bm25_scores(task)
        systems["BM25"] = {0: score_matrix(task, lexical)}
        for name, model in shared.items():
            systems[f"{name} + BM25"] = {
                dim: score_matrix(task, reciprocal_rank_fusion(lexical, similarity_matrix(model, task, dim)))
                for dim in dims[name]
            }
        if base is not None:
            width = base.get_embedding_dimension()
            base_dims = [dim for dim in dict.fromkeys([*plan.dims, width]) if dim <= width]
            systems["truncated base"] = evaluate_retrieval(base, task, base_dims, batch_size=plan.batch_size)
        systems |= {name: by_task[task.name] for name, by_task in projected.items()}
        if seed:
            systems["seed recipe"] = seed["retrieval"][task.name]
        results[task.name] = {
            "queries": len(task.queries),
            "pages": len(task.corpus),
            "sha256": hashlib.sha256(json.dumps([task.queries, sorted(task.corpus)]).encode()).hexdigest(),
            "systems": {name: {str(dim): s.metrics for dim, s in by_dim.items()} for name, by_dim in systems.items()},
            "ndcg_by_query": {
                name: {str(dim): s.ndcg_by_query for dim, s in by_dim.items()}
                for name, by_dim in systems.items()
                if name in shared
            },
        }
        if seed:
            results[task.name]["seed_recipe_loss"] = {"loss": seed["loss"], "constant": seed["constant"]}
    return results


def _numbers(models, train: list[Example], sources: list[Source], base, pictures) -> dict:
    by_task = {task_name(source.name): source.examples for source in sources}
    results = {}
    for name, model in models.items():
        heads = model[0].auto_model
        if not hasattr(heads, "numeric_heads"):
            continue
        scaler = SignedLogScaler(heads.config.numeric_mean, heads.config.numeric_std)
        results[name] = evaluate_numbers(model, train, by_task, scaler, base)
        known = labelled([example for examples in by_task.values() for example in examples])
        z = predict_z(model, [example.numeric for example in known])
        pictures["numbers"][name] = {
            "true": np.array([example.number for example in known]),
            "predicted": {dim: scaler.inverse(values) for dim, values in z.items()},
        }
    return results


def _quality(model: EncodeOnce, task: RetrievalTask, dims: list[int]) -> dict:
    pages = list(task.corpus.values())
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(pages))[:QUALITY_TEXTS]
    ids = list(task.corpus)
    position = {page: i for i, page in enumerate(ids)}
    answers = [position[sorted(task.relevant[query])[0]] for query in task.queries]
    results = {}
    for dim in dims:
        vectors = model.encode_document(pages, truncate_dim=dim).numpy()
        questions = model.encode_query(list(task.queries.values()), truncate_dim=dim).numpy()
        results[dim] = embedding_quality(vectors[chosen], (questions, vectors[answers]))
    return results


def _first_similarities(model: EncodeOnce, task: RetrievalTask, dim: int, count: int = 25) -> np.ndarray:
    """Cosines of the first ``count`` queries with each other's pages: the picture's similarity map."""
    queries = list(task.queries)[:count]
    ids = list(task.corpus)
    columns = [ids.index(sorted(task.relevant[query])[0]) for query in queries]
    return similarity_matrix(model, task, dim)[: len(queries)][:, columns]


def write_results(results: dict, pictures: dict, folder: Path) -> None:
    """``results.json``, ``tables.md`` and the pictures into ``folder``."""
    write_pictures(results, pictures, folder)
    (folder / "tables.md").write_text(markdown(results), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
