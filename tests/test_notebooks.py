"""The notebooks run from top to bottom, on little data, and show what they promise."""

import json
import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATIENCE = 300  # seconds for a cell


def executed(name: str, folder: Path, changes: dict[str, str]):
    """The notebook after a run in `folder`, with these replacements in its cells, each of which must be there."""
    book = nbformat.read(NOTEBOOKS / name, as_version=4)
    sources = "\n".join(cell.source for cell in book.cells)
    for old, new in changes.items():
        assert old in sources
        for cell in book.cells:
            cell.source = cell.source.replace(old, new)
    client = nbclient.NotebookClient(book, timeout=PATIENCE, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return book


def said(book, part: str) -> str:
    """What the code cell that holds `part` has printed or shown as text."""
    (cell,) = (cell for cell in book.cells if cell.cell_type == "code" and part in cell.source)
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(texts)


def pictures(book) -> int:
    return sum("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ()))


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    """What the kernel inherits: mmjax of this checkout, one device, data of its own."""
    root = str(NOTEBOOKS.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))


def test_a_checkpoint_is_judged(surroundings, tmp_path):
    (tmp_path / "spoken_emoji").symlink_to(NOTEBOOKS / "spoken_emoji")
    book = executed("evaluate.ipynb", tmp_path, {'DATA = "spoken_emoji"': 'DATA = "spoken_emoji/small"'})
    assert "910,208 parameters" in said(book, 'mmjax.load("spoken_emoji")')
    lines = re.findall(r"(\w+) → (\w+) +R@1 +([\d.]+)%", said(book, "from mmjax.evaluators.retrieval"))
    assert len(lines) == 6
    shares = {(source, target): float(share) / 100 for source, target, share in lines}
    assert min(shares[pair] for pair in (("image", "text"), ("text", "audio"))) > 0.3  # of some 30; chance is 0.03
    probed = said(book, "from mmjax.evaluators.probe")
    top1 = float(re.findall(r"'probe/group/top1': ([\d.]+)", probed)[0])
    assert top1 > 0.4  # nine groups
    assert pictures(book) >= 6


def test_pretraining_on_ones_own_data(surroundings, tmp_path):
    book = executed("pretrain.ipynb", tmp_path, {"!mmjax evaluate": "!{sys.executable} -m mmjax evaluate"} | SYS)
    assert (tmp_path / "runs" / "shapes" / "experiment.json").exists()
    lines = [json.loads(line) for line in (tmp_path / "runs" / "shapes" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    best = [line["zeroshot/colour/top1"] for line in lines if "zeroshot/colour/top1" in line]
    assert best[-1] > 0.6  # of six
    assert "retrieval/image->text" in said(book, "mmjax evaluate runs/shapes")
    assert pictures(book) >= 3


SYS = {"from mmjax.experiment import load_experiment": "import sys\n\nfrom mmjax.experiment import load_experiment"}
