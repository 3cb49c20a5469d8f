"""A foreign format is a file in `mmjax/interop` and a row in `projects.py`: it is read, written, listed and named."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest

import mmjax
from mmjax import interop
from mmjax.cli.main import main, parsers
from mmjax.errors import UserError
from mmjax.interop import bundle as bundles
from mmjax.interop import projects
from mmjax.interop.projects import Project
from mmjax.interop.resolve import resolve
from tests.interop.small import clip

TOY = """
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UserError
from mmjax.experiment import record
from mmjax.interop.bundle import Bundle
from mmjax.interop.twins.twin import Twin


def read(path):
    try:
        arrays = np.load(path / "toy.npz")
    except OSError as error:
        raise UserError("toy.npz can't be read") from error
    config = record.loads((path / "toy.json").read_text())
    return Bundle(config, unflatten_dict(dict(arrays), sep="/"), {}, str(path))


def near(bundle):
    return Twin(bundle, "Toy")


def write(bundle, path, exact):
    path.mkdir()
    (path / "toy.json").write_text(record.dumps(bundle.config))
    np.savez(path / "toy.npz", **flatten_dict(bundle.variables, sep="/"))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Iterator[None]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "toy_layout.py").write_text(TOY)
    monkeypatch.setattr(interop, "__path__", [*interop.__path__, str(tmp_path / "modules")])
    row = Project("toy_layout", lambda path: (path / "toy.json").is_file(), "Toy", "a folder of Toy's (toy.json)")
    monkeypatch.setitem(projects.PROJECTS, "toy", row)
    yield
    sys.modules.pop("mmjax.interop.toy_layout", None)


def test_a_format_goes_out_and_comes_in(toy, tmp_path, capsys):
    own = bundles.save(clip(), tmp_path / "own")
    assert main(["export", str(own), str(tmp_path / "out"), "--to", "toy"]) == 0
    assert "in the layout of Toy, " in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "library_name: Toy" in card
    assert "`Toy` of Toy" in card
    assert "model = mmjax.load('out')" in card  # nothing is known of a library of its own
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    picture = np.zeros((8, 8, 3), np.uint8)
    first, out, again = (mmjax.load(tmp_path / name).embed(image=picture) for name in ("own", "out", "again"))
    np.testing.assert_array_equal(out, first)
    np.testing.assert_array_equal(again, first)


def test_it_is_named_wherever_formats_are(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"A model is .*, a folder of Toy's \(toy\.json\), or a name: hf:"):
        resolve(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "toy.json").touch()
    with pytest.raises(UserError, match=r"broken: toy\.npz can't be read"):
        resolve(tmp_path / "broken")
    assert "toy" in parsers()[1]["export"][0].format_help()


def test_what_is_read_alone_is_no_choice_of_export():
    assert projects.layouts() == ("mmjax", "open_clip", "sentence_transformers", "hf", "bv")
    assert projects.suffixes() == ".npz or .onnx"
