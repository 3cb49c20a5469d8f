"""Parts of one's own: written, kept, read where their file is named, and refused where it isn't."""

import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.data.pipeline import batches, prepare
from mmjax.errors import UserError
from mmjax.experiment import own_parts, workdir
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.experiment.record import dumps, loads
from mmjax.inference.embed_dataset import _data_digest
from mmjax.interop import bundle as bundles
from mmjax.interop.bundle import Bundle
from mmjax.runtime import copies, hosts
from mmjax.runtime.files import digests
from mmjax.runtime.files.own_code import OwnFile, named
from mmjax.runtime.metrics import read
from mmjax.train.loop import train
from tests.tiny import write_shapes

HERE = Path(__file__).parent
NAMES = ("own.py", "own_losses.py")
KNOWN = r"isn't among the callables that an experiment\.json may name: "


def hexdigest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the two files."""
    for name in NAMES:
        shutil.copyfile(HERE / name, tmp_path / name)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def record(change: Callable[[dict[str, Any]], Any], text: str) -> str:
    """A record that somebody has changed, and sealed again."""
    value = json.loads(text)
    value.pop("blake2b")
    change(value)
    return json.dumps(digests.sealed(value))


# --- records ---


def test_a_record_names_parts_and_the_digests_of_their_files(own):
    config = load_experiment(f"{own}/own.py")
    text = dumps(config)
    value = json.loads(text)
    assert value["code"] == {name: hexdigest((own / name).read_bytes()) for name in NAMES}
    assert list(value) == ["mmjax", "name", "code", "experiment", "blake2b"]
    assert value["experiment"]["objectives"]["near"]["@call"] == "own_losses.py:Distance"
    assert value["experiment"]["evaluators"][0]["@call"] == "own.py:Spread"
    assert value["experiment"]["data"]["transforms"]["image"]["@tuple"][2] == {"@call": "own.py:Negative"}
    for code in (f"{own}/own.py", [f"{own}/own.py", own / "own_losses.py"]):
        again = loads(text, named(code))
        assert diff(again, config) == []
        assert dumps(again) == text
    assert type(build(loads(text, named(own / "own.py"))).objectives["near"]).__name__ == "Distance"


def test_the_digests_are_under_the_seal(own):
    text = dumps(load_experiment(f"{own}/own.py"))
    digest = hexdigest((own / "own.py").read_bytes())
    with pytest.raises(UserError, match=r"this experiment\.json isn't what mmjax wrote"):
        loads(text.replace(digest, "0" * 32), named(own / "own.py"))


def test_a_record_without_such_parts_has_no_such_entry():
    text = dumps(load_experiment("experiments/quickstart.py"))
    assert "code" not in json.loads(text)
    assert own_parts.files_of(loads(text)) == ()


def test_parts_of_files_that_nobody_named_are_refused_and_nothing_runs(own):
    text = dumps(load_experiment(f"{own}/own.py"))
    with pytest.raises(UserError) as error:
        loads(text, kept=lambda: own)
    told = str(error.value)
    assert told.startswith(
        "objectives.near is own_losses.py:Distance, data.transforms.image.2 is own.py:Negative, evaluators.0 is "
        "own.py:Spread: code of one's own, which runs only where you name its file. Its text is "
    )
    assert f"add --code {own}/own_losses.py --code {own}/own.py (in Python, code=['" in told
    assert "\n" not in told
    (own / "own.py").write_text("raise SystemExit")  # it isn't so much as looked at
    with pytest.raises(UserError, match=r"own\.py isn't kept here: get it, look at it, and add --code own\.py \(in"):
        loads(record(lambda r: r["experiment"].update(objectives={}), text))
    only = named(own / "own_losses.py")
    with pytest.raises(
        UserError, match=r"^data\.transforms\.image\.2 is own\.py:Negative, evaluators\.0 is own\.py:Sp"
    ):
        loads(text, only)


ATTACKS = {
    "own.py:system": "is no class that it defines itself",
    "own.py:np": "is no class that it defines itself",
    "own.py:dataclass": "is no class that it defines itself",
    "own.py:Distance": "is no class that it defines itself",  # which is imported there
    "own.py:Transform": "is no class that it defines itself",
    "own.py:own": "is no class that it defines itself",
    "own.py:spread": r"defines itself; did you mean Spread\?",
    "own.py:Plain": "is no class of fields there",
    "own.py:Spread.Inner": "'Spread.Inner' is no name of a class",
    "own.py:Spread.__init__": "'Spread.__init__' is no name of a class",
    "own.py:": "'' is no name of a class",
    "own.py:__loader__": "is no class that it defines itself",
    "own.py:os.system": "is no name of a class",
    "../own.py:Spread": "its 'code' lists own.py, own_losses.py",
    "/tmp/own.py:Spread": "its 'code' lists own.py, own_losses.py",
    "./own.py:Spread": "its 'code' lists",
    "own.py.py:Spread": "its 'code' lists",
    "OWN.py:Spread": "its 'code' lists",
    "other.py:Spread": "its 'code' lists",
    ".py:Spread": "its 'code' lists",
    "own:Spread": "the faces of mmjax list them",
    "own.py:Spread:own": "the faces of mmjax list them",
    "experiment_own:Spread": "the faces of mmjax list them",
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> tuple[str, tuple[OwnFile, ...]]:
    """A record, and the file that it needs, in which more stands than its parts."""
    folder = tmp_path_factory.mktemp("attacked")
    for name in NAMES:
        shutil.copyfile(HERE / name, folder / name)
    edit(folder / "own.py", "import numpy as np", "from os import system\nimport numpy as np\n\nclass Plain: pass\n")
    return dumps(load_experiment(f"{folder}/own.py")), named(folder / "own.py")


@pytest.mark.parametrize("called", ATTACKS)
def test_of_a_file_that_was_named_only_its_own_classes_of_fields_are_parts(attacked, called):
    text, code = attacked
    changed = record(lambda r: r["experiment"].update(evaluators=[{"@call": called, "command": "true"}]), text)
    with pytest.raises(UserError, match=r"^evaluators\.0: '.*' " + KNOWN.removesuffix(": ") + ".*" + ATTACKS[called]):
        loads(changed, code)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            {"../own.py": "0"},
            r"a key of 'code' is '\.\./own\.py', which becomes the name of a file: it must be one plain",
        ),
        ({"/tmp/own.py": "0"}, r"a key of 'code' is '/tmp/own\.py', which becomes"),
        ({"a\\own.py": "0"}, "a key of 'code' is .* which becomes"),
        ({".own.py": "0"}, "a key of 'code' is .* which becomes"),
        ({"own.pth": "0"}, r"'own\.pth' in its 'code' is no \.py"),
        ({"own.py": 0}, "its 'code' must be digests by names of files"),
        (["own.py"], "its 'code' must be digests by names of files"),
        (None, "its 'code' must be digests by names of files"),
    ],
)
def test_names_of_files_in_a_record_lead_nowhere(attacked, code, message):
    text, files = attacked
    for stand_ins in (False, True):
        with pytest.raises(UserError, match=message):
            loads(record(lambda r: r.update(code=code), text), files, stand_ins=stand_ins)


def test_two_files_of_one_name_are_refused(own):
    text = dumps(load_experiment(f"{own}/own.py"))
    twice = text.replace('"own.py": "', '"own.py": "0", "own.py": "', 1)
    with pytest.raises(UserError, match=r"this is no experiment\.json of mmjax: it says 'own\.py' twice in one place"):
        loads(twice, named(own / "own.py"))
    (own / "b").mkdir()
    shutil.copyfile(own / "own.py", own / "b" / "own.py")
    (own / "b" / "own_losses.py").write_text((own / "own_losses.py").read_text() + "# another\n")
    config, other = load_experiment(f"{own}/own.py"), load_experiment(f"{own}/b/own.py")
    config.objectives["near"] = other.objectives["near"]
    with pytest.raises(
        UserError, match=r"own_losses\.py is two files, .*/own_losses\.py and .*/own_losses\.py: a record"
    ):
        dumps(config)


def test_what_a_file_only_imports_or_hides_is_not_written(own):
    edit(
        own / "own.py",
        "@experiment",
        "def made():\n    class Hidden(Spread):\n        pass\n    return Hidden()\n\n\n@experiment",
    )
    edit(own / "own.py", "evaluators=[Spread()]", "evaluators=[made()]")
    with pytest.raises(
        UserError, match=r"^evaluators\.0 calls experiment_own_\w+:made, which may not stand in.* and class"
    ):
        dumps(load_experiment(f"{own}/own.py"))


# --- files that have changed since ---


def test_a_file_that_was_named_counts_as_it_is_now_and_a_difference_is_said(own, caplog):
    text = dumps(load_experiment(f"{own}/own.py"))
    (own / "experiment.json").write_text(text)
    before = hexdigest((own / "own_losses.py").read_bytes())
    edit(own / "own_losses.py", "** 2", "** 4")
    caplog.set_level(logging.WARNING)
    config = load_experiment(str(own), code=own / "own.py")
    after = hexdigest((own / "own_losses.py").read_bytes())
    path = own / "own_losses.py"
    assert caplog.messages == [
        f"{own}/experiment.json: {path} has changed since: its digest is {after}, and was {before}; it is taken as it "
        "is now"
    ]
    assert json.loads(dumps(config))["code"]["own_losses.py"] == after
    edit(own / "own_losses.py", "scale", "factor")
    with pytest.raises(
        UserError, match=r"objectives\.near: own_losses\.py:Distance has no field 'scale' \(.*has changed s"
    ):
        load_experiment(str(own), code=own / "own.py")


def test_an_experiment_whose_code_cannot_be_had_can_still_be_compared(own):
    config = load_experiment(f"{own}/own.py")
    text = dumps(config)
    apart = loads(text, stand_ins=True)
    assert [d.path for d in diff(apart, config)] == ["objectives.near", "data.transforms.image.2", "evaluators.0"]
    assert diff(loads(text, named(own / "own.py"), stand_ins=True), config) == []
    edit(own / "own_losses.py", "scale", "factor")
    now = load_experiment(f"{own}/own.py")
    assert "objectives.near" in [d.path for d in diff(loads(text, own_parts.files_of(now), stand_ins=True), now)]
    odd = record(lambda r: r["experiment"]["objectives"]["near"].update({"not a name": 1}), text)
    with pytest.raises(UserError, match=r"objectives\.near: 'not a name' is no name of a field"):
        loads(odd, stand_ins=True)


# --- workdirs ---


def test_only_the_first_host_writes(own, monkeypatch):
    monkeypatch.setattr(hosts, "first", lambda function: None)
    workdir.record(load_experiment(f"{own}/own.py"), own / "run")
    assert not (own / "run").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files, `shapes.csv`, and `run`, trained to its end. Not to be changed."""
    home = tmp_path_factory.mktemp("own")
    for name in NAMES:
        shutil.copyfile(HERE / name, home / name)
    table = write_shapes(home)
    train(load_experiment(f"{home}/own.py", [f"data.sources.shapes.table={table}"]), home / "run", name="own.py:own")
    return home


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(run, home)
    return home


