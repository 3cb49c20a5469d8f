"""Transforms of a whole record: beside the same mixture without them, and seen by all that reads the data."""

import dataclasses
import itertools
import logging
import pickle
from dataclasses import dataclass
from typing import Any

import fiddle
import numpy as np
import pytest

from mmjax.data import cuts
from mmjax.data.bad_example import KINDS, BadExample
from mmjax.data.evaluation import evaluation_batches, raw
from mmjax.data.paths import File
from mmjax.data.pipeline import Mixture, batches, examples, prepare, random_stream
from mmjax.data.record_transforms import STREAM, RecordTransforms
from mmjax.data.sources.contents import ReadFile
from mmjax.data.sources.contract import Records, Source
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, RandomGain
from mmjax.data.transforms.contract import RecordTransform
from mmjax.data.transforms.image import Decode, RandomAffine, Resize
from mmjax.data.transforms.record import CopyInput, PickTogether
from mmjax.data.transforms.text import Lowercase, PickCaption, Tokenize
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes

WORDS = SentencePiece(64)
TEXT = (PickCaption(), Lowercase(), Tokenize(WORDS, 12))
TRANSFORMS = {
    "image": (Decode(), Resize(8), RandomAffine(0.5)),
    "text": TEXT,
    "audio": (DecodeAudio(), RandomGain(), CropOrPad(200)),
}


@dataclass(frozen=True)
class Rows(Source, Records):
    """Six records in memory, in every split. Item i of record r's pictures and captions is of level 40 r + 10 i."""

    def open(self, split: str, data_dir: str | None = None) -> "Rows":
        del split, data_dir
        return self

    columns = ("id", "image", "pictures", "text", "audio", "level")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "id": f"r{index}",
            "image": picture_bytes((40 * index,) * 3),
            "pictures": [picture_bytes((40 * index + 10 * i,) * 3) for i in range(3)],
            "text": [f"level {40 * index + 10 * i}" for i in range(3)],
            "audio": np.full(300, index, np.int16),
            "level": index,
        }


@dataclass(frozen=True)
class Same(RecordTransform):
    """Changes nothing, and draws."""

    random = True

    def __call__(self, record: dict[str, Any], rng: np.random.Generator | None) -> dict[str, Any]:
        if rng is not None:
            rng.integers(10, size=5)
        return record


@dataclass(frozen=True)
class CropAlike(RecordTransform):
    """The same square of `image` and `depth`, which it makes of the picture, drawn anew each time."""

    random = True
    size: int = 6

    def __call__(self, record: dict[str, Any], rng: np.random.Generator | None) -> dict[str, Any]:
        record.pop("audio")  # of a copy: the source's stays
        picture = np.arange(144, dtype=np.uint8).reshape(12, 12)[..., None].repeat(3, axis=-1)
        y, x = (0, 0) if rng is None else rng.integers(12 - self.size + 1, size=2)
        cut = picture[y : y + self.size, x : x + self.size]
        return {**record, "image": cut, "depth": 255 - cut, "id": "another"}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, "depth")


@dataclass(frozen=True)
class OnlyBelow(RecordTransform):
    level: int

    def __call__(self, record: dict[str, Any], rng: np.random.Generator | None) -> dict[str, Any]:
        if record["level"] >= self.level:
            raise BadExample(f"level {record['level']} is too high", "unfit")
        return record


MIXTURE = Mixture({"rows": 1.0}, TRANSFORMS, {"rows": Rows()})
COPIED = {**TRANSFORMS, "caption_2": TEXT, "image_2": TRANSFORMS["image"]}
COPIES = (CopyInput("text", "caption_2"), CopyInput("image", "image_2"))
CROPPED = {"image": (Resize(6),), "depth": (Resize(6),), "text": TEXT}
PICTURES = (Decode(), Resize(8))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def ready(data_dir):
    """Makes MIXTURE ready, with other fields; tokenizers are trained once."""
    trained = prepare(MIXTURE, data_dir=data_dir).chains.tokenizers

    def make(**fields):
        mixture = dataclasses.replace(MIXTURE, **fields)
        return prepare(mixture, data_dir=data_dir, tokenizers=dict(trained))

    return make


def take(count, prepared, **more):
    stream = batches(prepared, **{"batch_size": 4, "seed": 3, **more})
    taken = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return taken


def assert_same(first, second, names=None):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert names or one.keys() == other.keys()
        for name in names or one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def plain(ready):
    return take(4, ready())


def test_one_that_changes_nothing_changes_no_draw_of_the_chains(ready, plain):
    assert_same(take(4, ready(record_transforms=(Same(), Same()))), plain)
    assert plain[0]["image"].std(axis=(1, 2, 3)).min() > 0  # the chains do draw


