"""Export and import: what is written is read back and compared; what can't be written says so, and leaves nothing."""

from pathlib import Path

import fiddle as fdl
import jax
import numpy as np
import pytest

from mmjax.cli.main import main
from mmjax.data.transforms.image import Decode, Resize
from mmjax.errors import UserError
from mmjax.inference.model import load
from mmjax.interop import bundle as bundles
from mmjax.interop import export as exporting
from mmjax.interop import projects
from mmjax.interop.bundle import Bundle, stand_in
from mmjax.interop.export import export
from mmjax.interop.projects import Project
from mmjax.interop.resolve import resolve
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.runtime import metrics
from tests.interop.small import clip, hf_folder
from tests.objectives.rounds import Fusing, ToyFusion
from tests.tiny import draw
from tests.trained import Trained


def quiet(text: str) -> None:
    pass


def test_an_export_that_fails_leaves_nothing(trained: Trained, tmp_path):
    with pytest.raises(UserError, match="needs towers"):
        export(trained.workdir, tmp_path / "out", towers=[], say=quiet)
    assert not list(tmp_path.iterdir())


def test_that_numbers_were_rounded_is_said(trained: Trained, tmp_path, capsys):
    assert main(["export", str(trained.workdir), str(tmp_path / "half"), "--half"]) == 0
    assert capsys.readouterr().out.endswith("numbers (rounded to 16 bits), read back and the same to the bit\n")


