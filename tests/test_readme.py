"""What the README shows is run as it stands there; its length, its links and its picture."""

import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import models, objectives
from mmjax.cli.main import main
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.experiment.record import dumps
from mmjax.runtime.metrics import read

ROOT = Path(__file__).parent.parent
TEXTS = ("README.md", "experiments/README.md", "notebooks/README.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SMALL = [
    *(
        f"towers.{tower}.{field}"
        for tower in ("image", "text")
        for field in ("blocks.width=16", "blocks.depth=1", "blocks.heads=2")
    ),
    *("batch_size=8", "steps=2", "optimizer.warmup_steps=1", "log_every=1"),
]


def test_a_loss_of_ones_own_is_a_dozen_lines(tmp_path):
    """As the guide shows it, in a file beside an experiment's."""
    readme = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- test: distance.py -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    imports = "import flax.linen as nn\nimport jax.numpy as jnp\nfrom mmjax.objectives import View\n"
    (tmp_path / "own.py").write_text(imports + found.group(1), encoding="utf-8")
    tiny = (ROOT / "tests" / "tiny.py").read_text(encoding="utf-8")
    contrastive = 'objectives={"image_text": Contrastive(("image", "text"))}'
    assert contrastive in tiny
    tiny = tiny.replace(contrastive, 'objectives={"near": Distance(("image", "text"))}')
    (tmp_path / "study.py").write_text(f"from own import Distance\n{tiny.replace(tiny[: tiny.index('import')], '')}")
    config = load_experiment(f"{tmp_path}/study.py:pair")
    assert '"@call": "own.py:Distance"' in dumps(config)
    near = build(config).objectives["near"]
    rows = np.random.default_rng(0).normal(size=(2, 5, 8))
    encoded = {view: SimpleNamespace(embedding=x) for view, x in zip(near.views(), rows, strict=True)}
    loss, _ = near.batch_loss(near.per_example(encoded, {}), {})
    assert loss == pytest.approx(np.mean(np.sum((rows[0] - rows[1]) ** 2, -1)), rel=1e-5)


def test_two_streams_of_words_and_regions_have_lxmerts_size():
    """As the guide shows it: 20 positions instead of 512, and without the types of words, pooler and attributes."""
    readme = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"\n( +towers=\{\"text\": TextTransformer\(vocab=30_522, length=20,.*?)\n\n", readme, re.DOTALL)
    assert found is not None
    known = {name: getattr(face, name) for face in (models, objectives) for name in dir(face)}
    post = {"width": 768, "heads": 12, "norm": "post"}
    known |= {name: models.Blocks(**post, depth=depth) for name, depth in (("words", 9), ("boxes", 5), ("both", 5))}
    parts = eval(f"dict(\n{textwrap.dedent(found[1])}\n)", known)
    batch = {
        "index": np.arange(2, dtype=np.uint32), "text": np.zeros((2, 20), np.int32), "text_valid": np.ones(2, bool),
        "regions": np.zeros((2, 36, 2_052), np.float32), "regions_mask": np.ones((2, 36), bool),
        "regions_valid": np.ones(2, bool), "regions_objects": np.zeros((2, 36), np.int32),
    }  # fmt: skip
    keys = {name: jax.random.key(0) for name in ("params", "mask")}
    held = jax.eval_shape(lambda: objectives.Pretrainer(**parts).init(keys, batch))["params"]
    backbone = {part: tree for part, tree in held.items() if not part.startswith("objectives_")}
    pooler = 768**2 + 768
    assert sum(leaf.size for leaf in jax.tree.leaves(backbone)) == 207_936_768 - (512 - 20 + 2) * 768 - pooler


def test_a_model_of_one_stream_has_vilts_size():
    """As the guide shows it: without the types of words, and with the heads."""
    readme = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"( +none, whole = .*?)\n\n", readme, re.DOTALL)
    assert found is not None
    blocks, _, parts = textwrap.dedent(found[1]).partition("\n")
    scope = {name: getattr(face, name) for face in (models, objectives) for name in dir(face)}
    exec(blocks, scope)
    pretrainer = objectives.Pretrainer(**eval(f"dict({parts})", scope))
    batch = {"text": np.ones((2, 40), np.int32), "image": np.zeros((2, 384, 384, 3), np.uint8)}
    batch |= {"text_valid": np.ones(2, bool), "image_valid": np.ones(2, bool), "index": np.arange(2)}
    shapes = jax.eval_shape(pretrainer.init, jax.random.key(0), batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 112_219_196 - 2 * 768


def test_a_newcomer_trains_on_own_pictures(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- test: own.py -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = ["image,text"]
    for i in range(60):
        Image.fromarray(np.full((40, 30, 3), 4 * i, np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,grey number {i}")
    (folder / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "own.py").write_text(found.group(1), encoding="utf-8")
    (tmp_path / "quickstart.py").write_text((ROOT / "experiments" / "quickstart.py").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delitem(sys.modules, "quickstart", raising=False)
    assert main(["train", "own.py", "--workdir", "run", *SMALL]) == 0
    own = build(load_experiment("own.py"))  # a small table is overfitted, and held-out rows show it on the way
    assert 0 < own.evaluate_every <= own.steps // 5
    assert any(evaluator.split == "validation" and evaluator.when == "always" for evaluator in own.evaluators)
    lines = read(Path("run"))
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert any("retrieval/image->text/R@1" in line for line in lines)


def test_it_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", ["main", "test"])
def test_a_marked_command_is_a_block_behind_its_mark(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^<!-- command: {name} -->\n```bash\n.+?^```$", readme, re.DOTALL | re.MULTILINE)) == 1


def anchors(text: str) -> set[str]:
    """The anchors of a text's headings, as they are made where it is shown."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings_that_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {link}"
    assert anchors("# What it costs, and what it takes\n") == {"what-it-costs-and-what-it-takes"}


def test_every_section_of_the_guide_is_in_its_contents():
    guide = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    contents, _, body = guide.partition("\n## ")
    listed = [link.removeprefix("#") for link in LINK.findall(contents)]
    assert sorted(listed) == sorted(anchors(f"## {body}".replace("\n# ", "\n")))


def test_it_shows_what_the_quickstart_draws():
    """A small picture: it is in every copy of the repository."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", readme)
    assert (ROOT / shown).stat().st_size < 200_000
    with Image.open(ROOT / shown) as picture:
        assert picture.width > 2 * picture.height  # three panels


def test_it_names_every_folder_of_the_package():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Where things are\n")[2].partition("\n## ")[0]
    folders = {path.name for path in (ROOT / "mmjax").iterdir() if path.is_dir() and path.name != "__pycache__"}
    rows = [row.split("|")[1:-1] for row in section.splitlines() if row.startswith("| `")]
    assert {folder.strip(" `") for folder, *_ in rows} == folders
    for folder, holds, add in rows:  # the folders within one, and where something is added
        for inner in re.findall(r"`(\w+)/(?:x\.py)?`", holds + add):
            assert (ROOT / "mmjax" / folder.strip(" `") / inner).is_dir(), inner
    assert len(section.splitlines()) <= 25
