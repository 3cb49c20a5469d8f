"""The notebooks run from top to bottom, on little data, away from the repository, and conclude what they promise."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmjax.data.pipeline import prepare
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.runtime import metrics
from mmjax.train.truncation import warnings

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("evaluate.ipynb", "pretrain.ipynb")
PATIENCE = 1_200  # seconds for a cell: a bound for machines that are busy with other things
OURS = {"https://openmoji.org"}  # what a notebook's texts may point at


def read(name: str):
    return nbformat.read(NOTEBOOKS / name, as_version=4)


def executed(name: str, folder: Path, changes: dict[str, str] | None = None):
    """The notebook after a run in `folder`, with these replacements in its cells, each of which must be there."""
    book = read(name)
    sources = "\n".join(cell.source for cell in book.cells)
    for old, new in (changes or {}).items():
        assert old in sources
        for cell in book.cells:
            cell.source = cell.source.replace(old, new)
    client = nbclient.NotebookClient(book, timeout=PATIENCE, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return book


def source(name: str, part: str) -> str:
    """The one code cell that holds `part`."""
    (found,) = (cell.source for cell in read(name).cells if cell.cell_type == "code" and part in cell.source)
    return found


def said(book, part: str) -> str:
    """What the code cell that holds `part` has printed or shown as text."""
    (cell,) = (cell for cell in book.cells if cell.cell_type == "code" and part in cell.source)
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(texts)


def pictures(book) -> int:
    return sum("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ()))


def in_red(book) -> str:
    """What stands on a red ground: all that went to stderr."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    return "".join(output["text"] for output in outputs)


def share(text: str, name: str) -> float:
    """The percentage behind this name, as a share."""
    (found,) = re.findall(rf"{re.escape(name)}: +([\d.]+)%", text)
    return float(found) / 100


@pytest.fixture
def work(monkeypatch, tmp_path) -> Path:
    """A folder to run in: beside it mmjax lies as where packages are installed, without the repository around it; in it
    a folder `mmjax` that is no package, as a clone is. One device, data of its own."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mmjax").symlink_to(ROOT / "mmjax")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)  # 250 steps take longer without
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "work"
    (folder / "mmjax").mkdir(parents=True)
    return folder


def test_a_checkpoint_is_judged(work):
    (work / "spoken_emoji").symlink_to(NOTEBOOKS / "spoken_emoji")
    book = executed("evaluate.ipynb", work, {'DATA = "spoken_emoji"': 'DATA = "spoken_emoji/small"'})
    assert "910,208 parameters" in said(book, "mmjax.load(CHECKPOINT)")
    told = said(book, "import Embedded, Retrieval")
    lines = re.findall(r"(\w+) → (\w+) +R@1 +([\d.]+)%", told)
    assert len(lines) == 6
    shares = {(one, other): float(found) / 100 for one, other, found in lines}
    chance = float(re.findall(r"at random, of \d+ +R@1 +([\d.]+)%", told)[0]) / 100
    assert min(shares[pair] for pair in (("image", "text"), ("text", "audio"))) > 0.3 > 5 * chance
    probed = said(book, "import Probe")
    assert re.findall(r"right of (\d+): ", probed) == re.findall(r"at random, of (\d+) ", told)
    assert float(re.findall(r"right of \d+: ([\d.]+)%", probed)[0]) > 40  # nine groups
    assert re.findall(r"(read|embedded|learnt) after \d+ s", probed) == ["read", "embedded", "learnt"]
    plots = said(book, "plane =")
    assert re.findall(r"own name nearest of (\d+): ", plots) == ["24"]
    assert share(plots, "own name nearest of 24") > 0.3
    assert share(plots, "own modality's centre nearest of 3") > 2 / 3  # a region of its own
    assert pictures(book) >= 6
    warned = [line for line in in_red(book).splitlines() if "Warning" in line]
    assert all("seconds are heard, what follows is cut off" in line for line in warned), warned  # which is so


def test_pretraining_goes_from_top_to_bottom(work, monkeypatch):
    """A few of its steps; what they come to, the next test says."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    book = executed("pretrain.ipynb", work, {"OVERRIDES = []": 'OVERRIDES = ["steps=20", "evaluate_every=10"]'})
    assert (work / "runs" / "shapes" / "experiment.json").exists()
    lines = metrics.read(work / "runs" / "shapes")
    assert max(line["step"] for line in lines) == 20
    assert not [name for line in lines for name in line if name.startswith("truncated/")]
    assert re.search(r"\nTrainState\(step=20, [\d,]+ parameters\)$", said(book, "from mmjax.train.loop import train"))
    assert re.search(r"of \d+ pictures right: size \d+, colour \d+, shape \d+", said(book, "model.classify"))
    assert re.search(r"\d of the 8 nearest are large green triangles", said(book, "gallery ="))
    assert "retrieval/image->text" in said(book, '"evaluate", "runs/shapes"')
    assert pictures(book) >= 3
    assert "Warning" not in in_red(book)