def test_a_copied_input_is_drawn_by_its_own_chain_and_the_others_stay(ready, plain):
    prepared = ready(transforms=COPIED, record_transforms=COPIES)
    found = take(4, prepared)
    assert_same(found, plain, names=list(plain[0]))
    decode = prepared.chains.tokenizers["caption_2"].decode
    drawn = set()
    for batch in found:
        assert batch["image_2_valid"].all()
        assert (batch["image_2"] != batch["image"]).any(axis=(1, 2, 3)).all()  # two views
        for row in range(4):
            pair = [decode(batch[name][row][batch[f"{name}_mask"][row]].tolist()) for name in ("text", "caption_2")]
            levels = [int(text.split()[1]) for text in pair]
            assert levels[0] // 40 == levels[1] // 40
            drawn.add(levels[0] == levels[1])
    assert drawn == {True, False}


def test_chains_that_describe_a_tokenizer_alike_have_one(data_dir):
    other = (PickCaption(), Tokenize(dataclasses.replace(WORDS, vocab_size=60), 12))
    chains = {"text": TEXT, "caption_2": TEXT, "caption_3": other}
    copies = (CopyInput("text", "caption_2"), CopyInput("text", "caption_3"))
    mixture = dataclasses.replace(MIXTURE, transforms=chains, record_transforms=copies)
    models = prepare(mixture, data_dir=data_dir).chains.tokenizers
    assert models["caption_2"] is models["text"]
    assert models["caption_3"].model != models["text"].model
    again = prepare(mixture, data_dir=data_dir, tokenizers={"text": models["text"]}).chains.tokenizers
    assert again["caption_2"] is models["text"]


def cropped(ready, **more):
    return ready(transforms=CROPPED, record_transforms=(CopyInput("image", "depth"), CropAlike()), **more)


def test_two_inputs_get_the_same_crop_and_the_id_stays(ready):
    prepared = cropped(ready)
    found = take(4, prepared)
    corners = set()
    for step, batch in enumerate(found):
        np.testing.assert_array_equal(batch["depth"], 255 - batch["image"])
        corners |= set(batch["image"][:, 0, 0, 0].tolist())
        told = [id for _, id in examples(prepared, batch_size=4, seed=3, step=step)]
        assert set(told) <= {f"r{i}" for i in range(6)}
    assert len(corners) > 5  # an example's is drawn anew each time
    np.testing.assert_array_equal(found[0]["id"], take(1, ready())[0]["id"])
    ((batch, columns),) = evaluation_batches(prepared, "test", 8)
    assert set(batch["image"][:6, 0, 0, 0].tolist()) == {0}
    assert columns["id"] == [f"r{i}" for i in range(6)]
    assert batch["depth_valid"].tolist() == [True] * 6 + [False] * 2


@pytest.mark.parametrize("transforms", [(Same(), CropAlike()), (CropAlike(), CopyInput("image", "depth"))], ids=len)
def test_the_stream_is_one_for_any_step_host_worker_and_cache(ready, transforms):
    fields = {"transforms": CROPPED, "record_transforms": (CopyInput("image", "depth"), *transforms)}
    whole = take(4, ready(**fields))
    assert_same(take(2, ready(**fields), step=2), whole[2:])
    halves = [take(4, ready(**fields), host=(index, 2)) for index in range(2)]
    joined = [
        {name: np.concatenate([half[name] for half in pair]) for name in pair[0]} for pair in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)
    assert_same(take(4, ready(**fields, cache=True)), whole)


def test_kept_examples_and_those_of_other_processes_are_the_same(ready):
    fields = {"transforms": COPIED, "record_transforms": COPIES}
    whole = take(3, ready(**fields))
    assert_same(take(3, ready(**fields, cache=True)), whole)
    there = pickle.loads(pickle.dumps(ready(**fields)))
    assert_same(take(3, there), whole)


