"""The pictures of an evaluation, readable in black and white, as PNG and SVG, the same bytes for the same results."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from .concepts import CLASSES, load_concepts
from .tables import all_systems

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

_STYLES = [
    ("black", "o", "-"), ("0.35", "s", "--"), ("0.55", "^", "-."), ("0.2", "D", ":"), ("0.65", "v", "-"),
    ("0.45", "P", "--"), ("black", "x", ":"), ("0.5", "*", "-."),
]  # fmt: skip
_SETTINGS: Any = {
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "finmatryoshka",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
}


def write_pictures(results: dict, pictures: dict, folder: Path) -> list[str]:
    """Draw everything that ``results`` and ``pictures`` hold into ``folder``; returns the PNGs' names."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with plt.rc_context(_SETTINGS):
        for name, figure in _figures(results, pictures):
            _save(figure, name, folder)
            written.append(f"{name}.png")
    return written


def write_cost_over_size(results: dict, folder: Path) -> None:
    """``cost_over_size``: what a text costs by its tokens and a corpus by its pages (eval/sizes.py), beside what
    would be proportional, on logarithmic axes."""
    with plt.rc_context(_SETTINGS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
        lengths, costs = zip(*[(row["tokens"], row["milliseconds"][0]) for row in results["over_length"]])
        counts, seconds = zip(*[(row["pages"], row["seconds"]) for row in results["over_pages"]])
        for axes, sizes, values, names in (
            (left, lengths, costs, ("tokens a text", "milliseconds a text")),
            (right, counts, seconds, ("pages", "seconds")),
        ):
            axes.loglog(sizes, values, color="black", marker="o", label="measured")
            proportional = [values[0] * size / sizes[0] for size in sizes]
            axes.loglog(sizes, proportional, color="0.6", linestyle="--", label="proportional")
            axes.set(xlabel=names[0], ylabel=names[1])
            axes.legend(fontsize=8)
        _save(figure, "cost_over_size", folder)


def _save(figure, name: str, folder: Path) -> None:
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _figures(results: dict, pictures: dict):
    for i, (task, part) in enumerate(results.get("retrieval", {}).items()):
        yield f"quality_over_dimension_{i}" if i else "quality_over_dimension", _quality_over_dimension(task, part)
    if results.get("cost"):
        yield "ndcg_over_bytes", _ndcg_over_bytes(results["cost"])
    if pictures.get("similarities"):
        yield "similarity_maps", _similarity_maps(pictures["similarities"])
    if pictures.get("concepts"):
        yield "concept_similarities", _concepts(pictures["concepts"])
    if pictures.get("numbers"):
        yield "predicted_against_true", _numbers(pictures["numbers"])


def _short(name: str) -> str:
    return Path(name).name


def _quality_over_dimension(task: str, part: dict):
    figure, axes = plt.subplots(figsize=(9, 4.5))
    names = {name: _short(name) for name in part["systems"]}
    if len(set(names.values())) < len(names):
        names = {}
    systems = {name: by_dim for name, by_dim, _ in all_systems(part, names)}
    dense = {name: by_dim for name, by_dim in systems.items() if "0" not in by_dim}
    for (name, by_dim), style in zip(dense.items(), _STYLES * 3):
        dims = sorted(map(int, by_dim))
        color, marker, line = style
        axes.plot(
            dims,
            [by_dim[str(d)]["ndcg@10"] for d in dims],
            color=color,
            marker=marker,
            linestyle=line,
            label=name,
        )
    for name, by_dim in systems.items():
        if "0" in by_dim:
            axes.axhline(by_dim["0"]["ndcg@10"], color="black", linewidth=2.5, alpha=0.4, label=name)
    axes.set(xscale="log", xlabel="dimensions", ylabel="nDCG@10", title=f"Page retrieval on {task}", ylim=(0, 1))
    ticks = sorted({int(dim) for by_dim in dense.values() for dim in by_dim})
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def _ndcg_over_bytes(cost: dict):
    figure, axes = plt.subplots(figsize=(7, 4.5))
    name, rows = next(iter(cost.items()))
    storages = list(dict.fromkeys(row["storage"] for row in rows))
    for storage, (color, marker, line) in zip(storages, _STYLES):
        points = sorted((row["bytes"], row["ndcg@10"], row["dim"]) for row in rows if row["storage"] == storage)
        axes.plot(*zip(*[p[:2] for p in points]), color=color, marker=marker, linestyle=line, label=storage)
        for size, ndcg, dim in points:
            axes.annotate(str(dim), (size, ndcg), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(
        xscale="log",
        xlabel="bytes per stored vector",
        ylabel="nDCG@10",
        title=f"Vector cost of {_short(name)} (labels: dimensions)",
    )
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _similarity_maps(similarities: dict):
    figure, panels = plt.subplots(1, len(similarities), figsize=(3.6 * len(similarities), 3.4), squeeze=False)
    low, high = min(m.min() for m in similarities.values()), max(m.max() for m in similarities.values())
    for axes, (dim, matrix) in zip(panels[0], similarities.items()):
        image = axes.imshow(matrix, cmap="gray_r", vmin=low, vmax=high)
        axes.set(title=f"{dim} dimensions", xlabel="page of question", ylabel="question")
    figure.colorbar(image, ax=list(panels[0]), label="cosine", shrink=0.8)
    return figure


def _concepts(concepts: dict):
    name, by_dim = next(iter(concepts.items()))
    classes = np.array([pair["class"] for pair in load_concepts()])
    figure, panels = plt.subplots(1, len(by_dim), figsize=(3.6 * len(by_dim), 3.2), sharey=True, squeeze=False)
    bins = np.linspace(-0.4, 1, 29)
    for axes, (dim, similarities) in zip(panels[0], by_dim.items()):
        for concept, hatch, color in zip(CLASSES, ("", "///", "..."), ("black", "0.6", "0.85")):
            axes.hist(
                similarities[classes == concept],
                bins,
                color=color,
                alpha=0.65,
                hatch=hatch,
                edgecolor="black",
                linewidth=0.5,
                label=concept,
            )
        axes.set(title=f"{dim} dimensions", xlabel="cosine")
    panels[0][0].set_ylabel("pairs")
    panels[0][0].legend(fontsize=8)
    figure.suptitle(f"Concept pairs of {_short(name)}")
    return figure


def _numbers(numbers: dict):
    name, part = next(iter(numbers.items()))
    dim, predicted = next(iter(part["predicted"].items()))
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.scatter(part["true"], predicted, s=9, facecolors="none", edgecolors="black", linewidths=0.6)
    limit = max(np.abs(part["true"]).max(), np.abs(predicted).max(), 10) * 2
    axes.plot([-limit, limit], [-limit, limit], color="0.6", linestyle="--", linewidth=1, label="exact")
    powers = [1000.0**k for k in range(1, 8) if 1000.0**k < limit]
    for axis, place in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        place("symlog", linthresh=1)
        axis.set_ticks([*(-power for power in reversed(powers)), 0, *powers])
    axes.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        xlabel="true answer (page's unit, signed log)",
        ylabel="predicted",
        title=f"Answers by {_short(name)} at {dim}-d",
    )
    axes.legend(fontsize=8)
    return figure
