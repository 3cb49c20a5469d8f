"""A picture of plans: the memory of a device by part, and how the pod's speed grows with it."""

from collections.abc import Sequence
from pathlib import Path

from mmjax.errors import UserError
from mmjax.runtime.files import output
from mmjax.train.plan.result import Plan
from mmjax.train.plan.terminal import PARTS


def draw_plans(plans: Sequence[Plan], path: str | Path) -> None:
    """Draws plans into a PNG, or the format of the file's ending.

    Raises:
        UserError: matplotlib or the folder is missing, or it can't draw files with that ending.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--picture needs matplotlib: pip install matplotlib") from error
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{path} can't be written: there is no folder {Path(path).absolute().parent}")
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    kind, kinds = Path(path).suffix[1:].lower() or "png", figure.canvas.get_supported_filetypes()
    if kind not in kinds:
        raise UserError(f"{path} can't be drawn: a picture may end in .{', .'.join(sorted(kinds))}")
    memory, speed = figure.subplots(1, 2)
    names = [f"{plan.topology}\nx {plan.slices} slices" if plan.slices > 1 else plan.topology for plan in plans]
    bottoms = [0.0] * len(plans)
    for part in PARTS:
        values = [getattr(plan.memory, part) / 2**30 for plan in plans]
        if any(values):
            memory.bar(names, values, bottom=bottoms, width=0.6, label=part)
            bottoms = [a + b for a, b in zip(bottoms, values, strict=True)]
    for place, plan in enumerate(plans):
        limit = plan.memory.limit / 2**30
        if limit < 4 * max(bottoms):  # beyond, the limit would flatten the bars
            memory.hlines(limit, place - 0.4, place + 0.4, colors="black", linestyles="dashed",
                          label="what it has" if place == 0 else None)  # fmt: skip
        if not plan.fits:
            memory.annotate("does not fit", (place, bottoms[place]), ha="center", va="bottom", color="tab:red")
    memory.set(ylabel="GiB", title="Memory of a device")
    memory.legend(fontsize="small")
    timed = [plan for plan in plans if plan.seconds is not None]
    if timed:
        speed.plot([plan.chips for plan in timed], [plan.rate for plan in timed], "o-", label="expected")
        first = min(timed, key=lambda plan: plan.chips)
        chips = sorted(plan.chips for plan in timed)
        if first.topology.partition(":")[0] == timed[-1].topology.partition(":")[0]:
            line = [first.rate / first.chips * n for n in chips]
            speed.plot(chips, line, ":", color="gray", label=f"as {first.topology}, by chips")
        for plan in timed:
            speed.annotate(f"{plan.topology}, MFU {plan.mfu:.0%}", (plan.chips, plan.rate), fontsize="small",
                           xytext=(5, -12), textcoords="offset points")  # fmt: skip
        if len(timed) > 1:
            speed.set(xscale="log", yscale="log")
            speed.set_xticks(chips, [str(n) for n in chips])
            speed.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        speed.legend(fontsize="small")
    speed.set(xlabel="chips", ylabel="examples a second", title="Speed, by the roofline")
    figure.suptitle(plans[0].experiment)
    with output.replacing(path) as part:
        figure.savefig(part, format=kind, dpi=120)
