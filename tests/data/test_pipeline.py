import dataclasses
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fiddle
import numpy as np
import pytest

from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture, batch_spec, batches, cuts_of, examples, prepare
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.sources.tfds import Tfds
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance, RandomGain
from mmjax.data.transforms.image import ColorJitter, Decode, RandomAffine, Resize
from mmjax.data.transforms.text import Lowercase, PickCaption, Tokenize
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes, write_folder

TRANSFORMS = {
    "image": (Decode(), Resize(8), RandomAffine(0.2)),
    "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(64), 12)),
    "audio": (PickUtterance(), DecodeAudio(), RandomGain(), CropOrPad(200)),
}


@pytest.fixture(scope="module")
def data_dir(tfds_dir) -> str:
    return tfds_dir


@pytest.fixture(scope="module")
def mixture(folder_table, data_dir) -> Mixture:
    sources = {"own": Folder(folder_table), "toy": Tfds("toy", data_dir=data_dir)}
    return Mixture({"own": 3.0, "toy": 1.0}, TRANSFORMS, sources)


@pytest.fixture(scope="module")
def prepared(mixture, data_dir):
    return prepare(mixture, data_dir=data_dir)


def take(count, *args, **kwargs):
    stream = batches(*args, **kwargs)
    taken = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return taken


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def stream(prepared):
    return take(12, prepared, batch_size=16, seed=3)


def test_a_batch_is_what_the_spec_says(mixture, stream):
    spec = batch_spec(mixture, 16)
    for batch in stream[:2]:
        assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in spec.items()}
        assert batch["index"].tolist() == list(range(16))
        assert all(batch[f"{modality}_valid"].all() for modality in TRANSFORMS)
    assert sum(array.strides[0] for array in batch_spec(mixture, 2**20).values()) == 0  # no memory


def test_what_was_cut_is_counted_beside_the_batches_which_stay_the_same(prepared, stream):
    counts = [cuts_of(prepared) for _ in range(3)]
    whole = take(5, prepared, batch_size=16, seed=3, step=2, cuts=counts[0])
    assert_same(whole, stream[2:7])
    halves = [
        take(5, prepared, batch_size=16, seed=3, step=2, host=(index, 2), cuts=counts[1 + index]) for index in range(2)
    ]
    assert_same([_joined(parts) for parts in zip(*halves, strict=True)], whole)
    for step in range(3, 8):
        found, *parts = (one.take(step) for one in counts)
        np.testing.assert_array_equal(found, sum(parts))
        own = [source == "own" for source, _ in examples(prepared, batch_size=16, seed=3, step=step - 1)]
        assert found[0, :, 1].tolist() == [sum(own)] * 3  # anything, text, audio
        assert found[1, :, 1].tolist() == [16 - sum(own)] * 3
        assert found[0, 2].tolist() == [sum(own)] * 2  # 0.02 s, of which the chain keeps 200 samples