def test_what_is_kept_was_read_and_a_transform_gets_its_own_copy(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    record = {"id": "r", "image": File(str(path))}
    begun = RecordTransforms((CopyInput("image", "image_2"), Same()), ("image",)).begin(record)
    assert begun["image_2"] == ReadFile(str(path), b"picture")
    assert record == {"id": "r", "image": File(str(path))}


def test_a_bad_record_is_bad_in_every_input(ready, caplog):
    with caplog.at_level(logging.WARNING):
        for cache in (False, True):
            found = take(3, ready(record_transforms=(OnlyBelow(3), Same()), cache=cache))
            marks = {name: np.concatenate([batch[f"{name}_bad"] for batch in found]) for name in TRANSFORMS}
            for name, mark in marks.items():
                assert sorted(mark.tolist()) == [0] * 6 + [KINDS.index("unfit") + 1] * 6
                np.testing.assert_array_equal(mark, marks["image"])
                for batch in found:
                    np.testing.assert_array_equal(batch[f"{name}_valid"], batch[f"{name}_bad"] == 0)
                    assert not batch[name][~batch[f"{name}_valid"]].any()
    assert "is left out: level 3 is too high" in caplog.text
    assert caplog.text.count("further ones are not named") == 1  # those that are kept are made once
    ((batch, columns),) = evaluation_batches(ready(record_transforms=(OnlyBelow(3),)), "test", 6)
    assert batch["text_valid"].tolist() == [True] * 3 + [False] * 3
    assert columns["text"] == ["level 0", "level 40", "level 80", None, None, None]
    assert columns["level"] == list(range(6))


def test_what_belongs_together_is_picked_together(ready):
    together = PickTogether(("pictures", "text"))
    chains = {"pictures": PICTURES, "text": (Tokenize(WORDS, 12),)}
    prepared = ready(transforms=chains, record_transforms=(together,))
    seen = set()
    for batch in take(6, prepared):
        for row in range(4):
            ids = batch["text"][row][batch["text_mask"][row]].tolist()
            level = int(prepared.chains.tokenizers["text"].decode(ids).split()[1])
            assert (batch["pictures"][row] == level).all()
            seen.add(level % 40)
    assert seen == {0, 10, 20}
    ((batch, columns),) = evaluation_batches(prepared, "test", 6)
    assert columns["text"] == [f"level {40 * i}" for i in range(6)]
    assert batch["pictures"][:, 0, 0, 0].tolist() == [40 * i for i in range(6)]
    assert raw(prepared, "test", 2, "text") == "level 80"
    record = {"id": "r", "pictures": [1, 2], "text": {"en": "a", "de": "b"}, "audio": None}
    picked = PickTogether(("pictures", "text", "audio", "video"))(record, np.random.default_rng(1))
    assert (picked["pictures"], picked["text"]) in ((1, "a"), (2, "b"))
    assert picked["audio"] is None
    for broken, told in (({"text": ["a"]}, "2 of pictures, 1 of text"), ({"pictures": [], "text": []}, "no pictures")):
        with pytest.raises(BadExample, match=told):
            together({**record, **broken}, None)


def test_evaluation_and_samples_see_what_was_made(ready):
    prepared = ready(transforms=COPIED, record_transforms=COPIES)
    ((batch, columns),) = evaluation_batches(prepared, "test", 6, columns=("id", "caption_2"))
    assert columns["caption_2"] == [f"level {40 * i}" for i in range(6)]
    np.testing.assert_array_equal(batch["caption_2"], batch["text"])
    lengths = cuts.sampled(prepared.chains, prepared.open("train"), 0, prepared.record_transforms)
    assert sorted(found.modality for found in lengths) == ["audio", "caption_2", "text"]
    assert {len(found.lengths) for found in lengths} == {6}
    plain = cuts.sampled(ready().chains, prepared.open("train"), 0)
    same = cuts.sampled(ready().chains, prepared.open("train"), 0, RecordTransforms((Same(),), tuple(TRANSFORMS)))
    assert plain == same
    fewer = RecordTransforms((OnlyBelow(2),), tuple(TRANSFORMS))
    assert {len(x.lengths) for x in cuts.sampled(ready().chains, prepared.open("train"), 0, fewer)} == {2}


def test_encoding_what_is_at_hand_needs_no_record(ready):
    chains = ready(record_transforms=(OnlyBelow(0),)).chains
    assert chains.encode(text=["level 3"])["text_valid"].all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"record_transforms": (Decode(),)},
            r"Decode\(.*\) is no RecordTransform: a transform of one input",
        ),
        (
            {"transforms": {"text": (Same(), *TEXT)}},
            r"'text'.*Same\(\) changes the whole record: it goes into",
        ),
        (
            {"transforms": {**TRANSFORMS, "caption_2": TEXT}, "record_transforms": (CopyInput("names", "caption_2"),)},
            r"'caption_2'.*no source has such a modality.*; what a record transform adds, its columns\(\) names",
        ),
    ],
)
def test_what_cannot_be_is_named(ready, fields, message):
    with pytest.raises((UserError, ValueError), match=message):
        ready(**fields).open("train")


def test_one_that_gives_no_record_is_told():
    class Nothing(RecordTransform):
        def __call__(self, record, rng):
            return None  # type: ignore[return-value]

    with pytest.raises(UserError, match="gave None: a record transform gives the record, a dict"):
        RecordTransforms((Nothing(),), ("text",))({"id": "r"}, lambda name: None)


def test_a_mixture_with_them_is_plain_enough_for_a_record():
    config = fiddle.Config(Mixture, MIXTURE.weights, {}, {}, record_transforms=COPIES)
    assert fiddle.build(config).record_transforms == COPIES


def test_streams_of_other_names_seeds_and_places_give_other_numbers():
    drawn = {
        key: tuple(random_stream(*key).integers(2**32, size=4))
        for key in ((0, 5, STREAM), (0, 5, "image"), (0, 5, "text"), (1, 5, "image"), (0, 6, "image"))
    }
    assert len(set(drawn.values())) == len(drawn)
    assert drawn[0, 5, "image"] == tuple(random_stream(0, 5, "image").integers(2**32, size=4))