def test_a_run_is_exported_and_gives_the_same_vectors(trained: Trained, tmp_path, capsys):
    out = tmp_path / "out" / "tiny"
    assert main(["export", str(trained.workdir), str(out), "--step", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: {trained.workdir}, ")
    assert said.endswith("numbers, read back and the same to the bit\n")
    theirs, ours = load(trained.workdir, step=8), load(out)
    assert ours.experiment.towers.keys() == {"image", "text", "audio"}
    picture = draw(1, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(ours.embed(image=picture), theirs.embed(image=picture))
    texts = ["a red disc", "green"]
    np.testing.assert_array_equal(ours.embed(text=texts), theirs.embed(text=texts))


def test_the_towers_that_are_asked_for(trained: Trained, tmp_path):
    export(trained.workdir, tmp_path / "pair", towers=["image", "text"], say=quiet)
    bundle = resolve(tmp_path / "pair")
    assert set(bundle.config.towers) == {"image", "text"}
    assert set(bundle.config.objectives) == {"image_text", "masked_image"}
    whole = load(trained.workdir)
    vector = load(tmp_path / "pair").embed(text="a red disc")
    np.testing.assert_array_equal(vector, whole.embed(text="a red disc"))
    with pytest.raises(UserError, match=r"has no tower 'sound', it has image, text, audio"):
        export(trained.workdir, tmp_path / "none", towers=["sound"], say=quiet)
    assert not (tmp_path / "none").exists()


def test_there_and_back_through_other_layouts(tmp_path):
    own = bundles.save(clip(), tmp_path / "own")
    assert main(["export", str(own), str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert main(["export", str(own), str(tmp_path / "oc"), "--to", "open_clip"]) == 2  # the preprocessing differs
    assert not (tmp_path / "oc").exists()
    assert main(["export", str(own), str(tmp_path / "oc"), "--to", "open_clip", "--inexact"]) == 0
    for layout in ("hf", "oc"):
        assert main(["import", str(tmp_path / layout), str(tmp_path / f"{layout}-again")]) == 0
        again = bundles.read(tmp_path / f"{layout}-again")
        jax.tree.map(np.testing.assert_array_equal, again.variables, clip().variables)


def test_a_decoder_stays_behind(trained: Trained, tmp_path):
    said = []
    bundle = exporting.part(resolve(trained.workdir), ["image", "text"])
    left = exporting.without_decoders(bundle, said.append)
    assert said == ["objectives that have no place there stay behind: masked_image"]
    assert set(left.config.objectives) == {"image_text"}
    bundles.check_bundle(left)
    assert exporting.without_decoders(left, said.append) is left


class Careless(Project):
    """A layout that loses a bit."""

    def write(self, bundle, path, exact=True):
        bundles.save(bundle, path)

    def read(self, path):
        bundle = bundles.read(path)
        scale = bundle.variables["params"]["towers_image"]["norm_pre"]["scale"]
        scale[0] = np.nextafter(scale[0], np.float32(9))
        return bundle


def test_what_is_not_read_back_to_the_bit_is_removed(tmp_path, monkeypatch):
    own = bundles.save(clip(), tmp_path / "own")
    monkeypatch.setitem(projects.PROJECTS, "hf", Careless("hf.layout", lambda path: False, "Hugging Face"))
    with pytest.raises(UserError, match=r"(?s)isn't what was written, so it was removed:\n.*norm_pre/scale has other"):
        export(own, tmp_path / "out", "hf", say=quiet)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path, capsys):
    own = bundles.save(clip(), tmp_path / "own")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "cat.png").touch()
    for out in ("taken", "own"):
        assert main(["export", str(own), str(tmp_path / out)]) == 2
        assert "is there already" in capsys.readouterr().err
    assert main(["export", str(own), str(tmp_path / "model"), "--to", "bv"]) == 2
    assert "big_vision's layout is a file" in capsys.readouterr().err


def test_a_model_of_the_hub_can_be_imported_from_its_folder(tmp_path):
    folder = hf_folder(tmp_path / "hf")
    assert main(["import", str(folder), str(tmp_path / "own")]) == 0
    assert bundles.is_bundle(Path(tmp_path / "own"))
    picture = draw(1, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(load(tmp_path / "own").embed(image=picture), load(folder).embed(image=picture))
    with pytest.raises(UserError, match=r"has no tokenizer"):
        load(folder).embed(text="a cat")


def test_a_run_brings_its_name_and_figures(trained: Trained, tmp_path):
    export(trained.workdir, tmp_path / "pair", towers=["image", "text"], step=16, say=quiet)
    card = (tmp_path / "pair" / "README.md").read_text(encoding="utf-8")
    assert "# license: none was chosen" in card
    assert "ask before you use it" in card
    assert 'datasets:\n- "shapes"' in card
    assert "Experiment `tests/tiny.py:tiny`, step 16 of 24, batches of 16 examples of shapes, `AdamW`." in card
    (line,) = (
        line for line in metrics.read(trained.workdir) if (line["step"], line.get("split")) == (12, "validation")
    )
    value = line["retrieval/image->text/R@1"]
    assert "| validation, step 12 | |\n|---|---|\n" in card
    assert f"| retrieval/image->text/R@1 | {value:.4f} |" in card
    assert f"| retrieval/image->text/queries | {line['retrieval/image->text/queries']:.0f} |" in card
    assert f"| retrieval/image->text/chance | {line['retrieval/image->text/chance']:.4f} |" in card
    assert "audio" not in card
    assert "test, step 24" not in card  # which came later


def test_a_part_keeps_the_fusions_that_its_objectives_read():
    """And the inputs of other names that they read, which go through its towers."""
    size = {"patch": 4, "size": 8, "blocks": fdl.Config(Blocks, width=8, depth=1, heads=1), "pooling": "mean"}
    config = stand_in(
        {name: fdl.Config(ViT, **size) for name in ("image", "text")},
        {"fuse": fdl.Config(Fusing), "pair": fdl.Config(Contrastive, ("image", "frame"), towers={"frame": "image"})},
        {name: (fdl.Config(Decode), fdl.Config(Resize, 8)) for name in ("image", "text", "frame", "unread")},
    )
    config.fusions = {"both": fdl.Config(ToyFusion)}
    names = ("towers_image", "towers_text", "fusions_both", "objectives_fuse", "objectives_pair")
    bundle = Bundle(config, {"params": {name: {} for name in names}})
    both, image = exporting.part(bundle, ["image", "text"]), exporting.part(bundle, ["image"])
    assert (list(both.config.fusions), list(image.config.fusions)) == (["both"], [])
    assert set(both.variables["params"]) == set(names)
    assert set(image.variables["params"]) == {"towers_image", "objectives_pair"}
    assert list(both.config.data.transforms) == ["image", "text", "frame"]
    assert list(image.config.data.transforms) == ["image", "frame"]
    said = []
    assert not exporting.without_decoders(bundle, said.append).config.fusions
    assert said[1:] == ["fusions that no objective reads then stay behind: both"]