@pytest.mark.parametrize("count", [2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_hosts(prepared, stream, count):
    hosts = [take(4, prepared, batch_size=16, seed=3, host=(index, count)) for index in range(count)]
    joined = [_joined(parts) for parts in zip(*hosts, strict=True)]
    assert_same(joined, stream[:4])


@pytest.mark.parametrize("step", [1, 7, 11])
def test_resuming_at_a_step_goes_on_bit_for_bit(prepared, stream, step):
    assert_same(take(12 - step, prepared, batch_size=16, seed=3, step=step), stream[step:])
    rest = take(12 - step, prepared, batch_size=16, seed=3, step=step, host=(1, 2))
    assert_same(rest, [{name: value[8:] for name, value in batch.items()} for batch in stream[step:]])


def test_seeking_far_costs_nothing_and_the_seed_decides(prepared, stream):
    (far,) = take(1, prepared, batch_size=16, seed=3, step=10**9)
    assert far["image_valid"].all()
    (other,) = take(1, prepared, batch_size=16, seed=4)
    assert (other["id"] != stream[0]["id"]).any()


def test_worker_processes_give_the_same_stream(prepared, stream, monkeypatch):
    monkeypatch.setattr(prepared, "mixture", dataclasses.replace(prepared.mixture, workers=2))
    assert_same(take(4, prepared, batch_size=16, seed=3, step=2), stream[2:6])
    assert multiprocessing.active_children() == []


def test_keeping_examples_in_memory_gives_the_same_stream(prepared, stream, monkeypatch):
    monkeypatch.setattr(prepared, "mixture", dataclasses.replace(prepared.mixture, cache=True))
    assert_same(take(12, prepared, batch_size=16, seed=3), stream)


def test_each_source_comes_by_its_weight_and_each_epoch_in_an_order_of_its_own(mixture, prepared, data_dir):
    ids = np.concatenate([batch["id"] for batch in take(20, prepared, batch_size=14, seed=0)])
    counts = Counter(map(tuple, ids.tolist()))
    own = {tuple(id) for batch, _ in _all(mixture, "own", data_dir) for id in batch["id"].tolist()}
    drawn = [tuple(id) for id in ids.tolist() if tuple(id) in own]
    assert len(drawn) == 210  # of 280, at 3 : 1
    assert set(counts[id] for id in own) == {6}  # 35 examples in 6 epochs, each once an epoch
    epochs = [drawn[35 * e : 35 * (e + 1)] for e in range(6)]
    assert all(set(epoch) == own for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    shifted = [tuple(id) for batch in take(20, prepared, batch_size=14, seed=1) for id in batch["id"].tolist()]
    assert [id for id in shifted if id in own][:35] != epochs[1]  # seed 1 isn't seed 0 an epoch later


def _all(mixture, name, data_dir, split="train"):
    alone = dataclasses.replace(mixture, weights={name: 1.0}, sources={name: mixture.sources[name]})
    return [
        (
            {key: value[: len(columns["id"])] for key, value in batch.items()},
            columns,
        )
        for batch, columns in evaluation_batches(prepare(alone, data_dir=data_dir), split, 8)
    ]


def test_an_example_is_augmented_anew_each_time_and_alike_in_all_runs(prepared, stream):
    by_id: dict[tuple[int, ...], set[bytes]] = {}
    for batch in stream:
        for id, image in zip(batch["id"].tolist(), batch["image"], strict=True):
            by_id.setdefault(tuple(id), set()).add(image.tobytes())
    repeated = [pictures for pictures in by_id.values() if len(pictures) > 1]
    assert len(repeated) > 10
    assert_same(take(2, prepared, batch_size=16, seed=3), stream[:2])


def test_a_change_of_one_chain_leaves_the_other_draws_alone(mixture, data_dir, stream):
    changed = {**TRANSFORMS, "image": (Decode(), Resize(8), RandomAffine(0.2), ColorJitter(0.1))}
    (batch,) = take(
        1, prepare(dataclasses.replace(mixture, transforms=changed), data_dir=data_dir), batch_size=16, seed=3
    )
    np.testing.assert_array_equal(batch["audio"], stream[0]["audio"])
    assert (batch["image"] != stream[0]["image"]).any()


def test_a_source_may_lack_a_modality_and_an_example_may_be_broken(tmp_path, data_dir):
    table = write_folder(tmp_path, 8)
    (tmp_path / "3.png").write_bytes(b"broken")
    sources = {
        "silent": Folder(_without_sound(table)),
        "toy": Tfds("toy", data_dir=data_dir),
    }
    mixed = prepare(Mixture({"silent": 1, "toy": 1}, TRANSFORMS, sources), data_dir=str(tmp_path))
    batch = _joined(take(2, mixed, batch_size=14, seed=0))
    assert batch["audio_valid"].sum() == 14
    assert not batch["audio"][~batch["audio_valid"]].any()
    assert not batch["audio_mask"][~batch["audio_valid"]].any()
    assert batch["image_valid"].sum() == 28 - 2  # the broken one, once in each of two epochs
    assert not batch["image"][~batch["image_valid"]].any()


def _joined(taken):
    return {name: np.concatenate([batch[name] for batch in taken]) for name in taken[0]}


def _without_sound(table: Path) -> str:
    rows = [line.split(",") for line in table.read_text().splitlines()]
    silent = table.with_name("silent.csv")
    silent.write_text("\n".join(",".join(cell for i, cell in enumerate(row) if i != 2) for row in rows))
    return str(silent)


def test_evaluation_gives_each_example_once_in_order_with_its_columns(prepared):
    found = list(evaluation_batches(prepared, "test", 4))
    assert [len(columns["id"]) for _, columns in found] == [4, 4, 3]
    ids = [id for _, columns in found for id in columns["id"]]
    assert ids[:5] == ["7.png", "15.png", "23.png", "31.png", "39.png"]
    assert set(ids[5:]) == {f"toy-{i}" for i in range(24, 30)}
    last, columns = found[-1]
    assert last["image_valid"].tolist() == [True] * 3 + [False]
    assert not last["image"][3].any()
    assert not last["text_mask"][3].any()
    assert last["index"].tolist() == [0, 1, 2, 3]
    first = found[0][1]
    assert first["kind"][0] == "odd"
    assert columns["kind"] == [None] * 3
    assert columns["group"] == ["high"] * 3
    assert "image" not in first
    # No augmentation: the picture is as it was stored.
    assert found[0][0]["image"][1].tolist() == np.full((8, 8, 3), 15).tolist()
    assert_same([batch for batch, _ in evaluation_batches(prepared, "test", 4)], [batch for batch, _ in found])


def test_evaluation_is_cut_among_hosts_as_training_is(prepared):
    whole = list(evaluation_batches(prepared, "test", 4))
    parts = [list(evaluation_batches(prepared, "test", 4, host=(index, 2))) for index in range(2)]
    for (batch, columns), *shares in zip(whole, *parts, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([share[0][name] for share in shares]))
        assert columns["id"] == [id for share in shares for id in share[1].get("id", [])]


def test_columns_that_are_asked_for_come_as_one_looks_at_them(prepared):
    columns = ("id", "text", "image", "audio", "names")
    _, found = next(evaluation_batches(prepared, "test", 16, columns=columns))
    assert tuple(found) == columns
    assert found["text"][0] == "a grey square of level 7"
    assert Decode()(found["image"][0], None)[0, 0].tolist() == [7, 7, 7]
    assert isinstance(found["audio"][7], bytes)  # the one that evaluation picks of several
    assert found["names"][0] is None
    assert found["names"][7]["de"].startswith("Spielzeug")
    with pytest.raises(UserError, match=r"column 'grup', there are .*did you mean group\?"):
        next(evaluation_batches(prepared, "test", 4, columns=("grup",)))
    with pytest.raises(SplitNotFoundError, match="'validation'"):
        next(evaluation_batches(prepared, "validation", 4))


def test_prepare_takes_the_tokenizer_of_a_checkpoint_without_reading_captions(mixture, prepared, tmp_path, stream):
    again = prepare(mixture, data_dir=str(tmp_path), tokenizers=prepared.chains.tokenizers)
    assert list(tmp_path.iterdir()) == []
    assert_same(take(1, again, batch_size=16, seed=3), stream[:1])


def test_the_tokenizer_learns_from_training_captions_alone(prepared, folder_table):
    assert "39" in Path(folder_table).read_text()
    tokenizer = prepared.chains.tokenizers["text"]
    assert tokenizer.decode(tokenizer.encode("a grey square of level 12")) == "a grey square of level 12"
    assert (Path(prepared.data_dir) / "tokenizers").is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {}}, "name at least one source"),
        ({"weights": {"own": 1.0, "toy": 0.0}}, "'toy': 0.0.*a weight is above 0"),
        ({"weights": {"onw": 1.0}}, r"own, toy has no weight; did you mean onw\?"),
        ({"transforms": {"image": (Decode(),)}}, "'image' ends in Decode"),
        (
            {"transforms": {"imag": (Decode(), Resize(8))}},
            r"'imag'.*no source has such a modality.*did you mean image\?",
        ),
    ],
)
def test_errors_of_a_mixture_name_what_is_wrong(mixture, data_dir, change, message):
    with pytest.raises(UserError, match=message):
        batches(prepare(dataclasses.replace(mixture, **change), data_dir=data_dir), batch_size=4, seed=0)


