"""The builder of stamps on a small folder of Tux Paint's layout that has all its traps."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmjax.data.datasets.prepare import DatasetError, builder, prepare_dataset
from mmjax.data.datasets.stamps.builder import FETCH
from mmjax.data.datasets.stamps.catalogue import LANGUAGES, catalogue, read_captions
from mmjax.data.datasets.stamps.groups import SPLITS, groups, split_of
from mmjax.data.datasets.stamps.picture import IMAGE_SIZE, draw, png
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance
from mmjax.data.transforms.image import Decode, Resize
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.retrieval import Retrieval
from tests.data.conftest import sound_bytes, tone

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}"><path d="{path}" fill="{fill}"/></svg>'


def shape(points: list[tuple[int, int]], colour: str = "black", size: tuple[int, int] = (60, 60)) -> bytes:
    """A polygon on a transparent ground."""
    picture = Image.new("RGBA", size, (255, 0, 0, 0))
    ImageDraw.Draw(picture).polygon(points, colour)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


FLAG = [(5, 5), (50, 5), (5, 30)]
# What lies beside `animals/cat.png` and so on; sounds say who makes them by their pitch.
FILES: dict[str, bytes | str | float] = {
    "animals/cat.png": shape(FLAG),
    "animals/cat.txt": "A cat.\r\nes.utf8=Un gato.\r\nfr.utf8=\r\nen_GB.utf8=A moggy.\r\nxx.utf8=X.\r\n",
    "animals/cat.ogg": 300.0,
    "animals/cat_desc.ogg": 310.0,
    "animals/cat_desc_es.ogg": 320.0,
    "animals/cat_desc_pt_BR.wav": 330.0,
    "animals/cat_mirror.png": shape([(60 - x, y) for x, y in FLAG]),
    "animals/cat_baby.png": shape([(10, 10), (50, 20), (30, 50)], "brown"),
    "animals/cat_baby.txt": "A kitten.\nes.utf8=Un gatito.\n",
    "animals/cat_baby_desc_es.ogg": 340.0,
    "animals/dog_desc_es.ogg": 350.0,  # of no stamp
    "animals/dog.txt": "A dog.",
    "animals/bare.png": shape([(0, 0), (60, 0), (60, 9)], "green"),  # of no caption
    "animals/cartoon/puss.png": shape([(2 * (30 - x // 2), y) for x, y in FLAG]),  # the cat's mirror image
    "animals/cartoon/puss.txt": "Puss.",
    "weather/ice.png": shape(FLAG, "white"),  # not to be seen
    "weather/ice.txt": "Ice.",
    "weather/sun1.svg": SVG.format(side="400pt", path="M0 0H500V500z", fill="gold"),
    "weather/sun1.txt": "The sun.",
    "weather/sun2.svg": SVG.format(side="21cm", path="M0 0H744V744H0z", fill="orange"),
    "weather/sun2.txt": "Another sun!",
    "weather/star.svg": SVG.format(side="9", path="M0 0h9v9z", fill="red"),
    "weather/star.png": shape([(0, 0), (60, 0), (60, 60)], "blue"),
    "weather/star.txt": "The sun.",
    "weather/noon.png": shape([(0, 0), (60, 0), (30, 60), (30, 9)], "red"),
    "weather/noon.txt": "the  SUN",
    "symbols/3.png": shape([(0, 0), (60, 10), (0, 20), (60, 30), (0, 60)]),
    "symbols/3.txt": "Three.\nes.utf8=Tres.",
    "symbols/3.ogg": 360.0,
    "symbols/3_en_GB.ogg": 370.0,
    "symbols/3_es.ogg": 380.0,
    "symbols/4.png": shape([(0, 0), (30, 60), (60, 0)]),
    "symbols/4.txt": "Four.\nes.utf8=Cuatro.",
    "symbols/bell.png": shape([(30, 0), (60, 60), (0, 60)], "grey"),
    "symbols/bell.txt": "A bell.",
    "symbols/bell.ogg": 300.0,  # sounds as the cat does
}
KEPT = {
    *("animals/cat", "animals/cat_baby", "animals/cartoon/puss", "symbols/3", "symbols/4", "symbols/bell"),
    *("weather/noon", "weather/star", "weather/sun1", "weather/sun2"),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """TFDS's folder, with the unpacked package where a user would have put it."""
    folder = tmp_path_factory.mktemp("tfds")
    for name, content in FILES.items():
        file = folder / "downloads/manual/stamps/usr/share/tuxpaint/stamps" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        sound = sound_bytes(tone(content)) if isinstance(content, float | int) else content
        file.write_bytes(sound.encode() if isinstance(sound, str) else sound)
    return str(folder)


