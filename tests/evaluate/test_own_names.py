"""A model whose towers are called photo, caption and depth is judged, shown, embedded and searched by what these are:
pictures, texts, and arrays that nothing knows how to draw."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import mmjax
from mmjax.cli.main import main
from mmjax.data import embedding_files
from mmjax.data.kinds import entries, kinds_of, ordered
from mmjax.data.sources.renamed import Renamed
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError
from mmjax.evaluate.benchmarks import benchmark
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.gallery import _panels
from mmjax.evaluate.from_embeddings import evaluate_embeddings
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.inference.demo import page
from mmjax.inference.demo.search import Index, folder, index, own
from mmjax.inference.embed_dataset import embed
from mmjax.interop.resolve import resolve
from mmjax.train.loop import train
from tests.depth import write_named

KINDS: dict[str, type[Input]] = {"depth": Input, "photo": PictureInput, "caption": TextInput}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """The experiment's file, and a workdir of its run."""
    file, workdir = write_named(tmp_path_factory.mktemp("named")), tmp_path_factory.mktemp("runs") / "named"
    train(load_experiment(f"{file}:named"), workdir, name=f"{file}:named")
    return file, workdir


def test_kinds_decide_and_where_there_are_none_the_usual_names():
    assert ordered(("depth", "voice", "photo", "caption"), {**KINDS, "voice": SoundInput}) == [
        *("caption", "photo", "voice", "depth")
    ]
    assert ordered(("audio", "image", "text", "depth"), {}) == ["text", "image", "audio", "depth"]
    assert entries(("image", "text"), KINDS) == {"image": "photo", "text": "caption"}
    assert entries(("image",), {**KINDS, "sketch": PictureInput}) == {}  # which of the two nothing says
    assert entries(("image",), {**KINDS, "image": PictureInput}) == {"image": "image"}


def test_a_gallery_draws_the_pictures_whatever_they_are_called(run):
    there = {name: np.ones(2, bool) for name in KINDS}
    pictures = {"photo": np.zeros((2, 8, 8, 3), np.uint8)}
    embedded = Embedded({}, there, {"caption": ["a", "b"]}, pictures, kinds=KINDS)
    assert _panels(embedded) == [("caption", "photo"), ("depth", "photo"), ("photo", "caption")]
    assert embedded.captions == ["a", "b"]
    with Image.open(run[1] / "gallery-test.png") as drawn:
        assert drawn.size[0] > 2_000  # three panels


@pytest.fixture(scope="module")
def report(run, tmp_path_factory) -> tuple[str, dict[str, float]]:
    folder = tmp_path_factory.mktemp("report")
    command = ["evaluate", str(run[1]), "--code", str(run[0]), "--report", str(folder / "page.html")]
    assert main([*command, "--json", str(folder / "found.json")]) == 0
    return unescape((folder / "page.html").read_text()), json.loads((folder / "found.json").read_text())["test"]


def test_a_report_shows_pictures_and_texts_and_says_what_it_cannot_show(report):
    html, found = report
    assert found["retrieval/photo->depth/queries"] == 8
    titles = re.findall(r"<summary><strong>([^<]*)</strong>", html)
    pairs = (("Caption", "photo"), ("Caption", "depth"), ("Photo", "caption"), ("Photo", "depth"))
    assert titles == [f"{a} → {b}" for a, b in (*pairs, ("Depth", "caption"), ("Depth", "photo"))]
    assert "(depth, which can't be shown: a tall room with a red floor)" in html
    assert re.search(r'<img src="data:image/jpeg;base64,[^"]*" alt="picture of: a tall room with a red floor"', html)
    assert "<q>a tall room with a red floor</q>" in html
    assert "8 examples: 8 captions, 8 depths, 8 photos" in html


def test_a_table_of_the_same_columns_is_read_as_the_runs_own(run, tmp_path):
    file, workdir = run
    table, found = file.parent / "other.csv", tmp_path / "found.json"
    table.write_text((file.parent / "named.csv").read_text())
    command = ["evaluate", str(workdir), "--code", str(file), "--on", str(table), "--json", str(found)]
    assert main([*command, "--label", "kind", "--templates", "a {} floor"]) == 0
    told = json.loads(found.read_text())["all"]
    assert told["retrieval/photo->caption/queries"] == 20
    assert told["retrieval/depth->photo/candidates"] == 20
    assert (told["zeroshot_photo/kind/classes"], told["zeroshot_depth/kind/examples"]) == (4, 20)


