"""`--engine ray` on a real cluster of two nodes on this machine: the same file, whoever sees what, whoever dies."""

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdatc_cli.app import run
from sdatc_cli.commands.workshop import load_model
from sdatc_cli.engine import journal, parallel
from sdatc_cli.engine.job import Job
from sdatc_cli.media.probe import probe
from sdatc_models import weights
from tests.conftest import write_clip
from tests.e2e.failing import SHORT, stop_at

ray = pytest.importorskip("ray", reason="needs the package ray: pip install 'sdatc[ray]'")

from sdatc_cli.engine import ray_engine, ray_task  # noqa: E402

STORE = 100 << 20  # bytes of each node's object store

pytestmark = [
    pytest.mark.usefixtures("short_stretches"),
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters of several nodes on one machine need Linux"),
]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second_node(cluster):
    """A node beside the head, for one test."""
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def test_nodes_that_see_neither_input_nor_weights(cluster, second_node, sdatc, tiny_models, tmp_path, monkeypatch):
    """/proc/self/cwd is another folder for every process: what lies there must be brought to the nodes. The run takes
    up the work of a single process."""
    source, one, out = write_clip(tmp_path / "in.mkv", frames=33, sound=True, scenes=3), "one.mp4", tmp_path / "out.mp4"
    (tmp_path / "model").symlink_to(tiny_models["lively"])
    monkeypatch.chdir(tmp_path)
    assert sdatc(source, Path(one))[0] == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 6, KeyboardInterrupt())
        assert sdatc(source, out)[0] == 130
    here, folders = Path("/proc/self/cwd"), set(Path(tempfile.gettempdir()).glob("sdatc-*"))
    words = ["--engine", "ray", "--address", cluster.address, "--model", here / "model"]
    code, result, said = sdatc(here / source.name, out, *words)
    assert code == 0, said
    assert out.read_bytes() == Path(one).read_bytes()
    assert result["device"] == "cpu (2 Ray nodes)" and result["resumed_frames"] >= SHORT and result["frames"] == 33
    assert "restoring: " in said and not journal.work_folder(out).exists()
    assert set(Path(tempfile.gettempdir()).glob("sdatc-*")) <= folders
    assert not ray.is_initialized()


def test_a_node_that_dies_in_the_middle(cluster, second_node, sdatc, tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", frames=60, scenes=2)
    one, out = tmp_path / "one.mp4", tmp_path / "out.mp4"
    assert sdatc(source, one)[0] == 0
    real, finished = parallel.record, []

    def record(book, segment):
        real(book, segment)
        finished.append(segment.first)
        if len(finished) == 2:
            cluster.remove_node(second_node, allow_graceful=False)

    monkeypatch.setattr(parallel, "record", record)
    code, result, said = sdatc(source, out, "--engine", "ray", "--address", cluster.address)
    assert code == 0, said
    assert result["device"] == "cpu (2 Ray nodes)" and sorted(finished) == list(range(0, 60, SHORT))
    assert out.read_bytes() == one.read_bytes()


def test_a_batch_joins_the_cluster_once(cluster, tiny_models, tmp_path, monkeypatch, capfd):
    """Its processes, and the networks in them, end with the connection."""
    joined, real = [], ray_engine._connect
    monkeypatch.setattr(ray_engine, "_connect", lambda address: joined.append(address) or real(address))
    sources = [write_clip(tmp_path / name, frames=7) for name in ("a.mkv", "b.mkv")]
    (tmp_path / "broken.mkv").write_text("no video")
    words = ["--model", tiny_models["still"], "--steps", 1, "--engine", "ray", "--address", cluster.address, "--json"]
    assert run([*map(str, ["upscale", *sources, tmp_path / "broken.mkv", "-o", tmp_path / "out", *words])]) == 3
    told = json.loads(capfd.readouterr().out)
    assert (told["restored"], told["failed"]) == (2, 1) and joined == [cluster.address]
    assert all((tmp_path / "out" / source.name).is_file() for source in sources) and not ray.is_initialized()


def test_a_process_keeps_its_networks_from_file_to_file(tiny_models, tmp_path):
    job = Job(probe(write_clip(tmp_path / "in.mkv", frames=1)), tmp_path / "out.mp4")
    model = tiny_models["still"]
    checksums = weights.read_config(model)[1]
    order = ray_task.Order(job, {}, str(model), checksums, load_model, "cpu", torch.float32, 1, 1, "first", None)
    restorer = ray_task._restorer(order)
    assert ray_task._restorer(replace(order, token="second")) is restorer
    assert ray_task._restorer(replace(order, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_task_finds_its_card_by_its_place_among_those_that_its_process_sees(cluster, monkeypatch):
    """Of a node that only says that it has two: both tasks hold one at a time, and each process sees all of them."""

    def look():
        time.sleep(1)
        return ray_task.device_of("cuda"), os.environ.get("CUDA_VISIBLE_DEVICES")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    node = cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=STORE)
    try:
        with ray_engine.RayCluster(cluster.address, "cpu", "fp32"):
            task = ray.remote(look).options(num_gpus=1, runtime_env=ray_engine.ALL_CARDS)
            found = ray.get([task.remote() for _ in range(2)])
    finally:
        cluster.remove_node(node)
    assert sorted(found, key=str) == [(torch.device("cuda", index), "4,7") for index in (0, 1)]
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [1])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert ray_task.device_of("cuda") == torch.device("cuda", 1) and ray_task.device_of("cpu").type == "cpu"


def test_what_cannot_be_is_said_in_one_line(cluster, sdatc, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=7), tmp_path / "out.mp4"
    for words, code, line in (
        (["--address", cluster.address, "--device", "cuda"], 5, "no node of the cluster has one"),
        (["--address", cluster.address, "--device", "cpu,cpu"], 2, "Ray picks the cards"),
        (["--address", "nowhere"], 2, "no Ray cluster there"),
    ):
        got, _, said = sdatc(source, out, "--engine", "ray", *words)
        assert got == code and line in said.splitlines()[-1], said
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