def test_a_run_learns_by_a_loss_of_ones_own_and_keeps_its_text(run):
    lines = read(run / "run")
    losses = [line for line in lines if "near/loss" in line]
    assert [line["step"] for line in losses] == [1, 2, 3, 4]
    for line in losses:
        assert line["loss"] == pytest.approx(line["contrastive/loss"] + 0.5 * line["near/loss"], rel=1e-5)
    assert losses[-1]["near/loss"] < losses[0]["near/loss"]
    assert [line["spread/image"] > 0 for line in lines if "spread/image" in line] == [True]
    for folder in (run / "run", copies.of_step(run / "run", 4)):
        assert {path.name: path.read_bytes() for path in (folder / "code").iterdir()} == {
            name: (run / name).read_bytes() for name in NAMES
        }


def test_a_run_goes_on_by_its_file_and_by_its_record(run, copied, capsys):
    home, table = copied / "run", f"data.sources.shapes.table={run / 'shapes.csv'}"
    wanted = [line for line in read(home) if "near/loss" in line][-1]["near/loss"]
    lost = copied / "run" / "checkpoints" / "4"
    for command in (
        ["train", f"{copied}/own.py", "--workdir", f"{home}", table],
        ["train", f"{home}", "--workdir", f"{home}", "--code", f"{home}/code/own.py"],
    ):
        shutil.rmtree(lost)
        assert main(command) == 0
        said = capsys.readouterr().out.replace("\n", "")
        assert "goes on after step 2" in said
        assert f"mmjax evaluate {home} --code {home}/code/own_losses.py --code {home}/code/own.py" in said
        again = [line for line in read(home) if "near/loss" in line]
        assert (again[-1]["step"], again[-1]["near/loss"]) == (4, wanted)
    assert main(["train", f"{home}", "--workdir", f"{home}"]) == 2
    told = capsys.readouterr().err
    assert f"add --code {home}/code/own_losses.py --code {home}/code/own.py" in told