def test_a_table_or_a_benchmark_of_usual_names_is_read_by_what_its_columns_are(run, tmp_path):
    file, workdir = run
    rows = (file.parent / "named.csv").read_text().replace("photo,caption,depth", "image,text,far")
    (file.parent / "usual.csv").write_text(rows)
    found = tmp_path / "found.json"
    command = ["evaluate", str(workdir), "--code", str(file), "--on", str(file.parent / "usual.csv")]
    assert main([*command, "--json", str(found)]) == 0
    assert json.loads(found.read_text())["all"]["retrieval/caption->photo/queries"] == 20
    experiment = build(load_experiment(f"{file}:named"))
    on = benchmark("cifar100", experiment)
    assert on.data.sources["cifar100"] == Renamed(on.data.sources["cifar100"].source, {"photo": "image"})
    assert [evaluator.modalities for evaluator in on.evaluators] == [("photo",)] * 3
    with pytest.raises(UserError, match=r"esc50 has audio, but the experiment has towers for photo, caption, depth"):
        benchmark("esc50", experiment)


def test_embeddings_are_judged_without_the_model(run, tmp_path):
    file, workdir = run
    folders = [embed(str(workdir), None, tmp_path / split, split=split, code=file) for split in ("test", "train")]
    assert embedding_files.manifest(folders[0])["words"] == ["caption"]
    assert embedding_files.read(folders[0]).words == ("caption",)
    found = evaluate_embeddings(folders, labels=["kind"], console=Console(quiet=True))["test"]
    learnt = {name.split("/")[0] for name in found if name.startswith(("knn", "probe"))}
    assert learnt == {"knn_photo", "knn_depth", "probe_photo", "probe_depth"}  # and none of captions


def test_a_picture_is_classified_without_saying_which_tower_reads_pictures(run):
    file, workdir = run
    model = mmjax.load(workdir, code=file)
    picture = file.parent / "0.png"
    found = model.classify(picture, labels=["red", "blue"])
    np.testing.assert_allclose(found.logits, model.classify(photo=picture, labels=["red", "blue"]).logits)
    assert dict(model.kinds) == {name: KINDS[name] for name in ("photo", "caption", "depth")}


@pytest.fixture(scope="module")
def found(run, tmp_path_factory) -> Iterator[Index]:
    file, workdir = run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        bundle = resolve(workdir, code=file)
        yield index(bundle, own(bundle), Console(quiet=True))


def test_the_page_searches_and_shows_what_it_can(found: Index, run):
    assert found.queries == ["caption", "photo", "depth"]
    assert {name: len(items) for name, items in found.items.items()} == {"photo": 8, "depth": 8}
    shown = unescape(str(page.first_shown(found)))
    assert '<img src="media/photo/0?small" alt="a tall room with a red floor"' in shown
    assert shown.count("(depth, which can't be shown)") == 8
    assert "Search 8 photos and 8 depths" in str(page.head(found))
    answer = str(page.answered(found, "caption", "a blue floor"))
    assert "Nearest to “a blue floor”" in answer
    nearest = str(page.answered(found, "depth", (run[0].parent / "3.npy").read_bytes()))
    assert "Nearest to this depth" in nearest
    first = re.findall(r'data-modality="depth" data-row="(\d+)"', nearest)[0]
    assert found.items["depth"][int(first)].path == run[0].parent / "3.npy"
    assert "This can't be searched by: no array" in unescape(str(page.answered(found, "depth", b"no array")))


def test_the_page_has_a_tab_for_each_modality(found: Index):
    pytest.importorskip("gradio")
    blocks = page.build_page(found).blocks.values()
    tabs = [block.label for block in blocks if type(block).__name__ == "Tab"]
    assert tabs == ["Type", "Picture", "Depth"]
    labels = {type(block).__name__: getattr(block, "label", None) for block in blocks}
    assert labels["File"] == "Drop a file of depth here: what is like it is found."


def test_pictures_of_a_folder_go_by_the_entry_that_reads_pictures(run):
    kinds = kinds_of(build(load_experiment(f"{run[0]}:named")).data.transforms)
    place = folder(run[0].parent, kinds)
    assert {item.modality for item in place.items} == {"photo"}
    assert len(place.items) == 20


class Heights(Input):
    """A kind of one's own that says how it is drawn."""

    draws, endings = True, (".npy",)

    @classmethod
    def drawn(cls, value: Any) -> np.ndarray:
        return np.repeat(np.asarray(value, np.uint8)[..., None], 3, axis=2)


def test_a_kind_of_ones_own_that_says_how_it_is_drawn_is_drawn(run, tmp_path):
    from mmjax.evaluate.report.media import Media

    embedded = Embedded({}, {}, {"id": ["a"]}, kinds={"height": Heights})
    media = Media(lambda row, column: np.full((8, 8), 200), embedded, "0", [10**6])
    assert "<img" in media.show(0, "height")
    assert {item.modality for item in folder(run[0].parent, {"height": Heights}).items} == {"height", "image"}