@pytest.mark.slow  # the one above runs all of its cells
def test_pretraining_on_ones_own_data(work):
    book = executed("pretrain.ipynb", work)
    assert (work / "runs" / "shapes" / "experiment.json").exists()
    lines = metrics.read(work / "runs" / "shapes")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    for label, least in (("colour", 0.9), ("shape", 0.5)):  # at random 0.17 and 0.33
        found = [line[f"zeroshot/{label}/top1"] for line in lines if f"zeroshot/{label}/top1" in line]
        assert found[-1] >= least
    # No caption loses its last word, and the run has nothing to warn of.
    assert not [name for line in lines for name in line if name.startswith("truncated/")]
    trained = said(book, "from mmjax.train.loop import train")
    assert "warning" not in trained
    assert re.search(r"\nTrainState\(step=\d+, [\d,]+ parameters\)$", trained)
    asked = said(book, "model.classify")
    total, size, colour, shape, whole = map(
        int, re.findall(r"of (\d+) pictures right: size (\d+), colour (\d+), shape (\d+), all of it (\d+)", asked)[0]
    )
    assert total > 15
    assert colour >= 0.9 * total
    assert min(size, shape) >= 0.65 * total
    assert whole >= 0.5 * total  # of 36
    searched = said(book, "gallery =")
    assert int(re.findall(r"(\d) of the 8 nearest are large green triangles", searched)[0]) >= 6  # 15 of the 540 are
    assert "retrieval/image->text" in said(book, '"evaluate", "runs/shapes"')
    assert pictures(book) >= 3
    assert "Warning" not in in_red(book)


