"""eval/tables.py, eval/readme.py and training/report.py: what a reader is shown, and that it is what was measured."""

import copy
import io
import json

import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer

from finmatryoshka.data.numbers import SignedLogScaler
from finmatryoshka.data.splits import load_data
from finmatryoshka.eval import __main__ as cli
from finmatryoshka.eval.readme import update_readme
from finmatryoshka.eval.retrieval import EvaluationError
from finmatryoshka.eval.tables import RETRIEVAL_FIGURES, dimension_table, markdown, print_tables, result_tables
from finmatryoshka.sentence_transformers_config.card import pairs_note
from finmatryoshka.training.report import learning_report, not_learned, print_report, report_tables

from conftest import DIMS, ROOT


def figures(ndcg: float) -> dict:
    return {name: ndcg for name in RETRIEVAL_FIGURES}


def results_of(shift: float = 0.0, name: str = "runs/base-256") -> dict:
    """A results file of schema 3 with one model, whose name holds a word of every other row."""
    systems = {
        name: {"256": figures(0.8 + shift), "64": figures(0.7 + shift)},
        "finmatryoshka-plain": {"256": figures(0.5), "64": figures(0.4)},
        "BM25": {"0": figures(0.76)},
        "base at 256 tokens": {"256": figures(0.37), "64": figures(0.31)},
        "base at 1024 tokens": {"256": figures(0.41), "64": figures(0.33)},
    }
    fused = {
        name: {
            "reciprocal ranks": {"256": figures(0.81), "64": figures(0.79)},
            "z-scores": {"256": figures(0.86), "64": figures(0.84)},
        }
    }

    def shifted(by_dim: dict, more: float) -> dict:
        return {dim: by["ndcg@10"] + more for dim, by in by_dim.items()}

    halves = {
        half: {
            "queries": count,
            "systems": {system: shifted(by_dim, more) for system, by_dim in systems.items()},
            "fused": {name: {how: shifted(by_dim, more) for how, by_dim in fused[name].items()}},
        }
        for half, count, more in (("choosing", 430, 0.01), ("reported", 428, -0.01))
    }
    part = {"queries": 858, "pages": 306, "training_pages": 95, "sha256": "a"}
    part |= {"systems": systems, "fused": fused, "halves": halves}
    return {
        "schema_version": 3,
        "models": {name: {"max_seq_length": 1024}},
        "retrieval": {
            "finqa/dev_pages": part,
            "tatqa/test_gold": {**part, "queries": 1646, "pages": 277, "halves": {}},
        },
        "cost": {name: [{"dim": 256, "storage": "int8", "bytes": 256, "ndcg@10": 0.8}]},
    }


def test_tables_name_models_as_they_are_told_and_select_sections_as_data():
    results = results_of()
    tables = result_tables(
        results, ("retrieval", "cost"), {"runs/base-256": "this model"}, figures=("ndcg@10", "mrr@10")
    )
    assert [len(table.columns) for table in tables] == [6, 4, 4]  # the halves where there are some
    assert tables[0].columns == ["system", "dim", "ndcg@10", "choosing half", "reported half", "mrr@10"]
    assert tables[0].rows[0] == ["this model", "256", "0.8000", "0.8100", "0.7900", "0.8000"]
    systems = [row[0] for row in tables[1].rows]
    assert "base at 256 tokens" in systems and "this model + BM25, z-scores" in systems
    assert "runs/base-256" not in markdown(tables) and "BM25 | – | 0.7600" in markdown(tables)
    assert tables[0].title.endswith("858 questions, 306 pages, 95 of them training pages")
    assert len(result_tables(results)) == 3 and result_tables(results, ("facts", "numbers", "concepts")) == []
    unknown = copy.deepcopy(results)
    unknown["retrieval"]["finqa/dev_pages"]["training_pages"] = None
    assert result_tables(unknown)[0].title.endswith("306 pages")  # nothing is claimed that is not known


