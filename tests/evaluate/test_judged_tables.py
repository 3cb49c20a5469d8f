"""Tables of one's own, judged whole: a row a caption, a list of captions, labels that are missing, others' models."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from mmjax import embeddings
from mmjax.cli.main import main
from mmjax.data.evaluation import evaluation_batches, evaluation_count, raw
from mmjax.data.pipeline import Mixture, prepare
from mmjax.data.sources.folder import Folder
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.from_embeddings import evaluate_embeddings
from mmjax.evaluate.model import evaluate_model
from mmjax.inference.embed_dataset import embed
from mmjax.interop import bundle as bundles
from mmjax.interop.bundle import stand_in
from mmjax.interop.resolve import resolve
from tests.tiny import COLOURS, SHAPES, draw
from tests.trained import Trained

CAPTIONS = ("a {} {}", "{} {}", "the {} {}", "one {} {}", "{}: {}")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    """24 pictures of five captions each; of one the kind is missing. By layout: where they are."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    rows, lists = [], []
    for c, colour in enumerate(COLOURS):
        for s, shape in enumerate(SHAPES):
            name, kind = f"{colour}-{shape}.png", shape if c + s else None
            draw(c, s, rng).save(folder / name)
            captions = [form.format(colour, shape) for form in CAPTIONS]
            rows += [(name, caption, kind) for caption in captions]
            lists.append((name, captions, kind))

    def parquet(path: str, kept: list) -> str:
        columns = dict(zip(("image", "text", "kind"), map(list, zip(*kept, strict=True)), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / path)
        return str(folder / path)

    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "text", "kind"), *rows])
    inside = [((folder / name).read_bytes(), caption, kind) for name, caption, kind in rows]
    copies = []
    for i, (name, caption, kind) in enumerate(rows):
        (folder / f"{i}.png").write_bytes((folder / name).read_bytes())
        copies.append((f"{i}.png", caption, kind))
    return {
        "rows": str(folder / "rows.csv"),
        "lists": parquet("lists.parquet", lists),
        "bytes": parquet("bytes.parquet", inside),
        "copies": parquet("copies.parquet", copies),
    }


@pytest.fixture(scope="module")
def imported(trained: Trained, tmp_path_factory) -> Path:
    """The model as it is after `mmjax import`: without data, without evaluators."""
    whole = resolve(trained.workdir)
    config = stand_in(whole.config.towers, whole.config.objectives, whole.config.data.transforms)
    kept = bundles.Bundle(config, whole.variables, whole.tokenizers, "someone's")
    return bundles.save(kept, tmp_path_factory.mktemp("imported") / "model")


class Letters(Tokenizer):
    """Each letter is a piece."""

    pad, bos, eos, vocab_size = 0, None, 1, 256

    def __init__(self):
        self.model = b""

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))


@pytest.mark.parametrize("layout", ["rows", "lists", "bytes", "copies"])
def test_every_layout_tells_which_rows_hold_one_picture(tables, layout):
    chain: dict[str, Any] = {"image": (Decode(), Resize(16))}
    pictures = prepare(Mixture({"own": 1.0}, chain, {"own": Folder(tables[layout])}))
    both = {**chain, "text": (PickCaption(), Tokenize(Letters(), 24))}
    data = prepare(Mixture({"own": 1.0}, both, {"own": Folder(tables[layout])}))
    assert evaluation_count(data, "all") == 120
    found = list(evaluation_batches(data, "all", 50, contents=True))
    keys = [key for _, columns in found for key in columns["image#"]]
    assert len(set(keys)) == 24
    assert all(len({keys[i] for i in range(start, start + 5)}) == 1 for start in range(0, 120, 5))
    captions = [caption for _, columns in found for caption in columns["text"]]
    assert captions[:6] == ["a red disc", "red disc", "the red disc", "one red disc", "red: disc", "a red square"]
    encoded = np.concatenate([batch["image_valid"] for batch, _ in found])[:120]
    assert encoded.sum() == (24 if layout == "lists" else 120)  # a list's picture is encoded once
    assert evaluation_count(pictures, "all") == (24 if layout == "lists" else 120)  # where no captions are read
    assert raw(data, "all", 7, "image") is not None
    assert raw(data, "all", 7, "text") == "the red square"