@pytest.fixture(scope="module")
def root(data_dir: str) -> Path:
    return Path(data_dir) / "downloads/manual/stamps/usr/share/tuxpaint/stamps"


def records(name: str, data_dir: str, **fields: str) -> dict[str, dict]:
    prepare_dataset(name, data_dir)
    found = {}
    for split in builder(name, data_dir).info.splits:
        opened = Tfds(name, fields=fields, data_dir=data_dir).open(split)
        found |= {opened[i]["id"]: {**opened[i], "split": split} for i in range(len(opened))}
    return found


def test_files_go_to_the_longest_stem_and_strays_to_none(root):
    stamps = {stamp.id: stamp for stamp in catalogue(root)}
    assert set(stamps) == KEPT | {"weather/ice"}
    cat, kitten = stamps["animals/cat"], stamps["animals/cat_baby"]
    assert {language: [file.name for file in files] for language, files in cat.speech.items()} == {
        "en": ["cat_desc.ogg"],
        "es": ["cat_desc_es.ogg"],
    }
    assert cat.sound is not None
    assert cat.sound.name == "cat.ogg"
    assert [file.name for file in kitten.speech["es"]] == ["cat_baby_desc_es.ogg"]
    assert cat.captions == {"en": "A cat.", "es": "Un gato."}
    assert stamps["weather/star"].picture.suffix == ".png"


def test_a_sound_that_is_translated_is_speech(root):
    three = next(stamp for stamp in catalogue(root) if stamp.id == "symbols/3")
    assert three.sound is None
    assert [file.name for file in three.speech["en"]] == ["3.ogg", "3_en_GB.ogg"]
    assert [file.name for file in three.speech["es"]] == ["3_es.ogg"]


def test_captions_of_files_that_are_empty_or_no_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfB\xff.\nru.utf8= \xd0\x91 \n")
    assert read_captions(tmp_path / "a.txt") == {}
    assert read_captions(tmp_path / "b.txt") == {"en": "B\ufffd.", "ru": "\u0411"}


def test_pictures_fill_a_white_square(root, tmp_path):
    sun, cat = draw(root / "weather/sun2.svg"), draw(root / "animals/cat.png")
    assert sun is not None
    assert cat is not None
    assert sun.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert (np.abs(sun.astype(int) - [255, 165, 0]) <= 1).all()  # 21 cm at 90 dots an inch: it reaches the edges
    triangle = draw(root / "weather/sun1.svg")
    assert triangle is not None
    assert 0.49 < (triangle[:, :, 2] < 128).mean() < 0.51  # a half, for the other half is white, not cut off
    dark = cat.max(axis=2) < 128
    (rows,), (columns,) = np.nonzero(dark.any(axis=1)), np.nonzero(dark.any(axis=0))
    assert columns[0] <= 2
    assert columns[-1] >= IMAGE_SIZE - 8  # the sharp corner is blurred
    assert abs(rows[0] + rows[-1] - IMAGE_SIZE) <= 8  # in the middle
    assert draw(root / "weather/ice.png") is None
    (tmp_path / "broken.svg").write_text("<svg")
    with pytest.raises(UserError, match=r"broken\.svg can't be drawn"):
        draw(tmp_path / "broken.svg")
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(UserError, match=r"broken\.png can't be drawn: cannot identify image file$"):  # no address
        draw(tmp_path / "broken.png")


