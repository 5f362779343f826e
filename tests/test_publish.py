"""Publishing to a Hub on loopback with the real client, and loading from it in fresh processes with empty caches."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from finmatryoshka import train_st
from finmatryoshka.eval import __main__ as evaluation
from finmatryoshka.sentence_transformers_config import __main__ as cli
from finmatryoshka.sentence_transformers_config.card import trained_on
from finmatryoshka.sentence_transformers_config.check import SUMS, check_folder
from finmatryoshka.sentence_transformers_config.publish import PublishError, publish

from conftest import DIMS, RELEASED
from loopback_hub import TOKEN, LoopbackHub

REPO = "org/finmatryoshka"
TEXTS = ["what was the net sales of alder foods in 2015?", "notes and loans outstanding"]


def with_card(folder: Path, dims: list[int], finqa_files, results: Path) -> Path:
    """``folder`` with its evaluation and card: fit to publish."""
    arguments = [str(folder), "--data", finqa_files["eval"], "--train_data", finqa_files["train"],
                 "--dims", *map(str, dims), "--sections", "retrieval", "numbers", "cost",
                 "--output", str(results)]  # fmt: skip
    assert evaluation.main(arguments) == 0
    assert cli.main(["card", str(folder), "--results", str(results), "--repo_id", REPO]) == 0
    return folder


@pytest.fixture(scope="module")
def ready(trained_folders, finqa_files, tmp_path_factory) -> Path:
    """A tiny NomicBert's folder, fit to publish."""
    folder = tmp_path_factory.mktemp("ready") / "model"
    shutil.copytree(trained_folders["nomic_bert"], folder)
    return with_card(folder, DIMS, finqa_files, tmp_path_factory.mktemp("evaluated") / "r")


@pytest.fixture(scope="module")
def released() -> Path:
    """The very folder that the repository carries."""
    return RELEASED


@pytest.fixture
def hub(monkeypatch):
    hub = LoopbackHub()
    yield hub
    hub.close()