def test_a_table_is_judged_whole_however_it_is_laid_out(trained: Trained, imported: Path, tables, tmp_path, capsys):
    """The numbers of a model's own code, of another project's model, of embeddings; from rows and from lists."""
    out = tmp_path / "x.json"
    words = ["evaluate", str(trained.workdir), "--on", tables["rows"], "--label", "kind", "--templates", "a {}"]
    assert main([*words, "--json", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "retrieval/image->text: 24 pictures, among 120 captions; at random R@1 0.042" in said
    assert "retrieval/text->image: 120 captions, among 24 pictures; at random R@1 0.042" in said
    assert "zeroshot/kind: 23 examples in 4 classes; 1 without a label is left out; at random top1 0.250" in said
    assert "zeroshot is left out:" in said
    assert "has no column 'shape'; name one with --label, of kind" in said
    rows = json.loads(out.read_text())["all"]
    assert evaluate_model(imported, on=tables["lists"], labels=["kind"], templates=["a {}"])["all"] == pytest.approx(
        rows
    )
    folder = embed(str(imported), tables["lists"], tmp_path / "vectors")
    assert embeddings.manifest(folder)["count"] == 120
    retrieval = {name: value for name, value in rows.items() if name.startswith("retrieval/")}
    assert evaluate_embeddings([folder])["all"] == pytest.approx(retrieval)
    assert embeddings.read(folder).columns["kind"][:6] == [None] * 5 + ["square"]
    assert "image#" not in embeddings.read(folder).columns
    with pytest.raises(UserError, match=r"vectors holds all rows, .* learn from: embed --split train and --split test"):
        evaluate_embeddings([folder], labels=["kind"])


def test_what_a_table_cannot_be_judged_by_is_said(trained: Trained, imported: Path, tables, tmp_path, capsys):
    where = ["--on", tables["rows"]]
    for more, message in (
        (["--label", "knd"], r"--label 'knd', but the columns of labels in .*rows\.csv are kind; did you mean kind\?"),
        (["--templates", "a {}"], r"--templates are the prompts of classes: say which column .* --label COLUMN"),
        (["--label", "kind", "--templates", "a {c}"], r"--templates: 'a {c}' has {c}, which is no place for the label"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_model(
                imported,
                on=tables["rows"],
                labels=more[more.index("--label") + 1 : more.index("--label") + 2] if "--label" in more else (),
                templates=more[-1:] if "--templates" in more else (),
            )
    assert main(["evaluate", str(trained.workdir), *where, "--evaluators", "zeroshot"]) == 2
    assert "zeroshot reads a column 'shape', which" in capsys.readouterr().err
    assert main(["evaluate", str(trained.workdir), "--templates", "a {}"]) == 2
    assert "leave out --templates" in capsys.readouterr().err
    for learning in (KNN("kind", "all"), Probe("kind", "test")):
        with pytest.raises(
            UserError, match=r"learns from the train split, and the split 'all', .* holds those rows too"
        ):
            evaluate_model(imported, on=tables["rows"], split="all", evaluators=[learning])
    with pytest.raises(UserError, match="cifar100 has its own labels and prompts: --label and --templates are for"):
        evaluate_model(imported, on="cifar100", labels=["label"])
    alone = tmp_path / "alone.csv"
    alone.write_text("text,kind\na red disc,x\na bar,y\n")
    with pytest.raises(UserError, match=r"and the model have text in common, .*--label COLUMN \(kind\)"):
        evaluate_model(imported, on=str(alone))
    with pytest.raises(UserError, match=r"alone\.csv has text, and nothing else to classify"):
        evaluate_model(imported, on=str(alone), labels=["kind"])


@pytest.mark.parametrize("named", [False, True])
def test_a_sound_is_of_rows_that_share_its_id_where_the_table_has_ids(tmp_path, named):
    """Three rows of one picture, one with a sound. By the picture alone the other captions are of no sound."""
    draw(0, 0, np.random.default_rng(0)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.full(64, 0.1), 16_000)
    rows = [("a.png", "a.wav", "x", 1), ("a.png", "", "y", 1), ("a.png", "no.wav", "z", 1)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "audio", "text", "id" if named else "n"), *rows])
    chains = {"image": (Decode(), Resize(16)), "audio": (DecodeAudio(16_000), CropOrPad(64))}
    both = {**chains, "text": (PickCaption(), Tokenize(Letters(), 24))}
    data = prepare(Mixture({"own": 1.0}, both, {"own": Folder(str(tmp_path / "t.csv"))}))
    (batch, columns) = next(iter(evaluation_batches(data, "all", 3, contents=True)))
    assert len(set(columns["image#"])) == 1
    valid = {m: np.asarray(batch[f"{m}_valid"], bool) for m in both}
    assert valid["audio"].tolist() == [True, False, False]
    kept = {m: columns.pop(f"{m}#") for m in chains}
    split = Embedded(dict.fromkeys(both, np.eye(3, dtype=np.float32)), valid, columns, contents=kept)
    found = Retrieval()(split, lambda strings: np.zeros((0, 3)))
    assert found["retrieval/text->audio/queries"] == 1 + named  # what names another sound is of none, either way
    assert found["retrieval/text->image/queries"] == 3


def test_a_table_with_nothing_to_compare_is_an_error(imported: Path, tables, tmp_path, capsys):
    folder = Path(tables["rows"]).parent
    (folder / "apart.csv").write_text("image,text,kind\nred-disc.png,,\n,a red disc,\n")
    (folder / "broken.png").write_text("nothing")
    (folder / "broken.csv").write_text("image,text\nbroken.png,a red disc\n")
    out = tmp_path / "x.json"
    for name, more in (("apart.csv", []), ("broken.csv", []), ("apart.csv", ["--label", "kind"])):
        assert main(["evaluate", str(imported), "--on", str(folder / name), *more, "--json", str(out)]) == 2
        said = capsys.readouterr().err
        assert f"{name}, split all: there was nothing to judge for retrieval" in said
        assert "Traceback" not in said
    assert main(["embed", str(imported), str(folder / "apart.csv"), "--out", str(tmp_path / "vectors")]) == 0
    assert main(["evaluate", "--embeddings", str(tmp_path / "vectors"), "--json", str(out)]) == 2
    assert "apart.csv, split all: there was nothing to judge for retrieval" in capsys.readouterr().err
    assert not out.exists()