def test_a_run_does_not_go_on_by_other_code_unless_it_is_a_fork(run, copied, capsys):
    home, table = copied / "run", f"data.sources.shapes.table={run / 'shapes.csv'}"
    before = {name: (copied / name).read_bytes() for name in NAMES}
    edit(copied / "own_losses.py", "scale: float = 1.0", "factor: float = 1.0")
    edit(copied / "own_losses.py", "self.scale", "self.factor")
    after = (copied / "own_losses.py").read_bytes()
    command = ["train", f"{copied}/own.py", "--workdir", f"{home}", table]
    assert main(command) == 2
    told = capsys.readouterr().err
    there, here = (hexdigest(text) for text in (before["own_losses.py"], after))
    assert f"code.own_losses.py: '{there}' there ({home}/code/own_losses.py), '{here}' here ({copied}/own_los" in told
    assert "objectives.near: Distance(pair=('image', 'text'), scale=1.0) there, Distance(pair=('image', 'te" in told
    assert "code.own.py" not in told
    assert (home / "code" / "own_losses.py").read_bytes() == before["own_losses.py"]
    assert main(["show", f"{home}", f"{copied}/own.py", "--code", f"{home}/code/own_losses.py"]) == 2  # two of one name
    capsys.readouterr()
    workdir.record(load_experiment(f"{copied}/own.py", [table]), home, fork=True)
    assert (home / "code" / "own_losses.py").read_bytes() == after
    assert (home / "code.old" / "own_losses.py").read_bytes() == before["own_losses.py"]
    copies.mend(home, lambda text: pytest.fail(text))  # the older texts, in checkpoints, don't come back