def test_terminal_and_markdown_show_the_same_cells():
    tables = result_tables(results_of())
    print_tables(tables, console := Console(width=300, file=io.StringIO()))
    shown = console.file.getvalue()
    for table in tables:
        for row in table.rows:
            assert any(all(cell in line for cell in row) for line in shown.splitlines()), row
            assert "| " + " | ".join(row) + " |" in markdown(tables)


def test_one_table_says_what_a_dimension_costs_and_finds():
    table = dimension_table(results_of(), "runs/base-256")
    assert table.columns[3:] == [
        "finqa/dev_pages",
        "finqa/dev_pages, with BM25",
        "tatqa/test_gold",
        "tatqa/test_gold, with BM25",
    ]
    assert table.rows == [
        ["256", "1024", "256", "0.800", "0.860", "0.800", "0.860"],
        ["64", "256", "64", "0.700", "0.840", "0.700", "0.840"],
        ["BM25 alone", "–", "–", "0.760", "–", "0.760", "–"],
    ]


README = "# Name\n\n<!-- results: a.json b.json -->\nold\n<!-- /results -->\n\nMore.\n"


@pytest.fixture
def readme(tmp_path):
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "a.json").write_text(json.dumps(results_of()))
    (tmp_path / "b.json").write_text(json.dumps(results_of(0.02, "other-seed")))
    return tmp_path / "README.md"


