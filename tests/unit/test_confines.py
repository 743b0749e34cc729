"""What a container lets a process have, read from files as Linux writes them."""

from pathlib import Path

import psutil
import pytest
import torch

from sdatc_cli.engine import confines, cores, memory

GIB = 1 << 30


def system(tmp_path: Path, own: str, **files: str) -> tuple[Path, Path]:
    """The root of the control groups and the file that names the process's own; names with "__" for "/"."""
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("_IN_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    return tmp_path / "cgroup", tmp_path / "own"


def test_limits_of_version_2_hold_with_those_above(tmp_path: Path) -> None:
    at = system(
        tmp_path,
        "0::/pod/box\n",
        pod__memory_IN_max=str(4 * GIB),
        pod__memory_IN_current=str(3 * GIB),
        pod__memory_IN_stat=f"anon 5\ninactive_file {GIB // 2}\nactive_file 7",
        pod__box__memory_IN_max="max",
        pod__box__memory_IN_current=str(GIB),
        pod__cpu_IN_max="max 100000",
        pod__box__cpu_IN_max="250000 100000",
    )
    assert confines.memory_left(*at) == GIB + GIB // 2
    assert confines.processors(*at) == 2.5


def test_inside_a_container_of_version_2_the_files_lie_at_the_root(tmp_path: Path) -> None:
    at = system(tmp_path, "0::/\n", memory_IN_max=str(GIB), memory_IN_current=str(2 * GIB), cpu_IN_max="50000 100000")
    assert confines.memory_left(*at) == 0, "more is in use than it may be: nothing is left"
    assert confines.processors(*at) == 0.5


def test_limits_of_version_1(tmp_path: Path) -> None:
    own = "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"
    at = system(
        tmp_path,
        own,
        memory__memory_IN_limit_in_bytes=str(2 * GIB),
        memory__memory_IN_usage_in_bytes=str(GIB),
        memory__memory_IN_stat="cache 1\ntotal_inactive_file 1000",
        cpu__cpu_IN_cfs_quota_us="300000",
        cpu__cpu_IN_cfs_period_us="100000",
    )
    assert confines.memory_left(*at) == GIB + 1000, "that of the container's own root"
    assert confines.processors(*at) == 3


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory_IN_max": "max", "memory_IN_current": "5", "cpu_IN_max": "max 100000"},
        {"memory_IN_max": "many", "memory_IN_current": "5", "cpu_IN_max": "1 0"},
        {"memory__memory_IN_limit_in_bytes": str((1 << 63) - 4096), "memory__memory_IN_usage_in_bytes": "5"},
        {"cpu__cpu_IN_cfs_quota_us": "-1", "cpu__cpu_IN_cfs_period_us": "100000"},
    ],
)
def test_no_limit(files: dict[str, str], tmp_path: Path) -> None:
    at = system(tmp_path, "4:memory:/\n1:cpu:/\n0::/\n", **files)
    assert confines.memory_left(*at) is None and confines.processors(*at) is None
    assert confines.memory_left(at[0], tmp_path / "nowhere") is None, "another system"


def test_a_container_s_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "memory_left", lambda: None)
    assert 0 < memory.free_bytes(cpu) < psutil.virtual_memory().total
    monkeypatch.setattr(memory, "memory_left", lambda: 12345)
    assert memory.free_bytes(cpu) == 12345
    monkeypatch.setattr(cores, "processors", lambda: None)
    machine = cores.cores()
    monkeypatch.setattr(cores, "processors", lambda: 0.3)
    assert cores.cores() == 1 <= machine
    monkeypatch.setattr(cores, "processors", lambda: 1e6)
    assert cores.cores() == machine


def test_no_more_threads_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "processors", lambda: 1.0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        cores.confine_torch()
        assert torch.get_num_threads() == 3, "as was asked for"
        monkeypatch.delenv("OMP_NUM_THREADS")
        cores.confine_torch()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