def api(hub, token=TOKEN) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture(autouse=True)
def plain_transfers(monkeypatch, tmp_path_factory):
    """No Xet and no offline switch: this Hub speaks LFS on loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_card_validates_and_its_figures_are_the_results(ready):
    card = ModelCard.load(ready / "README.md")
    results = json.loads((ready / "results.json").read_text())
    name, stated = model_index_to_eval_results(card.data.to_dict()["model-index"])
    (model,) = results["models"]
    (task,) = results["retrieval"].values()
    assert [r.metric_value for r in stated] == [round(task["systems"][model][str(d)]["ndcg@10"], 4) for d in DIMS]
    assert card.data.pipeline_tag == "sentence-similarity" and card.data.library_name == "sentence-transformers"
    assert (
        card.data.license == "apache-2.0"
        and card.data.language == ["en"]
        and card.data.to_dict()["widget"][0]["sentences"]
    )
    for value in ("nDCG", "predict_number", "revision", "Limits", "normalize_embeddings=True"):
        assert value in card.text or value in card.content
    assert "{{" not in card.content and "/tmp" not in card.content


@pytest.fixture
def checked(monkeypatch):
    """A folder whose check is known to pass, so that a test of the sending need not wait for it."""
    monkeypatch.setattr("finmatryoshka.sentence_transformers_config.publish.check_folder", lambda folder: [])


@pytest.mark.parametrize("model, native", [("ready", "NomicBertModel"), ("released", "BertModel")])
def test_publish_then_every_door_opens_from_empty_caches(model, native, hub, open_doors, tmp_path, request):
    folder = request.getfixturevalue(model)
    url = publish(folder, REPO, api=api(hub))
    assert len(hub.repos[REPO]["commits"]) == 1 and hub.repos[REPO]["private"] is True
    sha = hub.head(REPO)
    assert url.endswith(sha)
    assert set(hub.files(REPO)) == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} | {SUMS}
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
    }
    # not without a word: the client asks to pin the revision wherever remote code is loaded without one
    found = open_doors(REPO, TEXTS, tmp_path, revision=sha, quiet=False, **variables)
    assert found["errors"] == {} and all(difference < 1e-5 for difference in found["differences"].values()), found
    assert (
        found["types"]["AutoModel, pooled and projected by hand"][0] == native and np.isfinite(found["numbers"]).all()
    )
    np.testing.assert_allclose(found["vectors"], SentenceTransformer(str(folder)).encode(TEXTS), atol=1e-5)


def test_the_token_is_in_no_output(ready, hub, checked, capfd, caplog):
    publish(ready, REPO, api=api(hub))
    assert TOKEN not in "".join(capfd.readouterr()) + caplog.text


def test_publishing_again_removes_what_publish_wrote_and_nothing_else(ready, hub, checked, tmp_path):
    folder = Path(shutil.copytree(ready, tmp_path / "m"))
    (folder / "extra.json").write_text("{}")
    publish(folder, REPO, api=api(hub))
    hub.repos[REPO]["commits"][0][1]["theirs.txt"] = b"of somebody else"
    (folder / "extra.json").unlink()
    publish(folder, REPO, api=api(hub))
    assert len(hub.repos[REPO]["commits"]) == 2
    assert "theirs.txt" in hub.files(REPO) and "extra.json" not in hub.files(REPO)


def test_a_public_repository_is_written_only_when_asked(ready, hub, checked):
    publish(ready, REPO, public=True, api=api(hub))
    assert hub.repos[REPO]["private"] is False
    with pytest.raises(PublishError, match="is public; pass --public"):
        publish(ready, REPO, api=api(hub))
    publish(ready, REPO, public=True, api=api(hub))
    assert hub.repos[REPO]["private"] is False and len(hub.repos[REPO]["commits"]) == 2


def test_files_that_somebody_else_put_there_are_not_replaced_unasked(ready, hub, checked):
    hub.repos[REPO] = {"private": True, "commits": [("1" * 40, {"README.md": b"theirs", "notes.txt": b"theirs"})]}
    with pytest.raises(PublishError, match=r"did not write \(README.md\)"):
        publish(ready, REPO, api=api(hub))
    assert hub.files(REPO)["README.md"] == b"theirs"
    publish(ready, REPO, api=api(hub), overwrite=True)
    assert hub.files(REPO)["README.md"] != b"theirs" and hub.files(REPO)["notes.txt"] == b"theirs"


def test_our_own_bugs_keep_their_traceback(ready, hub, checked, monkeypatch):
    monkeypatch.setattr("finmatryoshka.sentence_transformers_config.publish.sums_text", lambda sums: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(ready, REPO, api=api(hub))


@pytest.mark.parametrize(
    "where, status", [("PUT /upload", 400), ("/commit/", 500), ("/commit/", 409), ("/preupload/", 400)]
)
def test_a_failed_upload_leaves_the_remote_as_it_was_and_can_be_repeated(ready, hub, checked, where, status):
    publish(ready, REPO, api=api(hub))
    before = hub.head(REPO), dict(hub.files(REPO))
    hub.objects.clear()  # so that the weights are sent again
    hub.fail[where] = [status]
    with pytest.raises(PublishError, match=f"the Hub answered {status}.*publish again.*on purpose"):
        publish(ready, REPO, api=api(hub))
    assert (hub.head(REPO), hub.files(REPO)) == before
    publish(ready, REPO, api=api(hub))
    assert hub.files(REPO) == before[1]


def test_an_upload_cut_off_on_the_way_is_tried_again_and_then_given_up(ready, hub, checked, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own retries
    hub.fail["PUT /upload"] = [0]
    publish(ready, REPO, api=api(hub))
    before = hub.head(REPO)
    hub.objects.clear()
    hub.fail["PUT /upload"] = [0] * 100
    with pytest.raises(PublishError, match="publish again"):
        publish(ready, REPO, api=api(hub))
    assert hub.head(REPO) == before


def test_a_busy_hub_is_asked_again(ready, hub, checked):
    hub.fail["/preupload/"] = [503, 503]
    publish(ready, REPO, api=api(hub))
    assert sum("/preupload/" in line for line in hub.log) >= 3 and hub.files(REPO)


def test_a_wrong_token_is_said_without_being_shown(ready, hub):
    with pytest.raises(PublishError, match="401: the token is missing or wrong") as error:
        publish(ready, REPO, api=api(hub, token="hf_wrong_secret"))
    assert "hf_wrong_secret" not in str(error.value) and not hub.repos


def _broken(ready: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ready, tmp_path / "broken"))


def test_a_folder_that_fails_its_check_is_refused_with_the_list(ready, hub, tmp_path):
    assert check_folder(ready) == []
    folder = _broken(ready, tmp_path)
    heads = load_file(folder / "heads.safetensors")
    heads["numeric_heads.8.out.bias"][0] = float("nan")
    save_file(heads, folder / "heads.safetensors", metadata={"format": "pt"})
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "tokenizer.json").unlink()
    results = json.loads((folder / "results.json").read_text())
    (task,), (name,) = results["retrieval"].values(), results["models"]
    task["systems"][name]["16"]["ndcg@10"] = 0.99
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(PublishError) as error:
        publish(folder, REPO, api=api(hub))
    for part in (
        "numeric_heads.8.out.bias has NaN",
        "optimizer.pt: only safetensors",
        "tokenizer.json: missing",
        "results.json says 0.99",
    ):
        assert part in str(error.value)
    assert not hub.log


def test_a_door_with_other_vectors_is_found(ready, tmp_path):
    folder = _broken(ready, tmp_path)
    dense = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
    index = json.loads((folder / "finmatryoshka.safetensors.index.json").read_text())
    del index["weight_map"]["linear.weight"]  # as folders of before: a second matrix, with the heads
    index["weight_map"]["projection.weight"] = "heads.safetensors"
    (folder / "finmatryoshka.safetensors.index.json").write_text(json.dumps(index))
    heads = load_file(folder / "heads.safetensors") | {"projection.weight": dense * -1}
    save_file(heads, folder / "heads.safetensors", metadata={"format": "pt"})
    assert any(
        problem.startswith("door AutoModel with trust_remote_code: vectors differ") for problem in check_folder(folder)
    )


def test_dry_run_lists_exactly_what_is_sent_and_sends_nothing(ready, hub, checked, capsys):
    assert cli.main(["publish", str(ready), "--repo_id", REPO, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "pipeline_tag: sentence-similarity" in out and not hub.log
    listed = {name: int(size.replace(",", "")) for size, name in re.findall(r"(?m)^ *([\d,]+)  (\S+)$", out)}
    publish(ready, REPO, api=api(hub))
    assert listed == {name: len(content) for name, content in hub.files(REPO).items()}


def test_dry_run_checks_too(ready, tmp_path, capsys):
    folder = _broken(ready, tmp_path)
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "tokenizer.json").unlink()
    assert cli.main(["publish", str(folder), "--repo_id", REPO, "--dry-run"]) == 1
    assert "optimizer.pt: only safetensors" in capsys.readouterr().out


def test_the_card_names_what_was_trained_on_and_nothing_else():
    training = {"data": {"data": ["../shared/data/finqa/train.json"], "eval_data": ["../shared/data/tatqa/dev.json"]}}
    assert trained_on(training) == ["finqa"]
    assert trained_on({"data": {"data": ["about-finqa-and-tatqa.json"], "eval_data": None}}) == []
    assert trained_on({"data": {"data": ["sample"], "eval_data": None}, "previous": training}) == ["finqa"]


def test_training_publishes_what_it_trained(train_flags, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("finmatryoshka.sentence_transformers_config.publish.HfApi", lambda: api(hub))
    flags = train_flags(output_dir=tmp_path / "m", max_steps=1)
    assert train_st.main([*flags, "--push_to_hub", "true"]) == 2  # no repository named: said before training
    assert "name the repository with --hub_model_id" in capsys.readouterr().err and not (tmp_path / "m").exists()
    assert train_st.main([*flags, "--push_to_hub", "true", "--hub_model_id", "org/trained"]) == 0
    assert {"results.json", "README.md", "quality_over_dimension.png"} <= set(hub.files("org/trained"))
    assert len(hub.repos["org/trained"]["commits"]) == 1
