"""The comparison of what two projects learn: batches that are the same, and a verdict by the margin."""

import json

import numpy as np
import pytest

from tests.benchmarks import learning, learning_sides
from tests.benchmarks.learning import compared, verdict
from tests.benchmarks.learning_sides import TOY, Job, ended


def test_the_verdict_goes_by_the_interval_and_the_margin():
    assert verdict(-1.9, 4.0) == "no worse"
    assert verdict(-2.1, 4.0) == "undecided"
    assert verdict(-5.0, -2.1) == "worse"


def test_differences_are_paired_by_seed():
    """Student's t of four degrees of freedom: 2.776 for 95 %."""
    ours, theirs = (31.0, 30.0, 33.0, 30.0, 31.0), (30.0, 29.0, 31.0, 30.0, 29.0)
    runs = [
        {"data": "d", "by": by, "seed": seed, "R@1": score, "R@10": 50.0}
        for by, scores in (("open_clip", theirs), ("mmjax", ours))
        for seed, score in reversed(list(enumerate(scores)))
    ]
    runs.append({"data": "d", "by": "mmjax", "seed": 5, "R@1": 99.0, "R@10": 99.0})  # the other one is still to come
    one, ten = compared(runs)
    assert one["differences"] == [1.0, 1.0, 2.0, 0.0, 2.0]
    half = 2.776 * np.std([1, 1, 2, 0, 2], ddof=1) / np.sqrt(5)
    assert one["interval"] == pytest.approx([1.2 - half, 1.2 + half], abs=0.01)
    assert (one["mean"], one["verdict"]) == (1.2, "no worse")
    assert ten["interval"] == [0.0, 0.0]
    assert compared(runs[:1]) == []


def test_a_text_ends_in_the_highest_id_whatever_its_length():
    batch = {"text": np.array([[7, 2, 0, 0], [5, 6, 7, 2]]), "text_mask": np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)}
    last = TOY.vocab - 1
    assert ended(batch, TOY)["text"].tolist() == [[7, last, 0, 0], [5, 6, 7, last]]
    assert batch["text"][0, 1] == 2


@pytest.mark.slow  # builds the demo data, and trains each side for thirty steps
def test_both_learn_something_from_the_same_batches(tmp_path, monkeypatch, capsys):
    pytest.importorskip("open_clip")
    words = ["learning", "--toy", "--steps", "30", "--seeds", "0", "1", "--json", str(tmp_path / "learning.json")]
    monkeypatch.setattr("sys.argv", words)
    learning.main()
    record = json.loads((tmp_path / "learning.json").read_text())
    assert [(run["by"], run["seed"]) for run in record["runs"]] == [
        (by, s) for s in (0, 1) for by in learning_sides.SIDES
    ]
    for run in record["runs"]:
        assert run["first_loss"] == pytest.approx(np.log(TOY.batch), abs=0.5)
        assert run["last_losses"] < run["first_loss"]
        assert run["R@10"] > 2.6  # chance: ten of 398
    assert {each["score"] for each in record["compared"]} == {"R@1", "R@10"}
    assert "4 of 4: spoken_emoji, seed 1, open_clip" in capsys.readouterr().out
    learning.main()  # what stands in the record isn't trained again
    assert json.loads((tmp_path / "learning.json").read_text())["runs"] == record["runs"]


def test_a_job_is_the_same_in_another_process():
    job = Job("spoken_emoji", 1, [0.1, 0.2], "x.npz", toy=True)
    assert Job(**json.loads(json.dumps(learning.asdict(job)))) == job
    assert job.size is TOY
