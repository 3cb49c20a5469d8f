"""The checkpoints of a run, on the terminal."""

from datetime import datetime
from pathlib import Path

from rich import filesize
from rich.table import Table

from mmjax import metrics
from mmjax.checkpoint import saved
from mmjax.errors import UserError
from mmjax.progress import number


def listing(workdir: Path) -> Table:
    """A run's checkpoints: step, time, size, the metrics of the step, and whether each is whole.

    Raises UserError where the workdir has none.
    """
    found = saved(workdir)
    if not found:
        raise UserError(f"there are no checkpoints in {workdir}")
    values: dict[int, dict[str, str]] = {}
    for line in metrics.read(workdir):
        names = [name for name in line if "/" in name] if "split" in line else ["loss"]
        for name in names[:1]:
            column = f"{line['split']} {name}" if "split" in line else name
            values.setdefault(line["step"], {})[column] = number(line.get(name), name)
    columns = list(dict.fromkeys(column for each in found for column in values.get(each.step, {})))
    table = Table("step", "saved", "size", *columns, "whole", box=None, pad_edge=False)
    for each in found:
        when = datetime.fromtimestamp(each.saved_at).strftime("%Y-%m-%d %H:%M:%S")
        whole = "yes" if not each.problems else f"no: {each.problems[0]}"
        row = [values.get(each.step, {}).get(column, "") for column in columns]
        table.add_row(f"{each.step:,}", when, filesize.decimal(each.bytes), *row, whole)
    return table
