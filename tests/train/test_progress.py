"""What a person sees: plain lines in a log, a live line on a terminal, tables whose cells make up the flat names."""

import io
import re

import pytest
from rich.console import Console

from mmjax.evaluate.tables import tables
from mmjax.train import progress
from mmjax.train.progress import Progress, duration
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def text(console: Console) -> str:
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_log_gets_plain_lines(clock):
    screen = console(terminal=False)
    with Progress(400, 0, screen) as shown:
        shown.step(1)
        shown.log(1, {"loss": 6.0})
        clock.now += 49 * 0.5  # half a second a step
        shown.step(50)
        shown.log(50, {"loss": 5.2134, "lr": 1 / 1900, "grad_norm": 3.0, "examples_per_second": 1020.4})
        scales = {"pair/logit_scale": 14.2857, "other/logit_scale": 100.0}
        shown.log(50, {"loss": 0.5, "lr": 0.001, **scales, "pair/logit_bias": -10.0, "examples_per_second": 99.0})
    assert text(screen).splitlines() == [
        "step 1/400  loss 6.000  ? left",
        "step 50/400  loss 5.213  lr 5.26e-04  1,020 examples/s  2:55 left",
        "step 50/400  loss 0.500  lr 1.00e-03  logit scale 14.3, 100.0  99 examples/s  2:55 left",
    ]


def test_time_left_leaves_out_the_first_step_which_compiles(clock):
    shown = Progress(30, 10, console(terminal=False))
    clock.now += 1000
    shown.step(11)
    clock.now += 8
    assert shown.left(15) == "0:30"  # 2 s a step, 15 to go


def test_a_terminal_gets_a_live_line_and_lines_that_stay(clock):
    screen = console(terminal=True)
    with Progress(400, 0, screen) as shown:
        shown.step(1)
        shown.log(1, {"loss": 6.0, "examples_per_second": 99.0})
        shown.say("a checkpoint was saved")
        shown.step(2)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text(screen))
    assert "loss 6.000  99 examples/s" in plain
    assert "a checkpoint was saved" in plain
    assert "step 2/400" in plain


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_cuts_nothing_off_the_live_line(clock, width):
    screen = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
    scales = {f"objective_{i}/logit_scale": 10.0 + i for i in range(3)}
    with Progress(400, 0, screen) as shown:
        shown.step(1)
        shown.log(1, {"loss": 6.0, "lr": 1e-3, **scales, "examples_per_second": 1020.0})
        shown.step(2)
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text(screen)).split())
    assert "step 2/400" in plain
    assert all(part in plain for part in ("loss 6.000 lr 1.00e-03", "10.0, 11.0,", "12.0", "1,020", "? left"))
    assert "…" not in plain


def test_commands_are_never_wrapped_or_read_as_markup():
    screen = console(terminal=False)
    command = f"mmjax train '{'x' * 300}' [red]init[/red]"
    Progress(1, 0, screen).say(command)
    assert text(screen) == command + "\n"


@pytest.mark.parametrize(("seconds", "shown"), [(4.6, "0:05"), (59.7, "1:00"), (151, "2:31"), (3751, "1:02:31")])
def test_duration(seconds, shown):
    assert duration(seconds) == shown


def test_tables_hold_every_number_under_its_flat_name():
    results = {
        "validation": {"retrieval/image->text/R@1": 0.4123, "retrieval/image->text/median_rank": 3.0},
        "test": {
            "retrieval/image->text/R@1": 0.5,
            "zeroshot/group/top1": None,
            "retrieval/image->text/median_rank": 12.5,
        },
    }
    made = tables(results, 1400)  # pyright: ignore[reportArgumentType]
    found = {}
    for table in made:
        split = str(table.title).split()[0]
        names = [str(column.header) for column in table.columns][1:]
        cells = [list(column.cells) for column in table.columns]
        for row, *values in zip(*cells, strict=True):
            found |= {(split, f"{row}/{name}"): value for name, value in zip(names, values, strict=True)}
    assert found == {
        ("validation", "retrieval/image->text/R@1"): "0.412",
        ("validation", "retrieval/image->text/median_rank"): "3.0",
        ("test", "retrieval/image->text/R@1"): "0.500",
        ("test", "retrieval/image->text/median_rank"): "12.5",
        ("test", "zeroshot/group/top1"): "not finite",
    }
    assert "1,400" in str(made[0].title)


@pytest.mark.parametrize(("width", "tall"), [(60, True), (80, True), (120, False)])
def test_numbers_are_whole_whatever_the_screen(width, tall):
    name = "retrieval_by_the_first_caption_of_each/image->text"
    scores = {f"{name}/R@1": 0.4123, f"{name}/R@10": 0.5, f"{name}/median_rank": 3.0, f"{name}/queries": 24.0}
    folds = {f"knn/category/top1/fold={fold}": 0.125 for fold in range(9)}
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    for table in tables({"test": scores | folds}, 1400):
        screen.print(table)
    said = text(screen)
    assert max(map(len, said.splitlines())) <= width
    assert said.count("0.125") == 9
    assert "…" not in said
    assert ("│" not in said) == tall
    if width == 80:
        lines = ["".join(line.split()) for line in said.splitlines()]
        assert lines[:3] == ["testsplit,step1,400", f"{name}/R@10.412", f"{name}/R@100.500"]


def test_what_was_judged_stands_below_each_table_and_in_no_column():
    counts = {"retrieval/text->image/queries": 1200.0, "retrieval/text->image/candidates": 1.0}
    classes = {"zeroshot/kind/examples": 23.0, "zeroshot/kind/classes": 1.0, "zeroshot/kind/left_out": 2.0}
    test = {"retrieval/text->image/R@1": 0.5, **counts, "zeroshot/kind/top1": 1.0, **classes}
    results = {"test": {**test, "zeroshot/kind/not_finite": 3.0}, "all": {"zeroshot/kind/left_out": 4.0}}
    how = {"test": ["retrieval: each counts once"], "all": ["retrieval: otherwise"]}
    retrieval, zeroshot, nothing = tables(results, 7, "own.csv", how)
    assert [str(c.header) for table in (retrieval, zeroshot) for c in table.columns] == ["", "R@1", "", "top1"]
    said = "retrieval/text->image: 1,200 captions, among 1 picture\nretrieval: each counts once"
    assert str(retrieval.caption) == said
    screen = Console(file=io.StringIO(), width=90)
    for _ in range(2):  # as wide as the screen, not as the table
        screen.print(retrieval)
    assert screen.file.getvalue().count(said) == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert str(zeroshot.caption) == (
        "zeroshot/kind: 23 examples in 1 class; 2 without a label are left out; "
        "3 embeddings aren't finite (NaN) and count as wrong"
    )
    assert str(nothing.caption) == "zeroshot/kind: 4 without a label are left out"
    fewer = {"retrieval/a->b/R@5": 0.5, "retrieval/a->b/queries": 2.0, "retrieval/a->b/candidates": 2.0}
    several = {"zeroshot/tags/mAP": 0.5, "zeroshot/tags/examples": 2.0, "zeroshot/tags/chance": 0.25}
    chance = tables({"test": {**fewer, "retrieval/a->b/chance": 0.5, **several}}, None)
    assert [str(table.caption).rpartition("; ")[2] for table in chance] == [
        "at random R@1 0.500",
        "at random mAP 0.250",
    ]
    screen = console(terminal=False)
    screen.print(retrieval)
    assert "among 1 picture" in " ".join(text(screen).split())
