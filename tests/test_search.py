"""training/search.py: resume after a kill, sharing, pruning, failing trials, memory, and parameters that give their
score again."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState

from finmatryoshka import train_st
from finmatryoshka.training import search as searching
from finmatryoshka.training.arguments import ArgumentError
from finmatryoshka.training.recipe import read_stages
from finmatryoshka.training.run import run
from finmatryoshka.training.search import Search, main
from finmatryoshka.training.search_report import failure_reason
from finmatryoshka.training.search_space import SearchError, check_space, suggest
from finmatryoshka.training.search_storage import open_storage

from conftest import ROOT

pytestmark = pytest.mark.slow

SMALL = {
    "per_device_train_batch_size": {"choices": [4, 8]},
    "gradient_accumulation_steps": {"choices": [1, 2]},
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
}


@pytest.fixture
def recipe(train_flags, tmp_path) -> str:
    """A recipe file of a tiny run: 24 pairs a trial."""
    flags, values = train_flags(output_dir=tmp_path / "out", max_steps=3), {}
    for flag in flags:
        if flag.startswith("--"):
            values[flag[2:]] = name = []
        else:
            name.append(yaml.safe_load(flag))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({k: v[0] if len(v) == 1 else v for k, v in values.items()}))
    return str(path)


def search(recipe, tmp_path, trials=3, space=SMALL, **changes) -> Search:
    return Search([recipe], trials, space, f"sqlite:///{tmp_path}/study.db", dim=16, **changes)


def finished(study):
    return [t for t in study.get_trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def test_best_parameters_give_the_best_score_again_exactly(recipe, tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SMALL | {"matryoshka_weights": {"choices": [[1, 1, 1], [1, 2, 4]]}}))
    main([recipe, "--trials", "3", "--dim", "16", "--space", str(space), "--output", str(tmp_path / "s")])
    best = yaml.safe_load((tmp_path / "s" / "best_params.yaml").read_text())
    study = optuna.load_study(study_name="finmatryoshka", storage=f"sqlite:///{tmp_path}/s/study.db")
    report = run(read_stages([str(tmp_path / "s" / "best_params.yaml")]))
    (task,) = report["retrieval"].values()
    assert task["model"][16] == study.best_value
    assert len(best["matryoshka_weights"]) == 3
    assert {p.name for p in (tmp_path / "s").glob("*.png")} == {
        "history.png",
        "importance.png",
        "parallel_coordinate.png",
    }
    rows = list(csv.DictReader((tmp_path / "s" / "trials.csv").open()))
    assert len(rows) == 3 and all(float(row["user_attrs_seconds"]) > 0 for row in rows)
    # batch × accumulation changes the steps, not the examples seen (up to the last step)
    assert all(abs(int(row["user_attrs_examples"]) - 24) <= 8 for row in rows)
    assert "[3/3] trial" in capsys.readouterr().out


def _command(recipe, tmp_path, trials) -> list[str]:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SMALL))
    return [sys.executable, str(ROOT / "train_st.py"), "search", recipe, "--trials", str(trials), "--dim", "16",
            "--space", str(space), "--output", str(tmp_path / "s"), "--heartbeat", "1"]  # fmt: skip


def _study(tmp_path):
    return optuna.load_study(study_name="finmatryoshka", storage=f"sqlite:///{tmp_path}/s/study.db")


def test_killed_in_mid_trial_and_started_again(recipe, tmp_path):
    process = subprocess.Popen(
        _command(recipe, tmp_path, 4), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline, states = time.time() + 180, []
    while time.time() < deadline and process.poll() is None:
        if (tmp_path / "s" / "study.db").exists():
            try:
                states = [t.state for t in _study(tmp_path).get_trials()]
            except Exception:  # the tables are being made
                states = []
            if TrialState.COMPLETE in states and TrialState.RUNNING in states:
                break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and TrialState.COMPLETE in states
    before = {t.number: t.value for t in _study(tmp_path).get_trials() if t.state == TrialState.COMPLETE}
    assert train_st.main(_command(recipe, tmp_path, 4)[2:]) == 0
    study = _study(tmp_path)
    assert {t.number: t.value for t in study.get_trials() if t.number in before} == before  # finished trials stay
    broken = [t for t in study.get_trials() if t.state == TrialState.FAIL]
    assert len(broken) == 1 and "reason" not in broken[0].user_attrs
    retried = [t for t in study.get_trials() if t.system_attrs.get("failed_trial") == broken[0].number]
    assert len(retried) == 1 and retried[0].state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert len(finished(study)) == 4  # the total is what was asked for


def test_two_processes_share_the_trials_without_doing_one_twice(recipe, tmp_path):
    (tmp_path / "s").mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            _command(recipe, tmp_path, 6),
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    slots = [t.user_attrs["slot"] for t in finished(_study(tmp_path))]
    assert sorted(slots) == list(range(6))
    assert all("trial" in out for out, _ in outputs)  # both worked


def test_a_search_in_two_parts_proposes_what_one_in_one_part_does(recipe, tmp_path):
    """No sampler starts over: a slot asks for the same values after however many restarts."""
    params = []
    for name, parts in (("whole", [3]), ("parts", [1, 2, 3])):
        (tmp_path / name).mkdir()
        for total in parts:
            study = search(recipe, tmp_path / name, total).run()
        params.append([trial.params for trial in study.get_trials()])
    assert params[0] == params[1]
    assert len({str(values) for values in params[0]}) == 3


def test_the_searchs_recipe_is_one_training_run(recipe, tmp_path):
    values = yaml.safe_load(open(recipe))
    for change, message in (
        ({"operation": "refit"}, "trains nothing"),
        ({"stages": [{}, {"operation": "refit"}]}, "has 2 stages; give a recipe of one"),
        ({"temperature": 0}, "--temperature 0.0: must be above 0"),
    ):
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump(values | change))
        with pytest.raises(ArgumentError, match=message):
            search(str(path), tmp_path)


def open_together(url: str, barrier: threading.Barrier):
    barrier.wait()
    return open_storage(url, heartbeat=1)


def test_processes_that_start_at_the_same_moment_find_one_storage(tmp_path):
    for study in range(3):  # without the second try most of these fail
        url, barrier = f"sqlite:///{tmp_path}/{study}.db", threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            opened = [pool.submit(open_together, url, barrier) for _ in range(4)]
        assert all(future.result() for future in opened)


def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(tmp_path):
    for url in (f"sqlite:///{tmp_path}/none/study.db", "nosuch://me:secret@host/db", "no url"):
        with pytest.raises(SearchError, match="--storage .*: cannot be opened") as raised:
            open_storage(url, heartbeat=1)
        assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_hopeless_trials_are_pruned_and_a_search_without_result_says_so(recipe, tmp_path):
    job = search(recipe, tmp_path, 2)
    job.study.pruner = optuna.pruners.ThresholdPruner(lower=1.1)
    study = job.run()
    assert [t.state for t in study.get_trials()] == [TrialState.PRUNED] * 2 and all(
        t.intermediate_values for t in study.get_trials()
    )
    with pytest.raises(SearchError, match="no trial finished"):
        job.write_results(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nan_losses_are_recorded_and_three_in_a_row_stop_the_search(recipe, tmp_path):
    space = {
        "learning_rate": {"choices": [1e30]},
        "per_device_train_batch_size": {"choices": [4]},
        "gradient_accumulation_steps": {"choices": [1]},
    }
    job = search(recipe, tmp_path, 5, space)
    with pytest.raises(
        SearchError,
        match="three trials in a row failed: the weights or a vector became NaN or infinite; lower the learning rate",
    ):
        job.run()
    failed = [t for t in job.study.get_trials() if "reason" in t.user_attrs]
    assert len(failed) == 3 and all(t.state == TrialState.FAIL for t in failed)


def test_a_failing_trial_does_not_stop_the_others(recipe, tmp_path, monkeypatch):
    real, calls = searching.train, []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 TB")
        return real(*args, **kwargs)

    monkeypatch.setattr(searching, "train", sometimes)
    study = search(recipe, tmp_path, 3).run()
    assert [t.user_attrs.get("reason") for t in study.get_trials()] == [None, "out of memory", None]
    assert failure_reason(MemoryError()) == "out of memory"


def test_two_objectives_give_a_front(recipe, tmp_path):
    job = search(recipe, tmp_path, 2, objectives=("quality", "numbers"))
    study = job.run()
    assert all(len(t.values) == 2 for t in study.get_trials()) and study.best_trials
    job.write_results(tmp_path / "r")
    assert (tmp_path / "r" / "best_params.yaml").is_file()


def test_memory_stays_flat_over_trials(recipe, tmp_path):
    job, resident = search(recipe, tmp_path, 10), []
    release = job._tell

    def measured(failures):
        tell = release(failures)

        def callback(study, trial):
            tell(study, trial)
            resident.append(psutil.Process().memory_info().rss)

        return callback

    job._tell = measured
    job.run()
    assert len(resident) == 10 and resident[9] < 1.05 * resident[1]


@pytest.mark.parametrize(
    "space, message",
    [
        ({"learning_rate": {"low": 1e-3, "high": 1e-6, "log": True}}, "learning_rate has low 0.001 and high 1e-06"),
        ({"momentum": {"low": 0, "high": 1}}, "unknown name 'momentum'"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "low must be above 0"),
        ({"temperature": 0.1}, "needs 'low' and 'high', or 'choices'"),
        ({"temperature": {"choices": []}}, "needs 'low' and 'high', or 'choices'"),
        ({"temperature": {"low": "warm", "high": 1}}, "temperature has a bound 'warm', which is no number"),
        (["learning_rate"], "no mapping"),
    ],
)
def test_bad_spaces(space, message):
    with pytest.raises(SearchError, match=message):
        check_space(space)


def test_the_missions_space_is_the_default_and_can_be_narrowed():
    assert check_space({})["learning_rate"] == {"low": 1e-6, "high": 1e-3, "log": True}
    assert "temperature" not in check_space({"temperature": None})


def test_bounds_are_what_yaml_reads_them_as_and_whole_where_they_must_be():
    space = check_space({"learning_rate": {"low": "1e-5", "high": "2e-4"}, "max_seq_length": {"low": 16, "high": 64}})
    assert space["learning_rate"] == {"low": 1e-5, "high": 2e-4}
    drawn = suggest(optuna.create_study().ask(), {"max_seq_length": space["max_seq_length"]})["max_seq_length"]
    assert isinstance(drawn, int) and 16 <= drawn <= 64


def test_every_trial_sees_as_many_pages_as_the_recipe(recipe, finqa_files, tmp_path):
    """Pages and not questions make the steps; what a space leaves out is the recipe's."""
    flags = [recipe, "--max_steps", "-1", "--num_train_epochs", "2", "--gradient_accumulation_steps", "3"]
    fixed = {"gradient_accumulation_steps": None, "per_device_train_batch_size": {"choices": [4]}}
    job = Search(flags, 1, fixed, f"sqlite:///{tmp_path}/study.db", dim=16)
    assert job.examples == 2 * len({e.page.page_id for e in job.data.train}) < 2 * len(job.data.train)
    stage = job.stage({"per_device_train_batch_size": 4}, str(tmp_path / "out"))
    assert stage.training.max_steps == round(job.examples / 12)


def test_bad_arguments_are_one_line(recipe, tmp_path, capsys):
    for flags in (["--dim", "100"], ["--trials", "0"], ["--space", str(tmp_path / "none.yaml")]):
        assert train_st.main(["search", recipe, "--output", str(tmp_path / "s"), *flags]) == 2
        assert capsys.readouterr().err.count("error: ") == 1
