"""What is longer than the model reads is counted exactly, by source and modality, and a sample says how long it is."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mmjax.data import cuts
from mmjax.data.chains import Chains, identity, stack
from mmjax.data.cuts import Cuts, Lengths, sampled
from mmjax.data.sources.contract import Records
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, RandomSpeed
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import PickCaption, Tokenize
from tests.data.conftest import picture_bytes

WORDS = SentencePiece(100, model_type="word")
ENDED = 1  # the token that ends each text
TRANSFORMS = {
    "image": (Decode(), Resize(8)),
    "text": (PickCaption(), Tokenize(WORDS, 4)),
    "audio": (DecodeAudio(), CropOrPad(100)),
}


@dataclass
class Some(Records):
    """Records at hand."""

    rows: list[dict[str, Any]]
    columns: tuple[str, ...] = ("id", "image", "text", "audio")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.fixture(scope="module")
def chains() -> Chains:
    return Chains(TRANSFORMS, {"text": PieceTokenizer(WORDS.train(["red cat", "blue dog"]))})


def record(words: int | None = None, samples: int | None = None) -> dict[str, Any]:
    text = None if words is None else " ".join(["red"] * words)
    return {"id": "r", "text": text, "audio": None if samples is None else np.ones(samples, np.int16)}


def test_a_batch_is_counted_by_source_and_modality(chains: Chains):
    rows = [  # source, and whether its text and its sound are cut; None: not there
        ("a", record(words=3, samples=100), (False, False)),
        ("a", record(words=4, samples=100), (True, False)),
        ("a", record(words=9, samples=101), (True, True)),
        ("a", record(samples=500), (None, True)),
        ("b", record(words=0, samples=7), (None, False)),  # an empty caption is bad
        ("a", record(), (None, None)),
    ]
    counts = Cuts(("a", "b", "c"), chains)
    assert counts.modalities == ("text", "audio")
    made = []
    for place, (source, one, _) in enumerate(rows):
        row, cut = chains.row_and_cuts(one, lambda modality: None)
        made.append(row | identity(place, source, "r") | counts.entry(source, cut))
    plain = stack([chains.row(one, lambda modality: None) | identity(i, s, "r") for i, (s, one, _) in enumerate(rows)])
    given = stack(made)
    (batch,) = counts.counted(iter([given]), step=6)
    assert batch.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(batch[name], array)
    found = counts.take(7)
    for number, source in enumerate(counts.sources):
        marks = [mark for name, _, mark in rows if name == source]
        either = [any(m is True for m in mark) for mark in marks if mark != (None, None)]
        assert found[number, 0].tolist() == [sum(either), len(either)]
        for column in (0, 1):
            there = [mark[column] for mark in marks if mark[column] is not None]
            assert found[number, 1 + column].tolist() == [sum(there), len(there)]
    assert found[0].tolist() == [[3, 4], [2, 3], [2, 4]]
    assert found[2].tolist() == [[0, 0]] * 3


def test_pictures_alone_have_nothing_to_cut():
    counts = Cuts(("a",), Chains({"image": TRANSFORMS["image"]}, {}))
    row = {"image_valid": np.array(True)} | counts.entry("a", ())
    (batch,) = counts.counted(iter([stack([row] * 3)]), step=0)
    assert batch.keys() == {"image_valid"}
    assert counts.take(1).tolist() == [[[0, 0]]]


def test_counts_of_steps_that_nobody_asked_for_are_forgotten(chains: Chains):
    counts = Cuts(("a",), chains)
    row = chains.row({}, lambda modality: None) | counts.entry("a", ())
    for _ in counts.counted(iter([stack([row])] * 5), step=0):
        pass
    counts.take(4)
    assert list(counts._counts) == [5]


def test_a_chain_says_how_long_the_whole_is_and_nothing_of_what_is_bad(chains: Chains, caplog):
    for words, samples in ((1, 3), (3, 100), (4, 101), (30, 4_000)):
        assert chains.length(record(words=words), "text", None) == words + ENDED
        assert chains.length(record(samples=samples), "audio", None) == samples
    assert chains.length(record(words=0), "text", None) is None
    assert chains.length(record(), "audio", None) is None
    assert chains.length({"image": picture_bytes((0, 0, 0))}, "image", None) is None
    assert not caplog.records


def test_the_length_that_holds_a_share_is_one_of_those_there():
    found = Lengths("a", "text", tuple(range(1, 101)))
    assert (found.longer(97), found.longer(100)) == (3, 0)
    assert (found.holds(0.99), found.holds(1.0), found.holds(0.5)) == (99, 100, 50)
    assert Lengths("a", "text", (5, 9)).holds(0.99) == 9


def test_a_sample_is_of_every_source_and_no_larger_than_said(chains: Chains, monkeypatch):
    monkeypatch.setattr(cuts, "SAMPLE", 10)
    few = Some([record(words=2), record(words=7, samples=30), record(words=0)])
    many = Some([record(samples=n) for n in range(1, 1_001)], columns=("id", "audio"))
    silent = Some([{"id": "r"}], columns=("id", "image"))
    found = {
        (one.source, one.modality): one.lengths for one in sampled(chains, {"few": few, "many": many, "x": silent}, 0)
    }
    assert found.keys() == {("few", "text"), ("few", "audio"), ("many", "audio")}
    assert sorted(found["few", "text"]) == [2 + ENDED, 7 + ENDED]
    assert found["few", "audio"] == (30,)
    drawn = found["many", "audio"]
    assert len(set(drawn)) == 10
    assert max(drawn) > 500  # not the first ones
    again = sampled(chains, {"many": many}, 0)
    assert again[0].lengths == drawn


def test_a_sample_takes_no_more_time_than_it_may(chains: Chains, monkeypatch):
    class Slow(Some):
        def __getitem__(self, index: int) -> dict[str, Any]:
            time.sleep(0.05)
            return super().__getitem__(index)

    monkeypatch.setattr(cuts, "SECONDS", 0.2)
    slow = {name: Slow([record(words=2)] * 100) for name in ("a", "b")}
    found = sampled(chains, slow, 0)
    assert [(one.source, one.modality) for one in found] == [("a", "text"), ("b", "text")]
    assert all(1 <= len(one.lengths) <= 3 for one in found)


def test_lengths_are_those_of_training():
    chains = Chains({"audio": (DecodeAudio(), RandomSpeed((0.5, 0.5)), CropOrPad(100))})
    (found,) = sampled(chains, {"a": Some([record(samples=80)], columns=("audio",))}, 0)
    assert found.lengths == (160,)
