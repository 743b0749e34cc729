"""Broken files of every container: an error of one line or a result, never a traceback, a crash, a hang.

200 files; SDATC_FUZZ=2000 makes it the long run.
"""

import os
from pathlib import Path

import pytest

from tests.media.fuzz import Worker, fuzz, make_seeds

COUNT = int(os.environ.get("SDATC_FUZZ", "200"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def test_broken_files_end_decently(seeds, tmp_path):
    tally = fuzz(seeds, COUNT, tmp_path)
    print(tally.table())
    assert not tally.faults, "\n".join(map(str, tally.faults))
    assert tally.total("restored") + tally.total("reported") > COUNT / 4 and tally.total("refused") > 0


@pytest.mark.parametrize("apart", [False, True])
def test_whole_files_pass_the_same_way(apart, seeds):
    worker = Worker()
    try:
        for path in seeds[:: 4 if apart else 1]:
            answer = worker._ask(path, apart)
            assert answer["outcome"] == "restored" and answer["frames"] >= 1, (path.name, answer)
    finally:
        worker.close()
