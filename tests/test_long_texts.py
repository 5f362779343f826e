"""A text of 100,000 words goes through every command: it is cut where the model stops reading, and nothing else."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from finmatryoshka import FinMatryoshkaModel, train_st
from finmatryoshka.corpus import __main__ as corpus
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.eval import __main__ as evaluation

from conftest import DIMS

LONG = "net sales of alder foods " * 20_000


def test_a_model_reads_the_start_of_a_very_long_text(trained_folders):
    folder = trained_folders["bert"]
    model = FinMatryoshkaModel.from_pretrained(folder).eval()
    start = LONG[:2000]  # more than its 64 tokens
    np.testing.assert_allclose(model.encode([LONG, "land"]), model.encode([start, "land"]), atol=1e-6)
    assert model.predict_number(LONG) == pytest.approx(model.predict_number(start))
    plain = SentenceTransformer(folder)
    np.testing.assert_allclose(plain.encode(LONG), plain.encode(start), atol=1e-6)


@pytest.mark.slow
def test_a_very_long_page_is_trained_on_measured_and_searched(train_flags, tmp_path, capsys):
    parts = {"train": generate_finqa(6), "eval": generate_finqa(3, first_company=100)}
    for name, records in parts.items():
        for record in records[:3]:  # the questions of one page
            record["pre_text"] = [*record["pre_text"], f"{name} {LONG}"]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    files = {name: str(tmp_path / f"{name}.json") for name in parts}
    flags = train_flags(data=files["train"], eval_data=files["eval"], output_dir=tmp_path / "m", max_steps=2)
    assert train_st.main(flags) == 0
    measured = [str(tmp_path / "m"), "--data", files["eval"], "--dims", *map(str, DIMS), "--sections", "retrieval"]
    assert evaluation.main(measured) == 0
    table = str(tmp_path / "corpus.lance")
    indexed = ["index", files["eval"], "--output", table, "--model", str(tmp_path / "m"), "--dim", "16"]
    assert corpus.main(indexed) == 0
    capsys.readouterr()
    assert corpus.main(["search", table, "net sales of alder foods", "--top", "2", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