def test_comments_count_as_a_difference_of_texts_and_the_run_is_named_with_both(run, copied, capsys):
    home = copied / "run"
    (copied / "own.py").write_text((copied / "own.py").read_text() + "# a thought\n")
    config = load_experiment(f"{copied}/own.py", [f"data.sources.shapes.table={run / 'shapes.csv'}"])
    with pytest.raises(
        UserError, match=r"belongs to another experiment, which differs in\n  code\.own\.py: '\w{32}' there"
    ):
        workdir.record(config, home)
    assert main(["show", f"{home}", f"{copied}/own.py"]) == 0
    assert "code.own.py" in capsys.readouterr().out


def test_damaged_code_comes_back_from_the_checkpoints(copied, caplog):
    home, said = copied / "run", []
    (home / "code" / "own.py").write_text("raise SystemExit")
    (home / "code" / "own_losses.py").unlink()
    assert copies.whole(home, "code") == copies.of_step(home, 4) / "code"
    with pytest.raises(UserError, match=r"checkpoints/4/beside/code/own\.py: look at it, and add --code"):
        mmjax.load(home)
    copies.mend(home, said.append)
    assert {name: (home / "code" / name).read_bytes() for name in NAMES} == {
        name: (copied / name).read_bytes() for name in NAMES
    }
    assert [line.partition(" ")[0] for line in said] == [f"{home}/code/{name}" for name in NAMES]
    assert "held something else than was written" in said[0]
    assert said[1].endswith("own_losses.py was missing: it is back, from the checkpoint of step 4")
    assert copies.whole(home, "code") == home / "code"


def test_copies_never_lead_out_of_the_workdir(copied):
    home = copied / "run"
    path = home / "experiment.json"
    path.write_text(record(lambda r: r.update(code={"../../mine.py": hexdigest(b"evil")}), path.read_text()))
    copies.mend(home, lambda text: None)
    assert not (copied / "mine.py").exists()


# --- whoever reads a run ---


