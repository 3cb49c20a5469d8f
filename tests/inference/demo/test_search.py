"""What is found is what a brute force finds; nothing is embedded twice; what is bad is left out and named."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mmjax.errors import UserError
from mmjax.inference.demo import search
from mmjax.inference.demo.search import Index, folder, index, own
from mmjax.inference.model import Model
from mmjax.interop.bundle import Bundle
from mmjax.interop.resolve import resolve
from tests.tiny import SIDE, draw, write_shapes
from tests.trained import Trained

HERE = Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmjax" / "demo"


@pytest.fixture(scope="module")
def bundle(trained: Trained) -> Bundle:
    return resolve(trained.workdir)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures and a note."""
    place = tmp_path / "pictures"
    (place / "within").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for colour, name in enumerate(["a.png", "b.PNG", "within/c.png", "d.png", "e.png"]):
        draw(colour, colour % 4, rng).save(place / name)
    (place / "notes.txt").write_text("not searched")
    return place


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what goes through a tower to be found."""
    names, real = [], search._embed_all

    def spy(model, modality, contents):
        names.extend(Path(content).name for content in contents)
        return real(model, modality, contents)

    monkeypatch.setattr(search, "_embed_all", spy)
    return names


def test_the_nearest_are_those_of_a_brute_force(bundle: Bundle, tmp_path):
    write_shapes(tmp_path)
    found = index(bundle, folder(tmp_path), HERE)
    assert {modality: len(items) for modality, items in found.items.items()} == {"image": 120, "audio": 120}
    assert found.queries == ["text", "image", "audio"]
    model = Model(bundle)
    hits = found.search("text", "a blue bar", 7)
    for modality, ending in (("image", "png"), ("audio", "wav")):
        files = sorted(tmp_path.glob(f"*.{ending}"))
        vectors = model.embed(**{modality: files})  # pyright: ignore[reportArgumentType, reportCallIssue]
        cosines = vectors @ model.embed(text="a blue bar")
        order = np.argsort(-cosines, kind="stable")[:7]
        assert [found.items[modality][row].name for row, _ in hits[modality]] == [files[i].name for i in order]
        np.testing.assert_allclose([score for _, score in hits[modality]], cosines[order], atol=1e-6)
    itself, score = found.nearest(found.vectors["image"][17], 1)["image"][0]
    assert (itself, round(score, 5)) == (17, 1.0)


def test_of_equal_ones_the_first_comes_first(bundle: Bundle, pictures):
    for name in ("b.png", "c.png"):
        (pictures / name).write_bytes((pictures / "a.png").read_bytes())
    found = index(bundle, folder(pictures), HERE)
    hits = found.search("image", pictures / "a.png", 3)["image"]
    assert [found.items["image"][row].name for row, _ in hits] == ["a.png", "b.png", "c.png"]


def test_what_has_not_changed_is_not_embedded_again(bundle: Bundle, trained: Trained, pictures, embedded, cache):
    before = sorted(pictures.rglob("*"))
    first = index(bundle, folder(pictures), HERE)
    assert sorted(embedded) == ["a.png", "b.PNG", "c.png", "d.png", "e.png"]
    embedded.clear()
    again = index(bundle, folder(pictures), HERE)
    assert embedded == []
    np.testing.assert_array_equal(again.vectors["image"], first.vectors["image"])
    assert sorted(pictures.rglob("*")) == before  # nothing of the user's is written to

    draw(5, 3, np.random.default_rng(1)).save(pictures / "a.png")  # another picture of that name
    os.utime(pictures / "a.png", ns=(1, 1))
    (pictures / "e.png").unlink()
    changed = index(bundle, folder(pictures), HERE)
    assert embedded == ["a.png"]
    assert [item.name for item in changed.items["image"]] == ["a.png", "b.PNG", "d.png", "within/c.png"]
    expected = changed.model.embed(image=[pictures / item.name for item in changed.items["image"]])
    np.testing.assert_allclose(changed.vectors["image"], expected, atol=1e-6)

    embedded.clear()
    index(resolve(trained.workdir, step=8), folder(pictures), HERE)  # another model
    assert len(embedded) == 4
    embedded.clear()
    for file in cache.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-5])
    index(bundle, folder(pictures), HERE)
    assert len(embedded) == 4


def test_what_was_embedded_before_an_interruption_is_kept(bundle: Bundle, pictures, embedded, monkeypatch):
    real = search._vectors

    def interrupted(model, modality, chunk, bad):
        yield from list(real(model, modality, chunk, bad))[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "_vectors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index(bundle, folder(pictures), HERE)
    embedded.clear()
    index(bundle, folder(pictures), HERE)
    assert len(embedded) == 3


def test_bad_files_are_left_out_and_named(bundle: Bundle, pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (pictures / "aaa.jpg").write_text("no picture")
    (pictures / "x.wav").write_bytes(b"RIFF")
    (pictures / ".hidden.png").write_bytes(b"")
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    found = index(bundle, folder(pictures), HERE)
    assert [name for name, _ in found.bad] == ["aaa.jpg", "broken.png", "gone.png", "x.wav"]
    reasons = dict(found.bad)
    assert reasons["broken.png"].startswith("the picture can't be decoded")
    assert "BytesIO" not in reasons["aaa.jpg"]
    assert "there is no file" in reasons["gone.png"]
    assert reasons["x.wav"].startswith("the sound can't be decoded")
    assert [len(items) for items in found.items.values()] == [5]
    expected = found.model.embed(image=[item.path for item in found.items["image"]])
    np.testing.assert_allclose(found.vectors["image"], expected, atol=1e-6)


def test_a_folder_of_nothing_is_refused(bundle: Bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"has no pictures \(\.avif .*\) or sounds \(.*\) in it .*but 1 other files"):
        folder(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"notes.txt is no folder"):
        folder(tmp_path / "notes.txt")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"none of the 1 files in .* can be read; a.png: the picture can't be decoded"):
        index(bundle, folder(tmp_path), HERE)


def test_what_the_model_lacks_is_not_offered(trained: Trained, pictures):
    bundle = resolve(trained.workdir)
    bundle.tokenizers.clear()
    assert index(bundle, folder(pictures), HERE).queries == ["image", "audio"]
    del bundle.config.towers["audio"]
    del bundle.config.objectives["text_audio"]
    bundle.variables["params"].pop("towers_audio")
    (pictures / "x.wav").write_bytes(b"RIFF")
    found = index(bundle, folder(pictures), HERE)
    assert (found.queries, list(found.items), found.bad) == (["image"], ["image"], [])
    (sounds := pictures / "sounds").mkdir()
    (sounds / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"sounds has sounds, and .* embeds image, text alone"):
        index(bundle, folder(sounds), HERE)


def test_the_models_own_test_data(bundle: Bundle, trained: Trained):
    place = own(bundle)
    assert place.name == "shapes (test split)"
    found: Index = index(bundle, place, HERE)
    assert [len(items) for items in found.items.values()] == [24, 22]  # two have no sound
    assert found.items["image"][0].name == "a red disc"
    picture = found.items["image"][0]
    assert picture.read() == (Path(trained.table).parent / "red-disc-4.png").read_bytes()
    assert SIDE == 16
    bundle = resolve(trained.workdir)
    bundle.config.data.weights = {}
    with pytest.raises(UserError, match="brings no data of its own: --folder says where"):
        own(bundle)


def test_a_cache_that_cannot_be_written_stops_nothing(bundle: Bundle, pictures, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    screen = io.StringIO()
    assert len(index(bundle, folder(pictures), Console(file=screen, width=300)).items["image"]) == 5
    assert "the vectors can't be kept in" in screen.getvalue()
