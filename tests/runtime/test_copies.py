"""What damage there can be in a workdir, beside its checkpoints: it is named, and it is mended from them."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from etils import epath

import mmjax
from mmjax.data.tokenizers.files import load_tokenizers, save_tokenizers
from mmjax.errors import UserError
from mmjax.evaluate import watch
from mmjax.experiment import confined, load
from mmjax.experiment import record as records
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import keeping, prepared, record
from mmjax.interop import card
from mmjax.interop.resolve import resolve
from mmjax.runtime import copies, metrics
from mmjax.runtime.checkpoints import CHANGING, saved, saved_steps
from mmjax.runtime.files import digests
from mmjax.runtime.retention import Best, Keeping
from mmjax.train import bad_examples, same_data
from mmjax.train.loop import train
from tests.faults.spoil import flip
from tests.trained import TINY, Trained, tiny_config, without_copies

FILES = ("experiment.json", "data.json", "tokenizers/digests.json", "tokenizers/text.model")


def last(workdir: Path) -> int:
    return saved_steps(workdir)[-1]


def changed(path: Path) -> None:
    """Damage that is still JSON, where it is JSON."""
    text = path.read_bytes()
    known = {"experiment.json": (b'"seed": 0', b'"seed": 1'), "data.json": (b'"rows": 72', b'"rows": 73')}
    if path.name in known:
        assert known[path.name][0] in text
        path.write_bytes(text.replace(*known[path.name]))
    else:
        flip(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_every_file_that_a_run_reads_again_is_copied(trained: Trained):
    mine = copies.of_step(trained.workdir, last(trained.workdir))
    there = {path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file()}
    assert there >= {*FILES, metrics.FILE}
    assert copies.SEALED == (records.RECORD, same_data.FILE)
    assert copies.TOKENIZERS == confined.TOKENIZERS
    for name in (metrics.FILE, metrics.WATCHED, bad_examples.FILE.format(host="-3")):
        assert any(Path(name).match(pattern) for pattern in copies.LINES)
    for name in FILES:
        assert (mine / name).read_bytes() == (trained.workdir / name).read_bytes(), name
    assert [line for line in metrics.jsonl.read(mine / metrics.FILE) if "split" not in line] == [
        line for line in metrics.read(trained.workdir) if "split" not in line
    ]  # the line of the checkpoint's own step among them


@pytest.mark.parametrize("damage", [changed, cut, Path.unlink, pipe], ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_named_and_comes_back(trained_copy: Trained, damage):
    workdir, told = trained_copy.workdir, []
    before = {name: (workdir / name).read_bytes() for name in FILES}
    copies.mend(workdir, told.append)
    assert not told
    for name in FILES:
        damage(workdir / name)
    damaged = {name: (workdir / name).read_bytes() for name in FILES if (workdir / name).is_file()}
    copies.mend(workdir, told.append)
    assert {name: (workdir / name).read_bytes() for name in FILES} == before
    was = "was missing: it is back" if damage is Path.unlink else "held something else than was written: that is"
    assert len(told) == len(FILES)
    for name, line in zip(FILES, told, strict=True):
        assert line.startswith(f"{workdir / name} {was}")
        assert line.endswith(f"from the checkpoint of step {last(workdir)}")
    for name, content in damaged.items():  # nothing is lost
        assert (workdir / "damaged" / Path(name).name).read_bytes() == content
    copies.mend(workdir, told.append)
    assert len(told) == len(FILES)


def test_a_run_goes_on_with_what_it_began_with(trained_copy: Trained, capsys):
    workdir = trained_copy.workdir
    for name in FILES:
        changed(workdir / name)
    with pytest.raises(UserError, match=r"tokenizers, text\.model has other contents|digests\.json has other contents"):
        load_tokenizers(workdir / "tokenizers")
    train(tiny_config(trained_copy.table), workdir, name=TINY)
    out = "".join(capsys.readouterr().out.split())
    for name in FILES:
        assert f"{workdir / name}heldsomethingelsethanwaswritten".replace(" ", "") in out
    assert json.loads((workdir / "data.json").read_text())["train"]["shapes"]["rows"] == 72


def test_a_model_is_read_with_the_copies_and_says_so(trained_copy: Trained, caplog):
    workdir = trained_copy.workdir
    wanted = mmjax.load(workdir).embed(text=["a red disc"])
    for name in FILES:
        changed(workdir / name)
    with caplog.at_level(logging.WARNING):
        model = mmjax.load(workdir)
    np.testing.assert_array_equal(model.embed(text=["a red disc"]), wanted)
    mine = copies.of_step(workdir, last(workdir))
    said = [record.getMessage() for record in caplog.records]
    meant = "(a change that is meant goes without the entry 'blake2b' at its end)"
    assert f"{workdir / 'experiment.json'} is damaged {meant}: its copy is used, {mine / 'experiment.json'}" in said
    assert f"{workdir / 'tokenizers'} is damaged: its copy is used, {mine / 'tokenizers'}" in said


def test_without_copies_what_is_damaged_is_refused_by_name(trained_copy: Trained):
    workdir = trained_copy.workdir
    without_copies(workdir)
    changed(workdir / "tokenizers" / "text.model")
    with pytest.raises(UserError, match=rf"in {workdir}/tokenizers, text\.model has other contents than were written"):
        load_tokenizers(copies.whole(workdir, "tokenizers"))
    changed(workdir / "experiment.json")
    with pytest.raises(UserError, match=r"isn't what mmjax wrote.*take out the entry 'blake2b'"):
        load.load_experiment(str(workdir))
    record = json.loads((workdir / "experiment.json").read_text())
    del record["blake2b"]
    (workdir / "experiment.json").write_text(json.dumps(record))  # as the message says
    assert build(load.load_experiment(str(workdir))).seed == 1


@pytest.mark.parametrize("name", [*FILES, metrics.FILE])
def test_a_copy_that_is_damaged_is_no_help(trained_copy: Trained, name):
    workdir = trained_copy.workdir
    steps = saved_steps(workdir)
    flip(copies.of_step(workdir, steps[-1]) / name)
    assert copies.latest(workdir) == copies.of_step(workdir, steps[-2])
    assert f"beside/{name} has other contents" in saved(workdir)[-1].problems[0]


@pytest.mark.parametrize("seed", range(3))
def test_no_bit_of_a_record_can_be_flipped_unseen(trained: Trained, seed):
    text = (trained.workdir / "experiment.json").read_bytes()
    wanted, choose = records.loads(text.decode()), np.random.default_rng(seed)
    for place in choose.integers(len(text), size=100):
        other = bytearray(text)
        other[place] ^= 1 << int(choose.integers(8))
        try:
            read = records.loads(other.decode("utf-8"))
        except ValueError:  # UserError too
            continue
        assert read == wanted  # white space, or the name of the digest itself


@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_while_a_run_runs_comes_from_an_earlier_checkpoint(trained_copy: Trained, name):
    workdir, told = trained_copy.workdir, []
    steps, before = saved_steps(workdir), (workdir / name).read_bytes()
    changed(workdir / name)
    folder = epath.Path(copies.of_step(workdir, steps[-1]).parent)
    copies.write(workdir, folder)  # as the next save does
    digests.write(folder, leave_out=(CHANGING,))
    copies.mend(workdir, told.append)
    assert (workdir / name).read_bytes() == before
    assert told[0].endswith(f"from the checkpoint of step {steps[-2]}")


def test_a_table_that_lies_in_the_workdir_is_not_copied(tmp_path):
    for name in ("metrics.jsonl", "bad_examples-3.jsonl", "captions.jsonl"):
        (tmp_path / name).write_text("{}\n")
    copies.write(tmp_path, epath.Path(tmp_path / "step"))
    assert {path.name for path in (tmp_path / "step" / "beside").iterdir()} == {"metrics.jsonl", "bad_examples-3.jsonl"}


@pytest.mark.parametrize("damage", [changed, cut, Path.unlink], ids=lambda damage: damage.__name__)
def test_whoever_only_reads_takes_the_copies_and_writes_nothing(trained_copy: Trained, damage):
    workdir = trained_copy.workdir
    wanted = build(load.load_experiment(str(workdir)))
    for name in ("experiment.json", "tokenizers/text.model"):
        damage(workdir / name)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert build(load.load_experiment(str(workdir))) == wanted
    assert card.origin(workdir, resolve(workdir)).name == TINY
    assert build(records.loads(watch._next(workdir, None, set(), set()).record or "")) == wanted
    given = confined.record_of(str(workdir))
    ready = prepared(wanted.data, workdir, (), given.tokenizers if given else {}, given)
    assert ready.chains.tokenizers.keys() == {"text"}
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_only_a_run_lists_the_tokenizers_of_an_older_version(trained_copy: Trained):
    workdir, config = trained_copy.workdir, tiny_config(trained_copy.table)
    without_copies(workdir)
    listed = workdir / "tokenizers" / digests.NAME
    listed.unlink()
    prepared(build(config).data, workdir)
    assert not listed.exists()
    record(config, workdir, TINY)
    assert not digests.problems(epath.Path(listed.parent))


def test_a_whole_record_is_read_without_its_copies(trained_copy: Trained, monkeypatch):
    def forbidden(workdir):
        raise PermissionError(workdir)

    monkeypatch.setattr(copies, "saved_steps", forbidden)  # of somebody else's, who shows no checkpoints
    assert build(load.load_experiment(str(trained_copy.workdir))).seed == 0


def test_a_fork_may_have_more_tokenizers(trained_copy: Trained):
    folder, told = trained_copy.workdir / "tokenizers", []
    text = load_tokenizers(folder)["text"]
    save_tokenizers({"text": text, "title": text}, folder)  # and no checkpoint since
    listed = (folder / digests.NAME).read_bytes()
    assert copies.whole(trained_copy.workdir, "tokenizers") == folder
    copies.mend(trained_copy.workdir, told.append)
    assert not told
    assert (folder / digests.NAME).read_bytes() == listed
    flip(folder / "text.model")
    copies.mend(trained_copy.workdir, told.append)
    assert load_tokenizers(folder)["text"] == text


def test_a_pipe_among_a_strangers_copies_is_not_waited_for(trained_copy: Trained):
    workdir = trained_copy.workdir
    (workdir / "tokenizers" / "other.model").write_bytes(b"x")
    os.mkfifo(copies.of_step(workdir, last(workdir)) / "tokenizers" / "other.model")
    with pytest.raises(UserError, match=r"other\.model is no file of "):
        confined.record_of(str(workdir))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_text(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[3] = b"\xff\xfe" + lines[3]
    path.write_bytes(b"\n".join(lines))


def other_number(path: Path) -> None:
    lines = path.read_text().split("\n")
    lines[2] = json.dumps(json.loads(lines[2]) | {"loss": 0.125})
    path.write_text("\n".join(lines))


def other_step(path: Path) -> None:
    lines = path.read_text().split("\n")
    line = json.loads(lines[2])
    lines[2] = json.dumps(line | {"step": line["step"] - 1})
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "damage", [halved, no_text, other_number, other_step, Path.unlink], ids=lambda damage: damage.__name__
)
def test_metrics_that_were_lost_come_back(trained_copy: Trained, damage):
    workdir, told = trained_copy.workdir, []
    file, step = workdir / metrics.FILE, last(workdir)
    before = metrics.jsonl.read(file)
    damage(file)
    lost = file.read_bytes() if file.exists() else None
    with metrics.Metrics(workdir, step=step, say=told.append) as again:
        evaluated = again.evaluations(step)
    assert again.seconds == max(line.get("seconds", 0) for line in before)  # else more than all of it were goodput
    found = metrics.jsonl.read(file)
    trained_lines = [line for line in before if "split" not in line]
    assert [line for line in found if "split" not in line] == trained_lines
    assert all(line in before for line in found)  # evaluations of the last step are made again, or are there
    ends = [line for line in before if "split" in line and line["step"] == step]
    assert (
        evaluated.items()
        <= {line["split"]: {n: v for n, v in line.items() if n not in ("step", "split")} for line in ends}.items()
    )
    assert len(told) == 1
    assert f"of its {len(found)} lines to step {step}, of steps " in told[0]
    assert lost is None or (workdir / "damaged" / metrics.FILE).read_bytes() == lost
    with metrics.Metrics(workdir, step=step, say=told.append):
        assert len(told) == 1


def test_an_evaluation_that_was_made_twice_is_not_taken_for_damage(trained_copy: Trained):
    workdir, told = trained_copy.workdir, []
    step = last(workdir)
    copy = copies.of_step(workdir, step) / metrics.FILE
    written = metrics.jsonl.read(copy)
    first = next(line for line in written if "split" in line)
    twice = [*written, first | {"seconds": 1.0}]  # on another machine, say, and so with other digits
    for file in (copy, workdir / metrics.FILE):
        metrics.jsonl.rewrite(file, twice)
    with metrics.Metrics(workdir, step=step, say=told.append):
        assert not told
    assert metrics.jsonl.read(workdir / metrics.FILE) == twice
    assert not (workdir / "damaged").exists()


def test_lines_that_a_run_has_dropped_do_not_come_back_from_a_copy(trained_copy: Trained, caplog):
    workdir = trained_copy.workdir
    before, step = metrics.read(workdir), last(workdir)
    later = [{"step": step + n, "loss": 1.0} for n in range(1, 1_000)]  # written while the checkpoint was
    with (copies.of_step(workdir, step) / metrics.FILE).open("a") as file:
        file.writelines(map(metrics.jsonl.lines_text, later))
    assert metrics.read(workdir) == before
    assert not caplog.records


def test_metrics_without_a_copy_say_what_is_lost(trained_copy: Trained):
    workdir, told = trained_copy.workdir, []
    without_copies(workdir)
    with metrics.Metrics(workdir, step=last(workdir), say=told.append):
        assert not told
    halved(workdir / metrics.FILE)
    ends = max(line["step"] for line in metrics.read(workdir))
    with metrics.Metrics(workdir, step=last(workdir), say=told.append):
        lost = f"ends at step {ends}, and the run goes on after step {last(workdir)}: what lay between is lost"
        assert told == [f"{workdir / metrics.FILE} {lost}"]


def test_of_the_first_line_alone_nothing_is_said_to_be_lost(trained_copy: Trained):
    workdir, told = trained_copy.workdir, []
    without_copies(workdir)
    metrics.jsonl.rewrite(workdir / metrics.FILE, metrics.jsonl.read(workdir / metrics.FILE)[:1])  # log_every=100, say
    with metrics.Metrics(workdir, step=saved_steps(workdir)[0], say=told.append):
        assert not told


def test_whoever_reads_shortened_metrics_is_told(trained_copy: Trained, caplog):
    workdir = trained_copy.workdir
    before = [line for line in metrics.read(workdir) if "split" not in line]
    assert not caplog.records
    halved(workdir / metrics.FILE)
    assert [line for line in metrics.read(workdir) if "split" not in line] == before
    assert "lines, which are read from" in caplog.text


def test_bad_examples_that_were_lost_come_back(trained_copy: Trained):
    workdir = trained_copy.workdir
    line = {"step": 2, "source": "shapes", "id": "a", "modality": "image", "kind": "undecodable"}
    copy = copies.of_step(workdir, last(workdir)) / "bad_examples.jsonl"
    copy.write_text(json.dumps(line) + "\n")
    run = build(tiny_config(trained_copy.table))
    assert bad_examples.BadExamples(workdir, None, run, last(workdir)).last() == [line]  # type: ignore[arg-type]


def test_the_best_stay_although_their_scores_are_lost(trained_copy: Trained):
    best, scores = Best("validation", "R@1"), {}
    policy = Keeping(1, every=20, best=best, evaluations=lambda step: scores.get(step, {}))
    assert policy.holding([10, 20, 30, 40]).held == {10, 30}  # 20 stays for ever, 40 is the latest
    scores[30] = {"validation": {"R@1": 0.5}}
    assert policy.holding([10, 20, 30, 40]).held == {10}
    assert Keeping(1).holding([10, 20, 30]).held == set()

    workdir, told = trained_copy.workdir, []
    config = tiny_config(trained_copy.table, "keep=1")
    run = build(config)
    object.__setattr__(run, "keep_best", Best("test", "retrieval/image->text/R@1"))
    without_copies(workdir)
    halved(workdir / metrics.FILE)
    older = saved_steps(workdir)[:-1]
    with metrics.Metrics(workdir, step=last(workdir)) as numbers:
        found = keeping(run, numbers, workdir, told.append)
    lost = [step for step in older if step not in {line["step"] for line in metrics.read(workdir) if "split" in line}]
    assert lost
    assert found.held == set(lost)
    assert told[0].startswith(f"the checkpoints of steps {', '.join(map(str, lost))} stay")
