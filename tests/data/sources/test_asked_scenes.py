"""Questions that are drawn as they are read, of few emoji."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.data import AskedScenes, Decode, Label, Mixture, Resize
from mmjax.data.datasets.asked_emoji import asker, picture, speech
from mmjax.data.datasets.asked_emoji.answers import ANSWERS
from mmjax.data.datasets.asked_emoji.picture import draw, painted
from mmjax.data.datasets.asked_emoji.scenes import SIDE, scenes
from mmjax.data.datasets.asked_emoji.things import things
from mmjax.data.pipeline import batches
from mmjax.data.sources import asked_scenes
from mmjax.data.sources.folder import Folder
from mmjax.errors import UserError

LIMIT, FITTED = 5, 300


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    """Weights are fitted to so few scenes that it takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asker, "_SCENES", FITTED)
        yield
    asked_scenes._asker.cache_clear()


@pytest.fixture(scope="module")
def records():
    return AskedScenes(Folder("nowhere.tsv"), 400, LIMIT).open("train")


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_record_has_a_picture_a_question_and_its_answer(records):
    assert len(records) == 400
    assert len({records[i]["id"] for i in range(400)}) == 400
    for i in (0, 3, 399):
        assert tuple(sorted(records[i])) == tuple(sorted(records.columns))
        assert records[i]["image"].shape == (SIDE, SIDE, 3)
        assert records[i]["question"].endswith("?")
        assert records[i]["answer"] in ANSWERS
    assert records[0]["picture"] == records[3]["picture"] != records[4]["picture"]
    np.testing.assert_array_equal(records[0]["image"], records[3]["image"])
    assert records[-1]["id"] == records[399]["id"]
    with pytest.raises(IndexError):
        records[400]


def test_a_record_is_the_same_in_any_order_and_process(records, tmp_path):
    (tmp_path / "records.pkl").write_bytes(pickle.dumps(records))
    program = (
        "import pickle, sys, pathlib; from mmjax.data import AskedScenes;"
        f"from mmjax.data.datasets.asked_emoji import asker; asker._SCENES = {FITTED};"
        f"read = AskedScenes(None, 400, {LIMIT}).open('train');"
        "sent = pickle.loads((pathlib.Path(sys.argv[1]) / 'records.pkl').read_bytes());"
        "found = [[each[i] for i in (300, 2)] for each in (read, sent)];"
        "(pathlib.Path(sys.argv[1]) / 'found.pkl').write_bytes(pickle.dumps((found, read.fingerprint())))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    found, fingerprint = pickle.loads((tmp_path / "found.pkl").read_bytes())
    for each in found:
        same(each[1], records[2])
        same(each[0], records[300])
    assert fingerprint == records.fingerprint()


def test_questions_are_spoken_as_the_datasets_are(records):
    heard = AskedScenes(Folder("nowhere.tsv"), 400, LIMIT, speech=True).open("train")
    assert {*heard.columns} == {*records.columns, "audio", "voice"}
    assert heard.fingerprint() != records.fingerprint()
    later, record = heard[300], heard[2]
    same({name: record[name] for name in records.columns}, records[2])
    assert (record["audio"], record["voice"]) != (later["audio"], later["voice"])
    said = speech.utterance(record["id"], "train")
    assert record["voice"] == said.voice in speech.VOICES["train"]
    assert record["audio"] == heard[2]["audio"] == speech.spoken(record["question"], said)


def test_the_picture_is_the_datasets_to_the_byte(records):
    twins = scenes(things(LIMIT), "test", 2)
    for scene in (scene for both in twins for scene in both):
        pasted = Image.new("RGB", (SIDE, SIDE), "white")
        for placed in scene.placed:
            emoji = picture.drawing(placed.thing.id, placed.side)
            pasted.paste(emoji, (placed.x, placed.y), mask=emoji.getchannel("A"))
        file = io.BytesIO()
        pasted.save(file, "PNG")
        assert draw(scene) == file.getvalue()
        np.testing.assert_array_equal(painted(scene), np.asarray(pasted))


def test_an_emoji_is_drawn_once(records, monkeypatch):
    for i in range(0, 40, 4):
        _ = records[i]
    monkeypatch.setattr(picture, "drawing", lambda *_: pytest.fail("drawn again"))
    for i in range(40):
        _ = records[i]["image"].fill(0)  # nor does it matter what was done to the first one
    assert records[0]["image"].std() > 10


def test_batches_go_on_and_are_cut_as_those_of_stored_data():
    transforms = {"image": (Decode(), Resize(32)), "answer": (Label(ANSWERS),)}
    mixture = Mixture({"asked": 1.0}, transforms, {"asked": AskedScenes(None, 24, LIMIT)})
    whole = batches(mixture, batch_size=8, seed=0)
    first = [next(whole) for _ in range(4)]
    same(next(batches(mixture, batch_size=8, seed=0, step=3)), first[3])
    half = next(batches(mixture, batch_size=8, seed=0, step=3, host=(1, 2)))
    same(half, {name: rows[4:] for name, rows in first[3].items()})
    assert all(batch["answer_valid"].all() and batch["image_valid"].all() for batch in first)


def test_other_splits_are_the_other_sources(folder_table):
    asked = AskedScenes(Folder(folder_table), 4, LIMIT)
    assert asked.open("test")[0] == Folder(folder_table).open("test")[0]


def test_more_questions_or_other_emoji_are_other_data(records):
    assert AskedScenes(None, 404, LIMIT).open("train").fingerprint() != records.fingerprint()
    other = AskedScenes(None, 400, LIMIT + 1).open("train").fingerprint()
    assert other["emoji"] != records.fingerprint()["emoji"]


@pytest.mark.parametrize("fields", [{"count": 0}, {"limit": 0}, {"count": -4}])
def test_fields_out_of_range_are_errors(fields):
    (name, value), = fields.items()  # fmt: skip
    with pytest.raises(UserError, match=rf"AskedScenes\({name}={value}\): it is at least 1"):
        AskedScenes(None, **fields).open("train")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"AskedScenes needs the package resvg_py: pip install .*demo"):
        AskedScenes(None, 4, LIMIT + 2).open("train")
