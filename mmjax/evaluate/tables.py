"""Metrics as tables of the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mmjax.runtime import counts

UNLIMITED = 1 << 20

Protocols = Mapping[str, Sequence[str]]  # {split: a sentence an evaluator, which begins with its name}
Results = Mapping[str, Mapping[str, float]]  # {split: {flat name: value}}


class _Told(Table):
    """A table whose caption is as wide as the screen: rich would wrap it at the table's own width. Where the table
    itself is wider than the screen, rich would cut numbers off: they are printed one a line instead, by their flat
    names.
    """

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
    """Evaluation results as a table for each split and kind of metric, whose row and column make up the flat name. on:
    another dataset than the experiment's own. protocols: how metrics are counted.

    `retrieval/image->text/R@1` is in row `retrieval/image->text`, column `R@1`. Below a table are the counts
    (`counts.told`) and the protocols of its rows.
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
            last = place == len(kinds) - 1  # counts without a score are printed too
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
    """A metric as text: a share with three digits, a gain with its sign too, a rank with one digit."""
    if value is None:
        return "not finite"
    if name.startswith("gain"):
        return f"{value:+.3f}"
    return f"{value:.1f}" if name.endswith("rank") else f"{value:.3f}"