def test_a_model_is_loaded_judged_and_given_away_where_its_file_is_named(run, tmp_path, capsys):
    home, code = f"{run}/run", f"{run}/own.py"
    with pytest.raises(
        UserError, match=rf"own\.py:Spread: code of one's own, .* Its text is {home}/code/own_losses\.py and"
    ):
        mmjax.load(home)
    model = mmjax.load(home, code=code)
    vector = model.embed(text="a red disc")
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.embed(text="a red disc"), vector)
    # In Python and on the command line.
    out = tmp_path / "out.json"
    page = tmp_path / "page.html"
    assert main(["evaluate", home, "--code", code, "--json", str(out), "--report", str(page)]) == 0
    assert f"--code {home}/code/own_losses.py --code {home}/code/own.py --report" in page.read_text()
    (spread,) = [line["spread/image"] for line in read(run / "run") if "spread/image" in line]
    assert json.loads(out.read_text())["test"]["spread/image"] == pytest.approx(spread, rel=1e-5)
    assert main(["export", home, str(tmp_path / "model"), "--code", code]) == 0
    folder = tmp_path / "model"
    assert (folder / "code" / "own_losses.py").read_bytes() == (run / "own_losses.py").read_bytes()
    assert "code=['model/code/own_losses.py', 'model/code/own.py'])" in (folder / "README.md").read_text()
    capsys.readouterr()
    with pytest.raises(
        UserError, match=rf"Its text is {folder}/code/own_losses\.py and {folder}/code/own\.py: look at"
    ):
        mmjax.load(folder)
    given = mmjax.load(folder, code=[folder / "code" / "own.py", folder / "code" / "own_losses.py"])
    assert np.array_equal(given.embed(text="a red disc"), vector)
    (folder / "code" / "own.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match=r"model is damaged: code/own\.py has"):
        mmjax.load(folder, code=code)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN"),
        ("evaluate", "RUN", "--watch"),
        ("embed", "RUN", "--out", "OUT"),
        ("export", "RUN", "OUT"),
        ("show", "RUN"),
        ("show", "RUN", "RUN/experiment.json"),
        ("plan", "RUN", "--topology", "cpu:1"),
        ("train", "RUN", "--workdir", "OUT"),
        ("train", "RUN", "--workdir", "RUN", "--replay", "3"),
        ("train", "RUN/experiment.json", "--workdir", "OUT"),
        ("train", "experiments/quickstart.py", "--workdir", "OUT", "init={'towers.text': 'RUN'}"),
    ],
    ids=" ".join,
)
def test_every_command_that_reads_a_record_asks_for_the_file(run, tmp_path, command, capsys, monkeypatch):
    monkeypatch.setattr(type(jax.config), "update", lambda *_: None)  # the devices are there already
    words = [word.replace("RUN", f"{run}/run").replace("OUT", f"{tmp_path}/out") for word in command]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert f"add --code {run}/run/code/own_losses.py --code {run}/run/code/own.py (in Python, code=[" in told
    assert len(told.splitlines()) == 1


def test_the_page_asks_for_the_file_too(run, monkeypatch):
    from mmjax.inference.demo import page

    monkeypatch.setattr(page, "_gradio", lambda: None)
    with pytest.raises(UserError, match=f"add --code {run}/run/code/own_losses.py"):
        page._found(f"{run}/run", None, None, None, print, page.Console())


def test_a_file_shown_beside_its_run_is_named_by_that(run, capsys):
    table = f"data.sources.shapes.table={run / 'shapes.csv'}"
    assert main(["show", f"{run}/run", f"{run}/own.py", table]) == 0
    assert "no difference between" in capsys.readouterr().out
    assert main(["show", f"{run}/run", "--code", f"{run}/own.py"]) == 0
    assert "Spread" in capsys.readouterr().out


def test_processes_that_read_have_transforms_of_ones_own(run):
    table = f"data.sources.shapes.table={run / 'shapes.csv'}"
    config = load_experiment(f"{run}/own.py", [table])
    config.data.transforms = {"image": config.data.transforms["image"]}
    found = []
    for workers in (0, 1):
        mixture: Any = fdl.build(config.data)
        data = prepare(replace(mixture, workers=workers), progress=False)
        stream = batches(data, batch_size=4, seed=0, step=0)
        found.append(next(stream)["image"])
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(*found)
    assert found[0][0, -1, -1].max() < 30  # the paper is black


def test_embeddings_by_changed_code_are_others(own):
    before = load_experiment(f"{own}/own.py")
    edit(own / "own.py", "255 - value", "value")
    found = []
    for config in (before, load_experiment(f"{own}/own.py")):
        config.data.sources, config.data.weights = {}, {"mnist": 1.0}  # no table, which would have to be there
        found.append(_data_digest(Bundle(config, {}), build(config).data, "other", "test"))
    assert found[0] != found[1]


def test_code_is_written_with_a_folder_and_read_from_it(own):
    files = named(own / "own.py")
    assert all(isinstance(file, OwnFile) for file in files)
    own_parts.write_code(files, own / "x")
    assert [path.name for path in (own / "x" / "code").iterdir()] == ["own.py"]
    own_parts.write_code((), own / "x")
    assert not list((own / "x" / "code").iterdir())
    assert bundles.RECORD == "experiment.json"