def test_the_readmes_table_is_written_from_results_and_checked_against_them(readme, tmp_path, capsys):
    flags = ["readme", "--readme", str(readme)]
    assert cli.main([*flags, "--check"]) == 2  # "old" is not what the results say
    assert "run python -m finmatryoshka.eval readme" in capsys.readouterr().err and readme.read_text() == README
    assert cli.main(flags) == 0 and cli.main([*flags, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("# Name\n\n<!-- results: a.json b.json -->\n| nDCG@10 | dim |") and text.endswith(
        "<!-- /results -->\n\nMore.\n"
    )
    assert "| FinQA dev (858 questions, 306 pages) | TAT-QA test (1,646 questions, 277 pages) |" in text
    for row in (
        "| FinMatryoshka | 256 | 0.810 | 0.810 |",  # the mean of two seeds
        "| FinMatryoshka | 64 | 0.710 | 0.710 |",
        "| FinMatryoshka + BM25 | 256 | 0.860 | 0.860 |",
        "| BM25 alone | – | 0.760 | 0.760 |",
        "| untouched encoder, truncated, 1024 tokens | 256 | 0.410 | 0.410 |",  # at equal length
        "| plain Matryoshka training | 64 | 0.400 | 0.400 |",
    ):
        assert row in text
    assert "Mean of 2 seeds." in text
    changed = json.loads((tmp_path / "b.json").read_text())
    changed["retrieval"]["finqa/dev_pages"]["systems"]["other-seed"]["64"]["ndcg@10"] += 0.01
    (tmp_path / "b.json").write_text(json.dumps(changed))
    assert cli.main([*flags, "--check"]) == 2 and readme.read_text() == text
    assert cli.main([*flags, "a.json"]) == 0 and "<!-- results: a.json -->" in readme.read_text()
    assert "One model." in readme.read_text()


def test_keyword_search_with_pairs_of_words_has_rows_where_it_was_measured(readme, tmp_path):
    results = results_of()
    name = next(iter(results["models"]))
    assert pairs_note(results, name) == ""
    for part in results["retrieval"].values():
        part["systems"]["BM25, words and pairs"] = {"0": figures(0.82)}
        part["fused"][name]["z-scores, words and pairs"] = {"256": figures(0.87), "64": figures(0.85)}
    (tmp_path / "a.json").write_text(json.dumps(results))
    assert cli.main(["readme", "--readme", str(readme), "a.json"]) == 0
    rows = readme.read_text().splitlines()
    at = rows.index("| BM25 alone | – | 0.760 | 0.760 |")
    assert rows[at + 1 : at + 4] == [
        "| FinMatryoshka + BM25 of words and pairs | 256 | 0.870 | 0.870 |",
        "| FinMatryoshka + BM25 of words and pairs | 64 | 0.850 | 0.850 |",
        "| BM25 of words and pairs alone | – | 0.820 | 0.820 |",
    ]
    assert "alone 0.820 on FinQA dev, 0.870 with 256 dimensions; 0.820 on TAT-QA test" in pairs_note(results, name)


def test_results_that_cannot_be_the_readmes_say_why(readme, tmp_path):
    def refused(message: str, **changes):
        (tmp_path / "b.json").write_text(json.dumps(results_of() | changes))
        with pytest.raises(EvaluationError, match=message):
            update_readme(readme, [])

    refused("schema_version 2, the table needs 3; run python -m finmatryoshka.eval again", schema_version=2)
    refused("exactly one model", models={"a": {}, "b": {}})
    other = copy.deepcopy(results_of()["retrieval"])
    other["finqa/dev_pages"]["sha256"] = "b"
    refused("different questions or pages", retrieval=other)
    refused("different questions or pages", retrieval={"another": other["finqa/dev_pages"]})
    without = copy.deepcopy(results_of()["retrieval"])
    for part in without.values():
        part["systems"].pop("base at 1024 tokens", None)
    refused("base at 1024 tokens.* --base", retrieval=without)
    with pytest.raises(EvaluationError, match="none.json: is no results file"):
        update_readme(readme, ["none.json"])
    readme.write_text("# No place\n")
    with pytest.raises(EvaluationError, match="has no place for the table"):
        update_readme(readme, ["a.json"])
    assert readme.read_text() == "# No place\n"


@pytest.fixture(scope="module")
def report(trained_folders, tiny_backbones, finqa_files) -> dict:
    model = SentenceTransformer(trained_folders["bert"], trust_remote_code=True)
    data = load_data([finqa_files["train"]], [finqa_files["eval"]])
    config = model[0].auto_model.config
    scaler = SignedLogScaler(config.numeric_mean, config.numeric_std)
    return learning_report(model, SentenceTransformer(tiny_backbones["bert"]), data, scaler)


def test_the_report_compares_at_equal_length_and_counts_training_pages(report):
    (part,) = report["retrieval"].values()
    assert (part["base_tokens"], part["tokens"], part["training_pages"]) == (128, 64, 0)
    assert part["base_at_length"].keys() == part["base"].keys() == set(DIMS)
    assert part["base_at_length"] != part["base"]
    retrieval, numbers = report_tables(report)
    assert retrieval.columns == ["dimension", "base at 128 tokens", "base at 64 tokens", "fine-tuned at 64", "gain"]
    gain = part["model"][8] - part["base_at_length"][8]
    assert retrieval.rows[-1][-1] == f"{gain:+.4f}" and "0 of them training pages" in retrieval.title
    assert "unseen answers" in numbers.title and numbers.rows[0][0] == "best constant of each metric"


def test_learned_looks_at_every_figure_and_the_run_says_which_one_loses(report):
    good = copy.deepcopy(report)
    for part in good["retrieval"].values():
        part["model"] = {dim: 1.1 for dim in part["model"]}
    for part in good["numbers"].values():
        perfect = {"huber": 0.0, "median_relative_error": 0.0}
        perfect |= {"sign_accuracy": 1.1, "magnitude_accuracy": 1.1, "spearman": 1.0}
        part["heads"] = {dim: dict(perfect) for dim in DIMS}
    assert not_learned(good) == []
    ((task, numbers),) = good["numbers"].items()
    numbers["heads"][16]["sign_accuracy"] = numbers["constant"]["sign_accuracy"] - 0.01  # Huber alone would not tell
    (line,) = not_learned(good)
    assert line.startswith(f"{task}: right sign at 16 is ")
    good |= {"not_learned": not_learned(good), "learned": False}
    print_report(good, console := Console(width=200, file=io.StringIO()))
    shown = console.file.getvalue()
    assert "NOT LEARNED EVERYWHERE" in shown and line in shown
    good["retrieval"][task]["model"][8] = good["retrieval"][task]["base_at_length"][8]
    assert any("nDCG@10 at 8" in line and "base at 64 tokens" in line for line in not_learned(good))


def test_the_committed_readme_says_what_the_committed_results_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["readme", "--check"]) == 0
