"""Workdirs of strangers, attacked: what their records name is refused, and nothing is written outside them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.data.pipeline import Mixture
from mmjax.data.sources.tfds import Tfds
from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.errors import UserError
from mmjax.experiment import confined, workdir
from mmjax.experiment.confined import Record, check_confined, check_folder, record_of
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.runtime import copies
from mmjax.runtime.files import digests
from tests.trained import Trained, without_copies

TOKENIZE = "data.transforms.text.0.tokenizer"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """What there is, with sizes and times."""
    found = {path: os.lstat(path) for path in folder.rglob("*")}
    return {str(path): (told.st_size, told.st_mtime_ns) for path, told in found.items()}


class Hostile:
    """A workdir whose record says what a stranger wants, and what lies around it."""

    def __init__(self, home: Path, workdir: Path):
        self.home, self.workdir = home, workdir

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        self.forge(lambda record: change(record["experiment"]))

    def forge(self, change: Callable[[dict[str, Any]], Any]) -> None:
        path = self.workdir / "experiment.json"
        record = json.loads(path.read_text())
        change(record)
        del record["blake2b"]  # whoever forges a record can seal it, too
        path.write_text(json.dumps(digests.sealed(record)))

    def around(self) -> dict[str, tuple[int, int]]:
        """All but the workdir itself."""
        inside = f"{self.workdir}{os.sep}"
        here = tree(self.home)
        return {p: told for p, told in here.items() if not p.startswith(inside) and p != str(self.workdir)}


@pytest.fixture
def hostile(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    shutil.copytree(trained.workdir, home / "runs" / "x")
    (home / "mine.model").write_bytes((trained.workdir / "tokenizers" / "text.model").read_bytes())
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hostile(home, home / "runs" / "x")


def renamed(record: dict[str, Any], *path: str, name: str) -> None:
    """Calls the last of the keys otherwise."""
    for key in path[:-1]:
        record = record[key]
    record[name] = record.pop(path[-1])


def placed(record: dict[str, Any], *path: Any, value: Any) -> None:
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


def tokenizer_of(record: dict[str, Any]) -> dict[str, Any]:
    return record["data"]["transforms"]["text"]["@tuple"][0]["tokenizer"]


NAMES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a gallery's split": (
        lambda r: placed(r, "evaluators", 3, "split", value="x/../../P"),
        r"evaluators\.3\.split is 'x/\.\./\.\./P', which becomes the name of a file",
    ),
    "a retrieval's split": (
        lambda r: placed(r, "evaluators", 0, "split", value="../../P"),
        r"evaluators\.0\.split is '\.\./\.\./P', which becomes",
    ),
    "a transform's key": (
        lambda r: placed(r, "data", "transforms", "../../P", value=r["data"]["transforms"]["text"]),
        r"a key of data\.transforms is '\.\./\.\./P', which becomes",
    ),
    "a tower's key": (lambda r: renamed(r, "towers", "audio", name="/abs/P"), "a key of towers is '/abs/P', which"),
    "an objective's key": (
        lambda r: renamed(r, "objectives", "image_text", name="../P"),
        r"a key of objectives is '\.\./P', which",
    ),
    "a tokenizer's name": (
        lambda r: placed(tokenizer_of(r), "name", value="/abs/P"),
        r"SentencePiece\(name=\.\.\.\) is '/abs/P', which becomes",
    ),
    "the best's split": (
        lambda r: placed(
            r,
            "keep_best",
            value={"@call": "experiment:Best", "split": "../P", "metric": "loss", "count": 1},
        ),
        r"keep_best\.split is '\.\./P', which",
    ),
}


@pytest.mark.parametrize("attack", NAMES)
def test_names_that_lead_elsewhere_are_refused_by_every_command(hostile: Hostile, attack, capsys, tmp_path):
    change, message = NAMES[attack]
    hostile.change(change)
    before, x = hostile.around(), str(hostile.workdir)
    within = tree(hostile.workdir)
    out = str(tmp_path / "out")
    commands = [["evaluate", x], ["train", x, "--workdir", x]]
    if attack == "a gallery's split":  # of the others the record is refused in the same place
        commands += [["evaluate", x, "--watch"], ["embed", x, "--out", out], ["demo", x], ["export", x, out]]
        commands += [["train", x, "--workdir", out], ["train", x, "--workdir", x, "--replay", "3"], ["show", x]]
        with pytest.raises(UserError, match=message):
            mmjax.load(x)
    for command in commands:
        assert main(command) == 2, command
        told = capsys.readouterr().err
        assert told.startswith("error: "), command
        assert pytest.importorskip("re").search(message, told), (command, told)
    assert hostile.around() == before
    assert tree(hostile.workdir) == within
    assert not Path(out).exists()


def test_code_that_a_workdir_brings_runs_by_no_command(hostile: Hostile, capsys, tmp_path, monkeypatch):
    """Neither what it keeps, nor a file of that name where the command is given, nor what the user's own imports."""
    x, out, ran = str(hostile.workdir), str(tmp_path / "out"), hostile.home / "ran"
    evil = f"from os import system\nopen({str(ran)!r}, 'w')\nclass Mine: pass\n"
    mine = tmp_path / "own.py"
    mine.write_text("from os import system\nfrom mmjax.models import ViT\nclass Plain: pass\n")
    monkeypatch.chdir(hostile.home)
    for folder in (hostile.workdir, hostile.workdir / "code", hostile.home):
        folder.mkdir(exist_ok=True)
        (folder / "own.py").write_text(evil)
    hostile.forge(lambda r: r.update(code={"own.py": digests.of_content(evil.encode())}))
    commands = [["evaluate", x], ["evaluate", x, "--watch"], ["embed", x, "--out", out], ["demo", x], ["show", x]]
    commands += [["export", x, out], ["train", x, "--workdir", out], ["train", x, "--workdir", x, "--replay", "3"]]
    for called in ("own.py:Mine", "own.py:system"):
        hostile.change(lambda r, called=called: placed(r, "objectives", "image_text", "@call", value=called))
        before = hostile.around()
        within = tree(hostile.workdir)
        for command in commands:
            assert main(command) == 2, command
            told = capsys.readouterr().err
            assert f"objectives.image_text is {called}: code of one's own, which runs only where you name" in told, (
                command
            )
            assert f"Its text is {x}/code/own.py: look at it, and add --code {x}/code/own.py (in Python, code='" in told
        with pytest.raises(UserError, match="which runs only where you name its file"):
            mmjax.load(x)
        assert not ran.exists()
        assert hostile.around() == before
        assert tree(hostile.workdir) == within
    for symbol in ("system", "ViT", "Plain", "Mine"):
        hostile.change(
            lambda r, symbol=symbol: placed(r, "objectives", "image_text", "@call", value=f"own.py:{symbol}")
        )
        with pytest.raises(
            UserError, match=rf"own\.py:{symbol}' isn't among the callables .*own\.py was named, and {symbol}"
        ):
            mmjax.load(x, code=mine)
    assert not ran.exists()