def test_a_modality_that_no_column_is_called_by_is_told_by_fields(tmp_path):
    table = write_folder(tmp_path, 4)
    table.write_text(table.read_text().replace("text", "caption", 1))
    mixture = Mixture({"own": 1.0}, {"text": TRANSFORMS["text"]}, {"own": Folder(str(table))})
    told = (
        r"there are audio, caption, .*; if a column of another name holds it, say Folder\(.*fields=\{'text': NAME\}\)$"
    )
    with pytest.raises(UserError, match=told):
        prepare(mixture, data_dir=str(tmp_path))


def test_batch_sizes_and_splits_are_checked(prepared):
    with pytest.raises(UserError, match="batch_size=10 must be a multiple of the 4 hosts: 8 would do"):
        batches(prepared, batch_size=10, seed=0, host=(0, 4))
    with pytest.raises(UserError, match=r"host=\(2, 2\)"):
        batches(prepared, batch_size=4, seed=0, host=(2, 2))
    with pytest.raises(SplitNotFoundError, match="no split 'validation'"):
        batches(prepared, batch_size=4, seed=0, split="validation")


def test_a_mixture_is_plain_enough_for_fiddle(mixture):
    config = fiddle.Config(Mixture, mixture.weights, mixture.transforms, mixture.sources, workers=1)
    assert fiddle.build(config) == dataclasses.replace(mixture, workers=1)


def test_ten_lines_train_on_own_pictures(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(picture_bytes((80 * i, 0, 0), (30, 20), format="JPEG"))
    (tmp_path / "captions.csv").write_text("image,text\n0.jpg,a black card\n1.jpg,a dark card\n2.jpg,a red card\n")
    own = Mixture(
        {"own": 1.0},
        sources={"own": Folder(str(tmp_path / "captions.csv"), shares={"train": 1.0})},
        transforms={
            "image": (Decode(), Resize(16)),
            "text": (PickCaption(), Tokenize(SentencePiece(64), length=8)),
        },
    )
    (batch,) = take(1, prepare(own, data_dir=str(tmp_path)), batch_size=6, seed=0)
    assert batch["image"].shape == (6, 16, 16, 3)
    assert batch["text_valid"].all()


def test_the_data_package_leaves_the_devices_alone():
    # Grain itself imports jax; what counts is that nothing here starts a backend, which would take the chips.
    code = (
        "import json, sys, mmjax.data.pipeline; "
        "bridge = sys.modules.get('jax._src.xla_bridge'); print(json.dumps(bool(bridge and bridge._backends)))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(answer.stdout) is False
