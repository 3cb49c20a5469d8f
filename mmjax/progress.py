"""What a person sees of a run: a live line on a terminal, plain lines in a log, and tables of results."""

import time
from collections.abc import Mapping, Sequence
from typing import Self

from rich import progress
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from mmjax import counts

BAR = 20  # columns
UNLIMITED = 1 << 20

Results = Mapping[str, Mapping[str, float]]  # {split: {flat name: value}}
Protocols = Mapping[str, Sequence[str]]  # how was counted: {split: a sentence an evaluator, which begins with its name}


class Progress:
    """How far training is, how fast, and how long it will take.

    On a terminal a line that is rewritten as steps go by; elsewhere a line at each `log`. Time left is reckoned from
    the pace since the second step (the first one compiles), evaluations and saves included.
    """

    def __init__(self, steps: int, start: int, console: Console | None = None, quiet: bool = False):
        """quiet: says nothing at all (of several hosts one speaks)."""
        self.console = console or Console(highlight=False, quiet=quiet)
        self._steps, self._start = steps, start
        self._began: float | None = None
        self._live: progress.Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            self._live = progress.Progress(
                progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                progress.BarColumn(BAR),
                progress.TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=False)),  # never cut off
                console=self.console,
            )
            self._task = self._live.add_task("train", total=self._steps, completed=self._start, numbers="compiling")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def step(self, step: int) -> None:
        """`step` steps are done (or queued: it may run one ahead)."""
        if self._began is None:
            self._began, self._first = time.perf_counter(), step
        if self._live is not None:
            self._live.update(self._task, completed=step)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """A logged step, of whose metrics a few are shown: the loss, the learning rate, each objective's logit scale,
        and the pace, as far as there are such."""
        told = [f"loss {numbers['loss']:.3f}"]
        if "lr" in numbers:
            told.append(f"lr {numbers['lr']:.2e}")
        if scales := [value for name, value in numbers.items() if name.endswith("/logit_scale")]:
            told.append(f"logit scale {', '.join(f'{scale:.1f}' for scale in scales)}")
        if "examples_per_second" in numbers:
            told.append(f"{numbers['examples_per_second']:,.0f} examples/s")
        line = "  ".join([*told, f"{self.left(step)} left"])
        if self._live is not None:
            self._live.update(self._task, numbers=line)
        else:
            self.say(f"step {step}/{self._steps}  {line}")

    def left(self, step: int) -> str:
        """The time that the steps after `step` will take, as `2:31`; `?` before the pace is known."""
        if self._began is None or step <= self._first:
            return "?"
        pace = (time.perf_counter() - self._began) / (step - self._first)
        return duration(pace * (self._steps - step))

    def say(self, text: str) -> None:
        """A line that stays (above the live one); never wrapped, so that paths and commands can be copied."""
        self.console.print(Text(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """`0:05`, `2:31`, `1:02:31`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Told(Table):
    """A table whose caption is as wide as the screen: rich would break it at the table's own width. Where the table
    itself is wider than the screen, rich would cut numbers off: they then stand one a line, by their flat names."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        caption, self.caption = self.caption, None
        if self.__rich_measure__(console, options.update(max_width=UNLIMITED)).maximum <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._tall()
        self.caption = caption
        if caption is not None:
            yield caption

    def _tall(self) -> RenderResult:
        if self.title is not None:
            yield Text(str(self.title), style="table.title", overflow="fold")
        names, *columns = self.columns
        tall = Table(show_header=False, box=None, padding=(0, 2, 0, 0), pad_edge=False)
        tall.add_column(overflow="fold")
        tall.add_column(justify="right", no_wrap=True)
        for place, name in enumerate(names.cells):
            for column in columns:
                tall.add_row(Text(f"{name}/{column.header}"), list(column.cells)[place])
        yield tall


def tables(results: Results, step: int | None, on: str = "", protocols: Protocols | None = None) -> list[Table]:
    """Evaluation results: a table for each split and kind of metric, its row and column making up the flat name.
    on: another dataset than the experiment's own. protocols: how was counted.

    `retrieval/image->text/R@1` stands in row `retrieval/image->text`, column `R@1`. Below a table stands how much was
    judged (`counts.told`), and the protocols of its rows.
    """
    made = []
    for split, metrics in results.items():
        rows: dict[str, dict[str, float | None]] = {}
        for name, value in counts.scores(metrics).items():
            row, _, column = name.rpartition("/")
            rows.setdefault(row, {})[column] = value
        said, told = counts.told(metrics), list[str]()
        title = f"{on} {split} split".strip() + ("" if step is None else f", step {step:,}")
        kinds = list(dict.fromkeys(tuple(row) for row in rows.values()))
        for place, columns in enumerate(kinds):
            mine = {row: values for row, values in rows.items() if tuple(values) == columns}
            last = place == len(kinds) - 1  # what was counted and has no score is told too
            below = counts.below(said, mine)
            told += below
            below += [line for row, line in said.items() if last and row not in rows and line not in told]
            how = (protocols or {}).get(split, ())
            below += [line for line in how if any(r.split("/")[0] == line.partition(":")[0] for r in mine)]
            table = _Told(title=title, title_justify="left")
            table.caption = Text("\n".join(below)) if below else None
            table.add_column("", no_wrap=True)
            for column in columns:
                table.add_column(column, justify="right", no_wrap=True)
            for row, values in mine.items():
                table.add_row(Text(row), *(number(value, column) for column, value in values.items()))
            made.append(table)
        if said and not kinds:
            table = _Told(title=title, title_justify="left")
            table.caption = Text("\n".join(said.values()))
            made.append(table)
    return made


def number(value: float | None, name: str) -> str:
    """A share with three digits, a rank with one."""
    if value is None:
        return "not finite"
    return f"{value:.1f}" if name.endswith("rank") else f"{value:.3f}"
