"""The Ray engine: the local engine's vectors, and a killed worker that costs no page."""

import os
import signal
import sys

import numpy as np
import pytest
import ray

from finmatryoshka.corpus import index as index_module
from finmatryoshka.corpus import ray_engine
from finmatryoshka.corpus.__main__ import main
from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.table import open_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray on this machine for all tests here, whose workers get the classes of this file by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray_engine.start("local", num_cpus=2, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def local(tiny_backbones, finqa_files, tmp_path_factory) -> IndexPlan:
    plan = IndexPlan([finqa_files["eval"]], str(tmp_path_factory.mktemp("local") / "local.lance"),
                     tiny_backbones["bert"], 32, progress=False)  # fmt: skip
    index_pages(plan)
    return plan


def by_id(path: str) -> tuple[list[str], np.ndarray]:
    rows = open_corpus(path)[0].to_arrow().sort_by("id").to_pylist()
    return [row["id"] for row in rows], np.array([row["vector"] for row in rows])


def index_with_ray(local: IndexPlan, path: str):
    plan = IndexPlan(local.files, path, local.model, local.dim, engine="ray", workers=2, progress=False)
    return index_pages(plan)


def test_two_workers_give_the_local_vectors(local, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "CHUNK_PAGES", 8)
    monkeypatch.setattr(ray_engine, "WINDOW_CHUNKS", 3)
    path = str(tmp_path / "ray.lance")
    assert index_with_ray(local, path).written == 36
    assert index_with_ray(local, path).unchanged == 36
    (ids, vectors), (local_ids, local_vectors) = by_id(path), by_id(local.output)
    assert ids == local_ids
    np.testing.assert_allclose(vectors, local_vectors, atol=1e-5)


def test_a_killed_worker_costs_no_page(local, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "CHUNK_PAGES", 8)
    killed = tmp_path / "killed"

    class DiesOnce(ray_engine._Worker):
        def __call__(self, pages):
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(pages)

    monkeypatch.setattr(ray_engine, "_Worker", DiesOnce)
    path = str(tmp_path / "ray.lance")
    assert index_with_ray(local, path).rows == 36
    assert killed.exists()
    (ids, vectors), (local_ids, local_vectors) = by_id(path), by_id(local.output)
    assert ids == local_ids
    np.testing.assert_allclose(vectors, local_vectors, atol=1e-5)


class Fails(ray_engine._Worker):
    def __call__(self, pages):
        raise RuntimeError("no memory left\n  on the device")


class DoesNotStart(ray_engine._Worker):
    def __init__(self, *arguments):
        super().__init__("no/such/model", *arguments[1:])


@pytest.mark.parametrize(
    "worker, message",
    [
        (Fails, "error: Ray: RuntimeError: no memory left on the device; what was committed"),
        (DoesNotStart, "error: Ray: no/such/model: cannot be loaded"),
    ],
)
def test_what_a_worker_raises_is_one_line(local, worker, message, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(ray_engine, "_Worker", worker)
    output = str(tmp_path / "ray.lance")
    command = ["index", *local.files, "--output", output, "--model", local.model, "--dim", "32", "--engine", "ray"]
    capfd.readouterr()
    assert main(command) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "page" not in line]  # but the progress bar's
    assert len(errors) == 1 and errors[0].startswith(message), errors
    assert list(tmp_path.iterdir()) == []
