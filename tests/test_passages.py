"""training/passages.py: short passages, what is asked of them, and who teaches them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from finmatryoshka import train_st
from finmatryoshka.data.decontamination import Decontamination
from finmatryoshka.data.schema import DataError, Example, Page
from finmatryoshka.data.splits import FinancialData
from finmatryoshka.training import datasets
from finmatryoshka.training.arguments import DataArguments
from finmatryoshka.training.datasets import training_datasets
from finmatryoshka.training.losses import FinMatryoshkaLoss
from finmatryoshka.training.passages import prose, short_passages
from finmatryoshka.training.teacher import teacher_vectors

SENTENCES = [f"Our {thing} grew because customers of the {thing} came back in that year." for thing in "ABCDEF"]
PAGE = "\n\n".join(
    [
        "Item 7. Discussion",
        "   ".join(["Revenue", "12.1", "11.8"]) + "\n" + "   ".join(["Cost of goods", "(3.2)", "(3.1)"]),
        " ".join(SENTENCES[:3]) + "\n" + " ".join(SENTENCES[3:]),
        "This one sentence is long enough to be a paragraph of a page, but nothing stands beside it to belong.",
        "12 33 45 18 22 91 12 33 45 18 22 91. " * 3 + "A list of figures is no sentence even where it ends as one.",
    ]
)  # fmt: skip


def test_prose_is_paragraphs_of_sentences_without_tables_and_headings():
    assert list(prose(PAGE)) == [SENTENCES]


def test_a_sentence_is_asked_of_what_stands_beside_it():
    pages = [Page(f"f{n}", PAGE.replace("customers", f"customers{n}"), company="ZETA") for n in range(30)]
    leaking = "customers7 "

    def drawn(count: int, seed: int) -> list:
        return short_passages(pages, count, seed, leaks=lambda text: leaking in text)

    found = drawn(20, 3)
    assert len({pair.page.text for pair in found}) == len({pair.page.page_id for pair in found}) == 20
    kept = 0
    for pair in found:
        question, page = pair.question, pair.page
        paragraph = [s.replace("customers", page.text.split()[4]) for s in SENTENCES]
        at, beside = paragraph.index(question), [i for i, s in enumerate(paragraph) if s in page.text]
        assert page.text == " ".join(paragraph[i] for i in beside) and page.company == "ZETA"
        assert set(beside) - {at} and all(abs(i - at) <= 2 for i in beside)
        kept += at in beside
    assert 0 < kept < 10
    assert drawn(20, 3) == found != drawn(20, 4)
    assert len(drawn(1000, 3)) == 29  # all that there are


def test_passages_need_prose():
    examples = [Example("what is it?", Page("p", "a page"), "a fact", 1.0)]
    data = FinancialData(examples, {}, [], {}, {}, Decontamination.of([]))
    with pytest.raises(DataError, match="--passage_pairs: no page of --synthesize has prose"):
        training_datasets(data, DataArguments(passage_pairs=4), None, 13, None)


def test_who_teaches_passages_and_who_pages(train_flags, tiny_backbones, tmp_path, monkeypatch, capsys):
    pages, taught = tmp_path / "pages.jsonl", []
    pages.write_text(json.dumps({"text": PAGE, "company": "ZETA"}))

    def listen(folders, rows, cache):
        taught.append((folders, {part.column_names[1] for part in rows}))
        return teacher_vectors(folders, rows, cache)

    monkeypatch.setattr(datasets, "teacher_vectors", listen)
    bert, other = tiny_backbones["bert"], tiny_backbones["modernbert"]
    flags = {
        "output_dir": tmp_path / "m",
        "synthesize": pages,
        "passage_pairs": 1,
        "numeric_weight": 0,
        "skip_evaluation": True,
        "overwrite": True,
    }
    assert train_st.main(train_flags(**flags)) == 0
    assert train_st.main(train_flags(**flags, teacher=bert, passage_teacher=other)) == 0
    assert taught == [([bert], {"passage"}), ([bert], {"page"}), ([other], {"passage"})]
    assert train_st.main(train_flags(**flags, passage_teacher=tmp_path / "nowhere")) == 2
    assert "error: --passage_teacher " in capsys.readouterr().err


def test_the_untouched_encoder_teaches_passages_alone_and_earlier_stages_join_an_average(
    train_flags, tmp_path, monkeypatch, capsys
):
    pages, steps, forward = tmp_path / "pages.jsonl", [], FinMatryoshkaLoss.forward
    texts = [PAGE.replace("customers", f"customers{n}") for n in range(40)]
    pages.write_text("\n".join(json.dumps({"text": text, "company": "ZETA"}) for text in texts))

    def listen(self, columns, labels=None):
        questions, texts = columns = list(columns)
        taught = "teacher" in questions
        assert taught == ("teacher" in texts)
        steps.append((taught, len(questions["input_ids"]) == len(texts["input_ids"]) == 4))
        return forward(self, columns, labels)

    monkeypatch.setattr(FinMatryoshkaLoss, "forward", listen)
    shared = {"synthesize": [str(pages)], "passage_pairs": 8}
    train = {"numeric_weight": 0, "synthetic_pairs": 0, "per_device_train_batch_size": 4, "questions_per_page": 1}
    stages: list[dict] = [
        {"operation": "train", "num_train_epochs": 1, **train, **shared},
        {"operation": "average", "base_share": 0.2},
        {"operation": "average", "earlier": [1]},
        {"operation": "refit", "heads": False, "fresh_pairs": 0, **shared},
    ]
    flags = train_flags(
        output_dir=tmp_path / "m", skip_evaluation=True, keep_checkpoints=True, max_steps=None,
        per_device_train_batch_size=None,
    )  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps({"stages": stages}))
    assert train_st.main([str(tmp_path / "r.json"), *flags]) == 0
    assert set(steps) == {(True, True), (False, True)}
    a, b, mean = (load_file(tmp_path / "m.run" / f"stage-{n}" / "model.safetensors") for n in (1, 2, 3))
    assert any(not torch.equal(a[name], b[name]) for name in a)
    for name in mean:
        torch.testing.assert_close(mean[name], (a[name] + b[name]) / 2 if mean[name].is_floating_point() else a[name])
    before, after = (
        load_file(folder / "2_Dense" / "model.safetensors")
        for folder in (tmp_path / "m.run" / "stage-3", tmp_path / "m")
    )
    assert not torch.equal(before["linear.weight"], after["linear.weight"])

    stages[2]["earlier"] = [2]
    (tmp_path / "r.json").write_text(json.dumps({"stages": stages}))
    capsys.readouterr()
    assert train_st.main([str(tmp_path / "r.json"), *flags, "--overwrite", "true"]) == 2
    assert "--earlier 2: is no stage before the last one" in capsys.readouterr().err