def test_the_notebook_s_text_is_true_of_fewer_tokens_and_of_its_own(tmp_path, monkeypatch):
    """The pictures are never opened: the first ones are drawn by a name alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    exec(source("pretrain.ipynb", "ImageDraw.Draw"), {"__name__": "drawn"})
    written = source("pretrain.ipynb", "%%writefile shapes.py").partition("\n")[2]
    assert written.count("WORDS = 24") == 1
    found = {}
    for words in (12, 24):
        Path(f"shapes{words}.py").write_text(written.replace("WORDS = 24", f"WORDS = {words}"))
        experiment = build(load_experiment(f"shapes{words}.py"))
        found[words] = list(warnings(experiment, prepare(experiment.data)))
    assert found[24] == []
    (warning,) = found[12]
    cut, of = map(int, re.findall(r"(\d+) of (\d+) texts of 'shapes', drawn at random, are longer", warning)[0])
    assert cut > 0.8 * of


def test_titles_break_between_words():
    tree = ast.parse(source("evaluate.ipynb", "def titled"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "titled")
    space: dict = {}
    exec("import textwrap\n" + ast.unparse(function), space)
    for title in (
        "heart hands light skin tone",
        "woman lifting weights dark skin tone",
        "person taking bath dark skin tone",
        "incomprehensibilities of medium-light and medium-dark skin tones, and so on",
    ):
        lines = space["titled"](title).split("\n")
        assert 1 < len(lines) <= 3
        words = " ".join(lines).removesuffix(" …").split()
        assert words == title.split()[: len(words)]
        assert len(words) == len(title.split()) or lines[-1].endswith(" …")


@pytest.mark.parametrize("name", NAMES)
def test_no_text_points_at_a_place_of_somebody_else(name):
    for text in (*(cell.source for cell in read(name).cells), (NOTEBOOKS / "README.md").read_text()):
        places = re.findall(r"https?://[^\s)\"']+", text)
        assert set(places) <= OURS
        assert "github" not in text
        assert "git clone" not in text


# --- the first cell ---


class Machine:
    """A runtime: what it has, and what was asked of pip."""

    def __init__(self, monkeypatch, origin: str | None, gpu: str | None = None, accel: bool = False):
        """origin: of the package mmjax; "" where there is none, None where a folder of that name is all."""
        self.installed: list[str] = []
        self.fails = ""

        def find(name: str):
            return SimpleNamespace(origin=origin) if name == "mmjax" and origin != "" else None

        def run(words, **_):
            if words[0] == "nvidia-smi":
                return SimpleNamespace(stdout=f"{gpu}\n", returncode=0)
            assert words[:-1] == [sys.executable, "-m", "pip", "install", "-q"]
            self.installed.append(words[-1])
            return SimpleNamespace(returncode=bool(self.fails), stderr=self.fails)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setattr(
            "shutil.which", lambda word: "/usr/bin/nvidia-smi" if gpu and word == "nvidia-smi" else None
        )
        monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/accel0"] if accel and pattern == "/dev/accel*" else [])
        monkeypatch.setattr(subprocess, "run", run)

    def start(self, place: str) -> None:
        """Runs the cell, with that as MMJAX_SOURCE."""
        (one, other) = (source(name, 'MMJAX_SOURCE = ""') for name in NAMES)
        assert one == other
        exec(one.replace('MMJAX_SOURCE = ""', f"MMJAX_SOURCE = {place!r}"), {"__name__": "cell"})


def test_where_mmjax_is_installed_nothing_is(monkeypatch):
    machine = Machine(monkeypatch, origin="/site-packages/mmjax/__init__.py")
    machine.start("")
    assert machine.installed == []


@pytest.mark.parametrize("origin", ["", None], ids=["nothing", "a mere folder of that name"])
def test_where_it_is_not_the_cell_installs_what_the_user_names_or_says_what_to_do(monkeypatch, tmp_path, origin):
    machine = Machine(monkeypatch, origin)
    with pytest.raises(ModuleNotFoundError, match=r"set MMJAX_SOURCE, above, to its wheel \(a \.whl\) or to a folder"):
        machine.start("")
    assert machine.installed == []
    wheel = tmp_path / "mmjax-0.1.0-py3-none-any.whl"
    wheel.touch()
    monkeypatch.chdir(tmp_path)
    for place in (wheel.name, str(wheel), str(tmp_path), "git+https://example.org/mmjax"):
        machine.start(place)
    assert machine.installed == [
        f"mmjax[demo] @ {wheel.as_uri()}",
        f"mmjax[demo] @ {wheel.as_uri()}",
        f"mmjax[demo] @ {tmp_path.as_uri()}",
        "mmjax[demo] @ git+https://example.org/mmjax",
    ]
    machine.fails = "no space left on device"
    with pytest.raises(RuntimeError, match="pip could not install it:\nno space left on device"):
        machine.start(wheel.name)


@pytest.mark.parametrize(
    ("has", "extra"),
    [
        ({"gpu": "550.54.15"}, "cuda12"),
        ({"gpu": "580.65.06"}, "cuda"),
        ({"gpu": "NVIDIA-SMI has failed"}, None),
        ({"accel": True}, "tpu"),
    ],
)
def test_jax_keeps_its_plugin_for_the_runtime_s_device(monkeypatch, has, extra):
    machine = Machine(monkeypatch, "", **has)
    machine.start("git+https://example.org/mmjax")
    assert machine.installed == [f"mmjax[demo{f',{extra}' if extra else ''}] @ git+https://example.org/mmjax"]
    if extra:
        assert re.search(
            rf'^        "{extra}": \["jax\[{extra.replace("cuda", "cuda1?3?")}', (ROOT / "setup.py").read_text(), re.M
        )
