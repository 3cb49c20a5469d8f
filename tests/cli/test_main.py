import errno
import json
import os
import re
import subprocess
import sys
import time
import types

import pytest

from mmjax.cli import main as command_line
from mmjax.cli.main import main
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError
from mmjax.experiment import confined
from mmjax.experiment import record as records
from mmjax.runtime.hosts import encode
from tests.experiment.test_definition import file  # noqa: F401


@pytest.fixture
def called(monkeypatch):
    """Stands in for what the commands run; gathers the calls."""
    assert confined  # imported before what it reads is replaced
    calls = []

    def stand_in(module: str, function: str):
        fake = types.ModuleType(module)
        setattr(fake, function, lambda *a, **k: calls.append((a, k)))
        monkeypatch.setitem(sys.modules, module, fake)

    stand_in("mmjax.train.loop", "train")
    stand_in("mmjax.evaluate.model", "evaluate_model")
    stand_in("mmjax.data.datasets.prepare", "prepare_dataset")
    return calls


# --- train, evaluate, prepare ---


def test_train_reads_the_experiment_and_its_overrides_wherever_they_stand(called, file):  # noqa: F811
    assert main(["train", file, "seed=3", "--workdir", "run", "steps=5", "--profile", "10:15", "keep=1", "--fork"]) == 0
    ((config, workdir), options) = called[0]
    assert (config.seed, config.steps, config.keep, workdir) == (3, 5, 1, "run")
    wanted = {"name": f"{file}:tiny", "fork": True, "strict": False, "profile": (10, 15), "wandb": None}
    assert options == wanted | {"given": None, "code": None}  # the file is one's own


def test_evaluate_passes_what_was_asked(called):
    command = ["evaluate", "run", "--split", "test", "--step", "500", "--json", "out.json", "--evaluators", "a", "b"]
    labels = ["--label", "kind", "--templates", "a {}", "--rerank", "9"]
    command += ["--on", "cifar100", "--code", "a.py", "--code", "b.py"]
    assert main([*command, "--data-dir", "there", "--report", "out.html", *labels]) == 0
    wanted = {"split": "test", "step": 500, "json_path": "out.json", "evaluators": ["a", "b"]}
    wanted |= {"on": "cifar100", "data_dir": "there", "report": "out.html", "labels": ["kind"], "templates": ["a {}"]}
    wanted |= {"code": ["a.py", "b.py"], "rerank": 9}
    assert called == [(("run",), wanted)]


def test_prepare_of_videos_passes_what_was_asked(monkeypatch):
    from mmjax.data.prepare import prepare_videos as module
    from mmjax.data.prepare.settings import PrepareSettings

    calls = []
    monkeypatch.setattr(module, "prepare_videos", lambda *given: calls.append(given))
    assert main(["prepare", "videos", "lectures", "--out", "segments", "--seconds", "4", "--workers", "3"]) == 0
    assert (
        main(["prepare", "videos", "--short-side", "64", "t.csv", "--out", "o", "--rate", "0.5", "--seconds", "2"]) == 0
    )
    assert calls[0] == ("lectures", "segments", PrepareSettings(seconds=4.0), 3)
    assert calls[1][:3] == ("t.csv", "o", PrepareSettings(seconds=2.0, rate=0.5, short_side=64))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["videos"], "mmjax prepare videos FOLDER --out DIR: give the videos' folder"),
        (["videos", "lectures"], "and --out"),
        (["videos", "lectures", "--out", "o", "--data-dir", "d"], "--data-dir is where datasets are built"),
        (
            ["spoken_emoji", "--out", "o"],
            "mmjax prepare spoken_emoji: a second name, --out and the options of segments",
        ),
        (["spoken_emoji", "--rate", "2"], "are those of `mmjax prepare videos FOLDER --out DIR`"),
        (["{tmp}"], "{tmp} is no dataset: mmjax prepare videos {tmp} --out DIR"),
        (["videos", "{tmp}", "--out", "{tmp}/o"], "none of its 0 files has an ending of videos"),
        (["videos", "lectures", "--out", "o", "--rate", "0.3"], "are 1.5 frames"),
    ],
)
def test_prepare_tells_what_it_lacks(words, told, tmp_path, capsys):
    assert main(["prepare", *(word.format(tmp=tmp_path) for word in words)]) == 2
    assert told.format(tmp=tmp_path) in capsys.readouterr().err