@pytest.mark.parametrize(
    "name", ["../../P.py", "/abs/P.py", "code/../../P.py", "..", ".P.py", "P.pth", "a\\P.py", "a\nP.py"]
)
def test_code_is_kept_by_plain_names(hostile: Hostile, name, capsys, tmp_path):
    x, out = str(hostile.workdir), str(tmp_path / "out")
    hostile.forge(lambda r: r.update(code={name: digests.of_content(b"evil")}))
    for folder in (copies.of_step(hostile.workdir, 24), hostile.workdir):
        (folder / "code").mkdir()
        (folder / "code" / "P.py").write_text("evil")
    before = hostile.around()
    for command in (["evaluate", x], ["train", x, "--workdir", x], ["train", x, "--workdir", out], ["export", x, out]):
        assert main(command) == 2, command
        assert "'code' is " in (told := capsys.readouterr().err) or "in its 'code' is no .py" in told, command
    copies.mend(hostile.workdir, lambda text: None)
    assert hostile.around() == before
    assert not Path(out).exists()


def test_tokenizers_come_from_the_workdir_alone(hostile: Hostile, capsys, tmp_path):
    """A path in a record is neither read nor copied, whatever lies there."""
    x, secret = str(hostile.workdir), hostile.home / "mine.model"
    without_copies(hostile.workdir)
    hostile.change(lambda r: placed(tokenizer_of(r), "path", value=str(secret)))
    shutil.rmtree(hostile.workdir / "tokenizers")
    before = hostile.around()
    commands = [
        ["evaluate", x],
        ["embed", x, "--split", "test", "--out", str(tmp_path / "out")],
        ["train", x, "--workdir", x],
        ["train", x, "--workdir", x, "--replay", "3"],
    ]
    for command in commands:
        assert main(command) == 2, command
        told = capsys.readouterr().err
        assert f"error: {x} has no tokenizer of 'text', and '{secret}', which its record names, isn't read" in told
    assert not (hostile.workdir / "tokenizers").exists()
    assert not (tmp_path / "out").exists()
    assert hostile.around() == before
    model = mmjax.load(x)  # pictures can be embedded, and the tokenizer isn't looked for
    with pytest.raises(UserError, match="has no tokenizer, which the text tower needs"):
        model.embed(text="a red disc")


