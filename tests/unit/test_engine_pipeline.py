"""The three threads: order, bounded memory, and every way of ending early."""

import itertools
import threading
import time

import pytest

from sdatc_cli.engine.pipeline import run


def passing(items):
    yield from items


def test_every_item_arrives_once_and_in_order():
    stored = []
    run(range(500), lambda items: (2 * item for item in items), stored.append)
    assert stored == [2 * item for item in range(500)]


def test_an_empty_source_stores_nothing():
    stored = []
    run([], passing, stored.append)
    assert stored == []


def test_the_stages_run_in_three_threads():
    names = set()

    def note(item):
        names.add(threading.current_thread())
        return item

    run(map(note, range(3)), lambda items: map(note, items), note)
    assert len(names) == 3


def test_a_slow_store_holds_the_source_back():
    fetched = itertools.count()
    ahead = []
    stored = []

    def source():
        for item in range(60):
            next(fetched)
            yield item

    def store(item):
        time.sleep(0.001)
        stored.append(item)
        ahead.append(next(fetched) - len(stored))

    run(source(), passing, store, depth=2)
    assert len(stored) == 60
    assert max(a - i for i, a in enumerate(ahead)) <= 2 + 2 + 4  # two queues and what the three hands hold


@pytest.mark.parametrize("place", ["source", "work", "store"])
def test_an_error_in_any_stage_reaches_the_caller_and_ends_the_threads(place):
    before = threading.active_count()

    def fail_at_5(name, item):
        if name == place and item == 5:
            raise ValueError(name)
        return item

    endless = (fail_at_5("source", item) for item in itertools.count())
    with pytest.raises(ValueError, match=place):
        run(endless, lambda items: (fail_at_5("work", i) for i in items), lambda i: fail_at_5("store", i))
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("spoilt"), KeyboardInterrupt()])
def test_what_was_made_before_an_error_is_stored(error):
    stored = []

    def work(items):
        yield from itertools.islice(items, 4)
        raise error

    def store(item):
        time.sleep(0.01)
        stored.append(item)

    with pytest.raises(type(error)):
        run(range(100), work, store)
    assert stored == [0, 1, 2, 3]


def test_the_first_of_two_errors_is_raised():
    def store(item):
        time.sleep(0.01)
        raise OSError

    def work(items):
        yield next(items)
        raise ValueError

    with pytest.raises(ValueError):
        run(range(100), work, store)


def test_ctrl_c_in_the_work_ends_the_threads():
    before = threading.active_count()

    def work(items):
        yield next(items)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(itertools.count(), work, lambda item: None)
    assert threading.active_count() == before


def test_timing_tells_waiting_from_working():
    def slow_source():
        for item in range(5):
            time.sleep(0.02)
            yield item

    timing = run(slow_source(), passing, lambda item: None)
    assert timing.total >= timing.waited_for_input > timing.working >= 0