def test_prepare_passes_what_was_asked(called):
    assert main(["prepare", "spoken_emoji", "--data-dir", "there"]) == 0
    assert main(["prepare", "spoken_emoji"]) == 0
    assert [a for a, _ in called] == [("spoken_emoji", "there"), ("spoken_emoji", None)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trian x.py", r"there is no command 'trian'; did you mean train\?"),
        ("train x.py", "the following arguments are required: --workdir"),
        ("train x.py --workdir run --profile 10", "'10' isn't FROM:TO, two step numbers such as 10:15"),
        ("train x.py --workdir run --profile 15:10", "isn't FROM:TO"),
        ("evaluate run --step last", "invalid int value: 'last'"),
    ],
)
def test_a_command_that_cannot_be_read_exits_2(command, message, capsys, called):
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert message.replace("\\", "") in capsys.readouterr().err
    assert not called


def test_labels_without_a_table_are_refused(capsys, called):
    assert main(["evaluate", "run", "--label", "kind"]) == 2
    assert "(a table's are given with --on TABLE): leave out --label" in capsys.readouterr().err
    assert not called


# --- errors ---


def test_a_users_error_is_a_message_without_a_traceback(capsys, called):
    assert main(["train", "no_such_file.py:tiny", "--workdir", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no file 'no_such_file.py'")
    assert "Traceback" not in error
    assert not called


def test_an_unknown_path_is_named_with_the_nearest(capsys, called, file):  # noqa: F811
    assert main(["train", file, "--workdir", "run", "towers.image.blocks.widht=3"]) == 2
    assert "there is no 'towers.image.blocks.widht'; did you mean towers.image.blocks.width" in capsys.readouterr().err
    assert not called


def test_what_is_told_without_a_traceback():
    assert command_line.meant_for_user(UserError("from anywhere"))
    assert command_line.meant_for_user(SplitNotFoundError("a.csv has no split 'dev'"))
    assert command_line.meant_for_user(OSError(errno.ENOSPC, "full"))


def test_anything_else_is_a_fault_whoever_raised_it():
    assert not command_line.meant_for_user(OSError(errno.EIO, "the disk is broken"))
    with pytest.raises(KeyError) as caught:
        {}["a"]
    assert not command_line.meant_for_user(caught.value)
    with pytest.raises(TypeError) as caught:  # raised by a statement of ours
        encode(object())
    assert not command_line.meant_for_user(caught.value)


def test_a_fault_keeps_its_traceback(monkeypatch, called, file):  # noqa: F811
    monkeypatch.setattr(sys.modules["mmjax.train.loop"], "train", lambda *a, **k: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        main(["train", file, "--workdir", "run"])


def test_an_interruption_ends_without_a_traceback(monkeypatch, called):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mmjax.evaluate.model"], "evaluate_model", interrupted)
    assert main(["evaluate", "run"]) == 130


# --- show ---


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("wide")
def test_show_prints_every_field_with_its_override(capsys, file):  # noqa: F811
    assert main(["show", file, "towers.image.blocks.width=6"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith(f"{file}:tiny: Experiment")
    image, text = (line for line in lines if "blocks: Blocks" in line)
    assert lines.index(image) > next(at for at, line in enumerate(lines) if "image: ViT" in line)
    assert lines.index(text) > next(at for at, line in enumerate(lines) if "text: TextTransformer" in line)
    assert "width=6" in image
    assert "width=8" in text
    assert "activation='gelu'" in image  # a default
    assert "peak_lr=0.001" in shown


def test_show_counts_parameters_by_hand(capsys, file):  # noqa: F811
    assert main(["show", file]) == 0
    counts = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("towers_"))
    width, vocab, length, embed_dim, pixels, patches = 8, 64, 6, 4, 4 * 4 * 3, 4
    norm = 2 * width
    block = 2 * norm + 4 * (width * width + width) + width * 4 * width + 4 * width + 4 * width * width + width
    trunk = block + norm + width * embed_dim
    assert int(counts["towers_image"].replace(",", "")) == trunk + pixels * width + width + patches * width
    assert int(counts["towers_text"].replace(",", "")) == trunk + (vocab + length) * width


def test_show_says_when_the_parts_do_not_fit(capsys, file):  # noqa: F811
    assert main(["show", file, "towers.image.patch=3"]) == 2
    assert "don't divide into patches of 3x3" in capsys.readouterr().err


@pytest.mark.usefixtures("wide")
def test_show_two_prints_where_they_differ(capsys, file):  # noqa: F811
    assert main(["show", file, f"{file}:small"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["towers.image.blocks.width", "8", "16"] in lines
    assert ["batch_size", "8", "16"] in lines
    assert ["5", "differences"] in lines
    assert main(["show", file, file]) == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [50, 80, 100])
def test_show_two_fits_the_terminal(columns, capsys, file, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", str(columns))
    longer = f"{file}:small"
    assert main(["show", file, longer, "optimizer.frozen=('^towers_image_with_a_name_that_is_long/.*$',)"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= columns
    assert "…" not in said
    whole = "".join(said.split())
    assert all("".join(part.split()) in whole for part in (longer, "towers.image.blocks.width", "optimizer.frozen"))
    assert "towers_image_with_a_name_that_is_long" in whole


@pytest.mark.usefixtures("wide")
def test_overrides_are_of_the_last_experiment_named(capsys, file, tmp_path):  # noqa: F811
    from mmjax.experiment.load import load_experiment

    (tmp_path / "experiment.json").write_text(records.dumps(load_experiment(file)))
    assert main(["show", str(tmp_path), file, "batch_size=4"]) == 0
    assert ["batch_size", "8", "4"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_show_takes_one_or_two(capsys):
    assert main(["show", "a", "b", "c"]) == 2
    assert "one experiment, or two to compare, not 3" in capsys.readouterr().err
    assert main(["show", "a=1"]) == 2


# --- help ---


@pytest.mark.parametrize("command", ["train", "evaluate", "show", "prepare"])
def test_help_teaches_by_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"examples:\n  mmjax {command} " in capsys.readouterr().out


def test_help_names_the_commands_at_once():
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "mmjax", "--help"], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 5  # 0.1 s on a free machine; importing jax alone would take more than a second
    assert all(command in done.stdout for command in ("train", "evaluate", "show", "prepare"))
    assert main([]) == 0


def test_the_record_that_show_reads_is_json(file):  # noqa: F811
    from mmjax.experiment.load import load_experiment

    assert json.loads(records.dumps(load_experiment(file)))["experiment"]["batch_size"] == 8


def test_a_disk_that_refuses_is_no_fault_of_the_program(monkeypatch, capsys, called, file):  # noqa: F811
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(sys.modules["mmjax.train.loop"], "train", full)
    assert main(["train", file, "--workdir", "run"]) == 2
    assert "No space left on device: 'metrics.jsonl'" in capsys.readouterr().err


def test_a_full_disk_is_one_line_with_its_place_and_what_is_free(called, file, monkeypatch, capsys, tmp_path):  # noqa: F811
    def train(config, workdir, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a file's `write` raises it: of no file

    monkeypatch.setattr(sys.modules["mmjax.train.loop"], "train", train)
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: types.SimpleNamespace(free=123_456 if path == tmp_path else 0)
    )
    assert main(["train", file, "--workdir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"error: No space left on device: '{tmp_path}/run' (0.1 MB are free there): make space; what was saved in "
        f"{tmp_path}/run is whole, and the same command then goes on\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        "train FILE --workdir gs://bucket/run",
        "train FILE --workdir gs://bucket/run --replay 3",
        "evaluate gs://bucket/run --watch",
        "evaluate somewhere --json gs://bucket/a.json",
        "evaluate somewhere --report gs://bucket/a.html",
        "evaluate --published --json gs://bucket/a.json",
        "checkpoints gs://bucket/run",
        "embed somewhere --out gs://bucket/embedded",
        "export somewhere gs://bucket/exported",
        "import somewhere gs://bucket/imported",
    ],
)
def test_nothing_is_written_to_an_address_nor_to_a_folder_of_that_name(command, file, tmp_path, capfd):  # noqa: F811
    there = sorted(tmp_path.rglob("*"))
    assert main(command.replace("FILE", str(file)).split()) == 2
    assert re.search("gs:/.*: that is an address, .* mount the bucket", capfd.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == there