def test_a_checkpoint_s_tokenizer_is_not_trained_anew(hostile: Hostile, capsys):
    without_copies(hostile.workdir)
    shutil.rmtree(hostile.workdir / "tokenizers")
    assert main(["evaluate", str(hostile.workdir)]) == 2
    assert f"{hostile.workdir} has no tokenizer of 'text': bring tokenizers/text.* back" in capsys.readouterr().err
    assert not (hostile.workdir / "tokenizers").exists()


def test_ones_own_runs_with_a_tokenizer_of_a_file_go_on_without_it(trained: Trained, tmp_path):
    """The file named in an experiment's file is read once; the record's own tokenizer is taken afterwards."""
    own = tmp_path / "own"
    shutil.copytree(trained.workdir, own)
    gone = tmp_path / "gone.model"
    config = load_experiment(str(own), [f"{TOKENIZE}.path={gone}"])
    data, kept = build(config).data, load_tokenizers(own / "tokenizers")
    for given in (record_of(str(own)), Record(str(own), kept)):
        assert workdir.prepared(data, own, given=given).chains.tokenizers == kept
    # A new run by that record takes what lies beside it.
    assert workdir.prepared(data, tmp_path / "new", given=record_of(str(own))).chains.tokenizers == kept
    assert (tmp_path / "new" / "tokenizers" / "text.model").read_bytes() == kept["text"].model
    # What is named by hand, or in a file of Python, is one's own, and is read.
    shutil.copyfile(own / "tokenizers" / "text.model", gone)
    by_hand = record_of(str(tmp_path / "nothing"), [f"{TOKENIZE}.path={gone}"])
    assert workdir.prepared(data, tmp_path / "hand", given=by_hand).chains.tokenizers == kept
    assert record_of("experiments/clip.py") is None
    assert record_of("experiments/clip.py:tiny") is None
    assert workdir.prepared(data, tmp_path / "file", given=None).chains.tokenizers == kept


