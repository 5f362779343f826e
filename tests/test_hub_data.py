"""data/hub.py: datasets of a Hub on loopback, read by the real client in fresh processes with empty caches."""

import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset

from finmatryoshka.data.hub import CONVERTED, HubSource
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import DataError

from conftest import DIMS, ROOT
from dataset_hub import DatasetHub

LOAD = """
import json, sys
from finmatryoshka.data.loading import load_source
from finmatryoshka.data.schema import DataError
for name in sys.argv[2:]:
    try:
        source = load_source(name, sys.argv[1])
        print(json.dumps([source.name, source.schema, [[e.question, e.number] for e in source.examples]]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def parquet(records: list[dict], path) -> bytes:
    """As the Hub converted dreamerdeo/finqa: no exe_ans, no program; ``answers`` in place of ``answer`` in some
    copies."""
    rows = [
        {key: record[key] for key in ("id", "pre_text", "post_text", "table")}
        | {"question": record["qa"]["question"], "answers": str(record["qa"]["answer"])}
        | {"gold_evidence": list(record["qa"]["gold_inds"].values())}
        for record in records
    ]
    Dataset.from_list(rows).to_parquet(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    hub = DatasetHub()
    sides = {"train": generate_finqa(8), "validation": generate_finqa(4, first_company=100),
             "test": generate_finqa(4, first_company=200)}  # fmt: skip
    files = {f"{side}/0000.parquet": parquet(records, folder / f"{side}.parquet") for side, records in sides.items()}
    script = {"README.md": b"# FinQA\n", "finqa.py": b"raise SystemExit('a script must not run')\n"}
    hub.datasets["dreamerdeo/finqa"] = {
        "main": script, CONVERTED: {f"default/{name}": content for name, content in files.items()},
    }  # fmt: skip
    hub.datasets["org/two"] = {
        "main": script,
        CONVERTED: {"en/train/0000.parquet": files["train/0000.parquet"],
                    "de/train/0000.parquet": files["test/0000.parquet"]},
    }  # fmt: skip
    lines = "\n".join(map(json.dumps, sides["train"])).encode()
    hub.datasets["org/plain"] = {"main": {"train.jsonl": lines}, "v1": {"train.jsonl": lines.split(b"\n")[0]}}
    yield hub
    hub.close()


@pytest.fixture
def ask(hub, tmp_path):
    """Run Python with that Hub as the Hub."""

    def run(*arguments: str, cwd=tmp_path, timeout=300) -> subprocess.CompletedProcess:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return run


def test_datasets_of_the_hub_by_name_configuration_revision_and_split(ask):
    names = ["dreamerdeo/finqa", "dreamerdeo/finqa:test", f"dreamerdeo/finqa@{CONVERTED}:train", "org/two#de:train",
             "org/plain@v1:train", "org/plain", "org/none", "org/plain@v9"]  # fmt: skip
    done = ask("-c", LOAD, "validation", *names)
    assert done.returncode == 0, done.stderr
    default, test, train, german, old, no_split, missing, no_revision = map(json.loads, done.stdout.splitlines())
    expected = {
        side: [r["qa"]["question"] for r in generate_finqa(n, first_company=f)]
        for side, n, f in (("train", 8, 0), ("validation", 4, 100), ("test", 4, 200))
    }
    for (_, schema, examples), side in ((default, "validation"), (test, "test"), (train, "train"), (german, "test")):
        assert schema == "finqa_flat" and [question for question, _ in examples] == expected[side]
        assert any(number == number for _, number in examples)
    assert default[0] == "dreamerdeo/finqa:validation" and len(old[2]) == 1
    assert no_split.startswith("org/plain: has no split 'validation'") and "train" in no_split
    assert "network" not in no_split
    assert (
        missing.startswith("org/none: neither a local file nor loadable from the Hub (") and "org/none" in missing[10:]
    )
    assert "v9" in no_revision[15:]
    assert all("\n" not in message for message in (no_split, missing, no_revision))


def test_the_default_command_trains_on_the_converted_branch(ask, tiny_backbones, tmp_path):
    flags = ["--backbone", tiny_backbones["bert"], "--matryoshka_dims", *map(str, DIMS), "--max_steps", "2"]
    done = ask(str(ROOT / "train_st.py"), *flags, "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "heads.safetensors").is_file()
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert set(record["sources_sha256"]) == {"dreamerdeo/finqa", "dreamerdeo/finqa:validation"}


def test_the_spelling_of_a_hub_source():
    assert HubSource.of("org/name") == HubSource("org/name")
    assert HubSource.of("org/name#en@refs/convert/parquet:train[:10]") == HubSource(
        "org/name", "en", "refs/convert/parquet", "train[:10]"
    )
    with pytest.raises(DataError, match="write org/name, with #configuration, @revision and :split"):
        HubSource.of("what is this?")
