"""What several hosts read is one batch, and what one of them knows all of them know."""

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest

from mmjax.data.pipeline import batches
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from tests.multiprocess.launcher import Group, launch
from tests.trained import tiny_config


@dataclass(frozen=True)
class Heard:
    """What the workers wrote, by process; and the batches that one process alone reads."""

    workers: list[dict]
    alone: list[dict]


# Four hosts, of which two share each half of a batch, take twice the time: what each reads, tests/runtime/test_hosts.py
# holds; what they tell each other is said by any number of them with the same words.
SHAPES = ((2, 4), pytest.param((4, 2), marks=pytest.mark.slow))  # processes, and devices of each


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def heard(request, table, tmp_path_factory) -> Heard:
    processes, devices = request.param
    folder = tmp_path_factory.mktemp("workers")
    words = ("-m", "tests.multiprocess.worker", str(folder), table)
    ended = launch(*words, processes=processes, devices=devices)
    assert ended.codes == [0] * processes, str(ended)
    data = prepared(build(tiny_config(table, name="couple")).data, folder / "workdir")
    stream = batches(data, batch_size=16, seed=0, step=3)
    alone = [{name: next_[name].tolist() for name in ("index", "id", "text")} for next_ in (next(stream), next(stream))]
    return Heard([json.loads((folder / f"{i}.json").read_text()) for i in range(processes)], alone)


@pytest.mark.parametrize("mesh", ["data", "fsdp", "halves", "tensor"])
def test_the_batch_is_the_one_that_a_single_host_reads_in_its_order(heard: Heard, mesh):
    for worker in heard.workers:
        assert worker["read"][mesh]["batches"] == heard.alone


def test_a_mesh_of_woven_hosts_permutes_the_batch_and_index_tells_how(heard: Heard):
    for worker in heard.workers:
        for found, alone in zip(worker["read"]["woven"]["batches"], heard.alone, strict=True):
            assert found["index"] != alone["index"]
            order = np.argsort(found["index"])
            for name in ("index", "id", "text"):
                np.testing.assert_array_equal(np.array(found[name])[order], alone[name])


def test_hosts_read_no_more_than_their_part(heard: Heard):
    count = len(heard.workers)
    parts = {mesh: [worker["read"][mesh]["part"] for worker in heard.workers] for mesh in heard.workers[0]["read"]}
    assert parts["data"] == parts["woven"] == [[i, count] for i in range(count)]
    assert parts["halves"] == [[2 * i // count, 2] for i in range(count)]  # of four hosts two share each half
    assert parts["tensor"] == [[0, 1]] * count
    assert heard.workers[0]["rows"][0] == f"{16 // count} rows"


def test_what_one_knows_all_know(heard: Heard):
    count = len(heard.workers)
    for worker in heard.workers:
        assert worker["told"] == [[0, 3_000_000, 0], *([i, i, i] for i in range(1, count))]
        assert worker["first"] == "said by 0"


def test_what_fails_on_one_fails_on_all_with_its_words(heard: Heard):
    count = len(heard.workers)
    for index, worker in enumerate(heard.workers):
        last = "" if index == count - 1 else f"host {count - 1} of {count}: "
        assert worker["error of the last"] == f"UserError: {last}my disk is gone"
        first = f"UserError: host 0 of {count}: KeyError: 'key'" if index else "KeyError: 'key'"
        assert worker["error of the first"] == first


def test_a_number_that_one_gives_all_get_one_call_later(heard: Heard):
    assert [worker["largest"] for worker in heard.workers] == [[0, 0, 15, 0]] * len(heard.workers)


def test_counts_are_summed_over_the_hosts_each_once(heard: Heard):
    count = len(heard.workers)
    assert [worker["totals"] for worker in heard.workers] == [[[2 * count, 20 * sum(range(count))]] * 3] * count


def test_arrays_go_out_and_come_back_whole(heard: Heard):
    for worker in heard.workers:
        assert worker["whole"] == {"a": list(range(8)), "b": 3}
        assert worker["sharded"] == list(range(8))
        assert worker["replaced"] == [0, 0]


def test_waiting_is_for_the_slowest(heard: Heard):
    assert all(worker["waited"] >= 0.5 for worker in heard.workers)  # host 0 slept a second, maybe while others came


def test_host_0_goes_on_serving_until_the_others_are_gone():
    """Else gRPC now and then aborts it at the very end, on a machine that is busy."""
    left = {}

    def watch(group: Group) -> None:
        for index in (1, 0):
            group.wait(index)
            left[index] = time.monotonic()

    ended = launch("-c", "from mmjax.runtime import hosts; hosts.LINGER = 6; hosts.join()", devices=1, meanwhile=watch)
    assert ended.codes == [0, 0], str(ended)
    assert left[0] - left[1] > 2
