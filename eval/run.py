"""One evaluation from models and data to a results dictionary: what the command line and `make reproduce` call."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.decontamination import Decontamination
from ..data.loading import load_source
from ..data.numbers import SignedLogScaler
from ..data.schema import Example, Page, Source
from ..data.splits import FinancialData
from .concepts import concept_scores, concept_similarities
from .encoding import precision_of
from .environment import describe_machine
from .facts import evaluate_facts
from .geometry import embedding_quality
from .models import describe_model, load_model, usable_dims
from .numeric import evaluate_numbers, labelled, predict_z
from .plots import write_pictures
from .quantization import evaluate_cost
from .retrieval import EncodeOnce, EvaluationError, RetrievalTask, retrieval_task, similarity_matrix, task_name
from .systems import compare_systems
from .tables import SCHEMA_VERSION, SECTIONS, markdown, result_tables

logger = logging.getLogger(__name__)

QUALITY_TEXTS = 500


@dataclass
class EvaluationPlan:
    """What to measure: models, sources, dimensions, sections.

    ``base`` and ``train_data`` give the baselines, ``beside`` names further models for the retrieval tables alone;
    ``batch_size`` and ``precision`` are those of `EncodeOnce`.
    """

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
    batch_size: int | None = None
    precision: str = "auto"
    skip_invalid: bool = False


@dataclass
class _Read:
    """What a plan's sources gave: ``trained_on`` as given, ``fit`` what of it shares nothing with the evaluation."""

    sources: list[Source]
    extra: list[Page]
    trained_on: list[Example]
    fit: list[Example]

    @property
    def examples(self) -> list[Example]:
        return [example for source in self.sources for example in source.examples]


def _read(plan: EvaluationPlan, data: FinancialData | None) -> _Read:
    if data is not None:
        return _Read(list(data.evaluation.values()), data.corpus, data.train, data.train)
    sources = [load_source(name, "validation", plan.skip_invalid) for name in plan.data]
    train = [e for name in plan.train_data for e in load_source(name, "train", plan.skip_invalid).examples]
    extra = [page for name in plan.corpus_data for page in load_source(name, "train", plan.skip_invalid).pages.values()]
    # What baselines are fitted on is separated as training data is: a ridge that saw the answers would prove nothing.
    decontamination = Decontamination.of([example for source in sources for example in source.examples])
    return _Read(sources, extra, train, [example for example in train if decontamination.reason(example) is None])


def run_evaluation(plan: EvaluationPlan, data: FinancialData | None = None) -> tuple[dict, dict]:
    """Results (schema: docs/results.md) and the arrays that only pictures need.

    ``data`` are the two sides of a training run, as it kept them apart: measured instead of what ``plan`` would load.

    Raises `EvaluationError`, `DataError` and `BackboneError` in one line.
    """
    read = _read(plan, data)
    tasks = [retrieval_task(source, read.extra) for source in read.sources if source.examples]
    if not tasks:
        raise EvaluationError(f"{', '.join(plan.data)}: no question to evaluate on")
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise EvaluationError(f"two sources are called {name}: give files whose last two folders or names differ")
    models = {name: load_model(name) for name in dict.fromkeys(plan.models)}
    beside = {name: load_model(name) for name in dict.fromkeys(plan.beside)}
    dims = {name: usable_dims(name, model, plan.dims, plan.narrow) for name, model in (models | beside).items()}
    results = {
        "schema_version": SCHEMA_VERSION,
        "models": {name: describe_model(name, model, dims[name]) for name, model in models.items()},
        "data": {source.name: source.sha256 for source in read.sources},
        "corpus_data": plan.corpus_data,
        "train_data": plan.train_data,
        "base": plan.base,
        "beside": plan.beside,
        "seed": plan.seed,
        "precision": precision_of(next(iter(models.values())), plan.precision),
        **describe_machine(),
    }
    shared, others = (
        {name: EncodeOnce(model, plan.batch_size, plan.precision) for name, model in group.items()}
        for group in (models, beside)
    )
    base = EncodeOnce(load_model(plan.base, heads=False), plan.batch_size, plan.precision) if plan.base else None
    pictures: dict = {"similarities": {}, "concepts": {}, "numbers": {}}
    steps = tqdm([s for s in SECTIONS if s in plan.sections], desc="evaluating")
    for section in steps:
        steps.set_postfix_str(section)
        if section == "retrieval":
            results["retrieval"], results["fusion"] = compare_systems(
                tasks, shared, others, dims, base, plan.dims, read.fit, read.trained_on or None, plan.seed
            )
        elif section == "facts":
            results["facts"] = {n: evaluate_facts(m, read.examples, dims[n]) for n, m in shared.items()}
        elif section == "numbers" and not labelled(read.fit):
            logger.warning("numbers are left out: the constants beside them need --train_data with numeric answers")
        elif section == "numbers":
            results["numbers"], pictures["numbers"] = _numbers(shared, read, base)
        elif section == "quality" and len(tasks[0].corpus) > 1:
            results["quality"] = {n: _quality(m, tasks[0], dims[n]) for n, m in shared.items()}
        elif section == "concepts":
            pictures["concepts"] = {n: concept_similarities(m, dims[n]) for n, m in shared.items()}
            results["concepts"] = {
                n: {d: concept_scores(s) for d, s in by_dim.items()} for n, by_dim in pictures["concepts"].items()
            }
        elif section == "cost":
            results["cost"] = {n: evaluate_cost(m, tasks[0], dims[n]) for n, m in shared.items()}
    if "retrieval" in results:
        name = next(iter(models))
        pictures["similarities"] = {d: _first_similarities(shared[name], tasks[0], d) for d in dims[name]}
    return results, pictures


def _numbers(models: dict[str, EncodeOnce], read: _Read, base: EncodeOnce | None) -> tuple[dict, dict]:
    """The ``numbers`` of every model with heads, and what their picture shows."""
    by_task = {task_name(source.name): source.examples for source in read.sources}
    known = labelled(read.examples)
    results, pictures = {}, {}
    for name, shared in models.items():
        heads = shared.model[0].auto_model
        if not hasattr(heads, "numeric_heads") or not known:
            continue
        scaler = SignedLogScaler(heads.config.numeric_mean, heads.config.numeric_std)
        frozen = base.model if base is not None else None
        results[name] = evaluate_numbers(
            shared.model, read.fit, by_task, scaler, frozen, read.trained_on, shared.precision
        )
        z = predict_z(shared.model, [example.numeric_text for example in known], shared.precision)
        pictures[name] = {
            "true": np.array([example.number for example in known]),
            "predicted": {dim: scaler.inverse(values) for dim, values in z.items()},
        }
    return results, pictures


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
    (folder / "tables.md").write_text(markdown(result_tables(results)), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