def test_a_new_run_by_a_record_trains_its_tokenizer_on_its_own_captions(trained: Trained, tmp_path, monkeypatch):
    """As one by a file does: what is trained on captions isn't taken from beside the record."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    data = build(load_experiment(str(trained.workdir))).data
    given = record_of(str(trained.workdir))
    assert given is not None
    assert confined.models(given, data) == {}
    assert confined.models(replace(given, trains=False), data) == given.tokenizers
    made = workdir.prepared(data, tmp_path / "new", given=given)
    assert made.chains.tokenizers == given.tokenizers  # the captions are the same
    assert list((tmp_path / "cache" / "tokenizers").glob("captions-*.model"))


def test_what_data_a_record_names_is_said(hostile: Hostile, trained: Trained, capsys):
    assert main(["evaluate", str(hostile.workdir), "--split", "test", "--evaluators", "zeroshot"]) == 0
    said = "".join(capsys.readouterr().out.split("\n"))
    assert f"{hostile.workdir} names its data: {trained.table}" in said


def mixture(**fields: Any) -> Mixture:
    return Mixture({"d": 1.0}, {}, {"d": Tfds(**fields)})


def test_nothing_is_built_where_a_record_says(tmp_path):
    there = tmp_path / "P"
    given, said = Record("runs/x", {}), []
    with pytest.raises(
        UserError, match=r"data\.sources\.d is in data_dir='.*P', which the record of runs/x names, and"
    ):
        check_confined(given, mixture(name="spoken_emoji", data_dir=str(there)), {}, said.append)
    with pytest.raises(UserError, match=r"isn't there: nothing is built where a record says; mmjax prepare mnist"):
        check_confined(given, mixture(name="mnist", data_dir=str(there)), {}, said.append)
    assert not there.exists()
    by_hand = replace(given, overrides=("data.sources.d.data_dir",))
    check_confined(by_hand, mixture(name="mnist", data_dir=str(there)), {}, said.append)
    check_confined(given, mixture(name="mnist"), {}, said.append)  # in TFDS's own folder, which is a cache
    assert said == [f"runs/x names its data: {there}"]


@pytest.mark.parametrize("name", ["coco_captions/../../../P", "../P", "/abs/P", "mnist:../../P", "a//b"])
def test_datasets_have_plain_names(name, tmp_path):
    from mmjax.data.datasets.prepare import prepare_dataset

    with pytest.raises(UserError, match=r"a part of the dataset's name '.*' is '.*', which becomes the name of a file"):
        prepare_dataset(name, str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "name",
    ["gallery-test.png", "curves.png", "metrics.jsonl", "experiment.tmp", ".lock", "tensorboard", "checkpoints/9"],
)
def test_links_out_of_a_workdir_are_not_written_through(hostile: Hostile, name, capsys):
    victim = hostile.home / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    link = hostile.workdir / name
    shutil.rmtree(link, ignore_errors=True) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(victim if name in ("tensorboard", "checkpoints/9") else victim / "file")
    before, x = hostile.around(), str(hostile.workdir)
    for command in (["evaluate", x], ["train", x, "--workdir", x], ["evaluate", x, "--watch"]):
        if "--watch" in command and name not in ("curves.png", "tensorboard"):
            continue
        assert main(command) == 2, command
        assert f"error: {link} is a link to " in capsys.readouterr().err
    assert hostile.around() == before


def test_links_within_a_workdir_and_to_it_are_as_good_as_files(tmp_path):
    home = tmp_path / "disk" / "run"
    (home / "checkpoints").mkdir(parents=True)
    (home / "metrics.jsonl").write_text("")
    (home / "latest").symlink_to("checkpoints")
    (tmp_path / "run").symlink_to(home)
    check_folder(tmp_path / "run")
    check_folder(home)
    check_folder(tmp_path / "nothing")
    os.mkfifo(home / "pipe")
    with pytest.raises(UserError, match="pipe is neither a file nor a folder: take it away"):
        check_folder(tmp_path / "run")


def test_a_tokenizer_that_is_a_link_elsewhere_or_a_pipe_is_not_read(hostile: Hostile):
    kept = hostile.workdir / "tokenizers" / "text.model"
    kept.unlink()
    kept.symlink_to(hostile.home / "mine.model")
    assert copies.whole(hostile.workdir, "tokenizers") == copies.of_step(hostile.workdir, 24) / "tokenizers"
    without_copies(hostile.workdir)
    with pytest.raises(UserError, match=r"text\.model is no file of .*x itself, and isn't read"):
        mmjax.load(hostile.workdir)
    kept.unlink()
    os.mkfifo(kept)
    with pytest.raises(UserError, match=r"text\.model is a pipe and no file, and isn't read"):
        mmjax.load(hostile.workdir)
    assert SentencePiece().name == "captions"


def test_numbers_and_nesting_that_can_not_be_are_told_by_every_command(hostile: Hostile, capsys, tmp_path):
    x, path = str(hostile.workdir), hostile.workdir / "experiment.json"
    without_copies(hostile.workdir)
    whole = path.read_text()
    within, out = tree(hostile.workdir / "checkpoints"), str(tmp_path / "out")
    for content, message, commands in (
        ("vocab", "towers.text.vocab=35184372088832 is beyond 2,147,483,647", ("evaluate", "train", "show")),
        ("weight", "weights.masked_image=inf must be a finite number", ("evaluate", "show")),
        ("deep", "it is nested too deeply", ("evaluate", "train", "show", "export")),
        ("bytes", "experiment.json is no text: ", ("evaluate", "train", "show")),
    ):
        path.write_text(whole)
        if content == "vocab":
            hostile.change(lambda r: placed(r, "towers", "text", "vocab", value=2**45))
        elif content == "weight":
            hostile.change(lambda r: placed(r, "weights", "masked_image", value={"@float": "inf"}))
        else:
            path.write_bytes(b"\xff\xfe" if content == "bytes" else b"[" * 200_000)
        more = {"train": ["--workdir", x], "export": [out]}
        for command in commands:
            assert main([command, x, *more.get(command, [])]) == 2, command
            assert message in capsys.readouterr().err, command
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            mmjax.load(x)
    assert tree(hostile.workdir / "checkpoints") == within