def test_variants_are_linked_and_others_are_not(root):
    stamps = [stamp for stamp in catalogue(root) if stamp.id in KEPT]
    pictures = {stamp.id: draw(stamp.picture) for stamp in stamps}
    leader = groups(stamps, {id: picture for id, picture in pictures.items() if picture is not None})
    members: dict[str, set[str]] = {}
    for id, group in leader.items():
        members.setdefault(group, set()).add(id)
    assert sorted(map(sorted, members.values())) == [
        ["animals/cartoon/puss", "animals/cat", "symbols/bell"],  # the mirror image, the sound
        ["animals/cat_baby"],
        ["symbols/3"],  # a digit's name is not what is left without digits
        ["symbols/4"],
        ["weather/noon", "weather/star", "weather/sun1", "weather/sun2"],  # the caption, the name without digits
    ]
    assert groups(stamps[::-1], {id: p for id, p in pictures.items() if p is not None}) == leader


def test_groups_fall_into_splits_by_their_shares():
    drawn = [split_of(f"animals/{i}") for i in range(4000)]
    for split, share in SPLITS.items():
        assert abs(drawn.count(split) / len(drawn) - share) < 0.02


def test_a_language_has_its_captions_and_speech(data_dir, root):
    spanish = records("stamps/es", data_dir)
    assert set(spanish) == {"animals/cat", "animals/cat_baby", "symbols/3", "symbols/4"}
    cat = spanish["animals/cat"]
    assert (cat["text"], cat["captions"], cat["category"]) == ("Un gato.", {"es": "Un gato."}, "animals")
    assert cat["audio"] == [(root / "animals/cat_desc_es.ogg").read_bytes()]
    assert spanish["symbols/4"]["audio"] is None  # lacking, not bad
    picture = draw(root / "animals/cat.png")
    assert picture is not None
    assert cat["image"] == png(picture)
    assert "sound" not in cat  # a recording is no label


def test_all_languages_together_and_the_sound_effects(data_dir, root):
    everything = records("stamps/all", data_dir, text="captions")
    assert set(everything) == KEPT
    assert set(everything["animals/cat"]["text"]) == set(LANGUAGES)
    assert [len(everything[id]["audio"] or ()) for id in ("animals/cat", "symbols/3", "symbols/4")] == [2, 3, 0]
    sounds = records("stamps/all", data_dir, audio="sound")
    assert {id for id, record in sounds.items() if record["audio"] is not None} == {"animals/cat", "symbols/bell"}
    assert sounds["animals/cat"]["audio"] == [(root / "animals/cat.ogg").read_bytes()]
    assert {id: record["split"] for id, record in records("stamps/es", data_dir).items()}.items() <= {
        id: record["split"] for id, record in everything.items()
    }.items()


def test_batches_have_what_there_is_and_captions_that_repeat_are_all_right(data_dir):
    mixture = Mixture(
        dict.fromkeys(SPLITS, 1.0),
        sources={split: Tfds("stamps/all", splits={"every": split}, data_dir=data_dir) for split in SPLITS},
        transforms={
            "image": (Decode(), Resize(8)),
            "audio": (PickUtterance(), DecodeAudio(), CropOrPad(160)),
        },
    )
    ((batch, columns),) = evaluation_batches(mixture, batch_size=len(KEPT), split="every")
    assert batch["image_valid"].all()
    assert not batch["audio_bad"].any()
    heard = {id for id, valid in zip(columns["id"], batch["audio_valid"], strict=True) if valid}
    assert heard == {"animals/cat", "animals/cat_baby", "symbols/3"}
    texts = columns["text"]
    one_hot = np.eye(len(texts), dtype=np.float32)[[texts.index(text) for text in texts]]
    valid = np.ones(len(texts), bool)
    embedded = Embedded({"image": one_hot, "text": one_hot}, {"image": valid, "text": valid}, columns)
    same = Retrieval(same="text", name="same")(embedded, lambda texts: one_hot)
    assert same["same/image->text/R@1"] == 1
    assert Retrieval()(embedded, lambda texts: one_hot)["retrieval/image->text/R@1"] < 1


def test_where_nobody_fetched_it_the_commands_are_told(tmp_path):
    with pytest.raises(DatasetError) as error:
        prepare_dataset("stamps/es", str(tmp_path))
    assert FETCH in str(error.value)
    assert str(tmp_path / "downloads" / "manual") in str(error.value)
    other = tmp_path / "downloads/manual/other"
    other.mkdir(parents=True)
    with pytest.raises(DatasetError, match="apt-get download"):
        prepare_dataset("stamps/es", str(tmp_path))
    assert not builder("stamps/es", str(tmp_path)).data_path.exists()
