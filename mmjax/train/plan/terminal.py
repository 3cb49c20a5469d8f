"""A plan on the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmjax.train.plan.result import Plan, Trial

JAX_TAKES, FRACTION = 0.75, "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's memory, and what says otherwise
PARTS = ("parameters", "optimizer", "average", "batch", "other", "temporaries", "code")


def report(plan: Plan) -> RenderableType:
    """The whole report on one plan."""
    slices = f" x {plan.slices} slices" if plan.slices > 1 else ""
    mesh = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    head = f"{plan.experiment} on {plan.topology}{slices}: {plan.chips:,} chips, {plan.hosts:,} hosts, {mesh}"
    parts: list[RenderableType] = [Text(head, style="bold"), verdict(plan), _memory(plan)]
    if plan.scheduled and plan.fits and plan.memory.needed > JAX_TAKES * plan.memory.limit:
        parts.append(Text(f"more than jax takes of a GPU unless told: {FRACTION}=0.95"))
    if plan.remedies:
        parts.append(_remedies(plan))
    parts.append(_work(plan))
    if plan.attention:
        parts.append(_attention(plan))
    if plan.kernels:
        parts.append(_kernels(plan))
    if plan.collectives:
        parts.append(_collectives(plan))
    return Group(*parts)


def verdict(plan: Plan) -> Text:
    """A line that says whether the step fits."""
    needed, limit = plan.memory.needed, plan.memory.limit
    if plan.fits:
        return Text(f"fits: {size(needed)} of {size(limit)} a device", style="green")
    over = f", {size(needed - limit)} too much" if needed > limit else ""
    return Text(f"does not fit: {size(needed)} of {size(limit)} a device{over}", style="bold red")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place == 0, overflow="fold")
    return table


def _memory(plan: Plan) -> Table:
    table = _table("\nmemory of a device", "", "")
    for part in PARTS:
        if value := getattr(plan.memory, part):
            table.add_row(part, size(value))
    return table


def _remedies(plan: Plan) -> Table:
    table = _table("\nwhat might make it fit, compiled", "with", "a device needs", "")
    for remedy in plan.remedies:
        mark = Text("fits", style="green") if remedy.fits else Text("does not fit", style="red")
        table.add_row(" ".join(remedy.overrides), size(remedy.needed), mark)
    if not any(remedy.fits for remedy in plan.remedies):
        table.caption = "none of these fits: take more chips, or a smaller model"
        table.caption_justify = "left"
    return table


def _work(plan: Plan) -> Table:
    table = _table("\nwork of a step", "", "")
    table.add_row("FLOPs, as it runs", f"{plan.flops:.3g} ({plan.flops / plan.devices:.3g} a device)")
    table.add_row("FLOPs of the model", f"{plan.model_flops:.3g}, nothing computed twice")
    if plan.seconds is None:
        return table
    seconds, numbers = plan.seconds, plan.numbers()
    needs, has = plan.cores
    table.add_row("products, attention" if plan.scheduled else "products", f"{seconds.products:.3g} s")
    table.add_row("the rest, memory", f"{seconds.memory:.3g} s")
    exposed = f", {seconds.exposed:.3g} s of it exposed" if plan.scheduled else ""
    table.add_row("network, meanwhile", f"{seconds.network:.3g} s{exposed}")
    table.add_row("a step, by roofline", f"{seconds.step:.3g} s, MFU {plan.mfu:.0%}")
    table.add_row("examples", f"{plan.rate:,.0f} a second, {numbers['examples_per_day']:,.0f} a day")
    table.add_row(f"{plan.steps:,} steps", f"{numbers['hours']:,.1f} hours, {numbers['chip_hours']:,.0f} chip-hours")
    reads = f"{numbers['host_examples_per_second']:,.0f} examples a second"
    table.add_row("each host reads", f"{reads}, {size(numbers['host_bytes_per_second'])} a second")
    cores = f"{needs:,.1f} of its {has:,.0f} cores (timed here: {plan.reading.of})"
    bound = Text("input-bound: ", style="bold red") if needs > has else Text("")
    table.add_row("which takes", bound + cores)
    return table


def _attention(plan: Plan) -> Table:
    table = _table("\nattention, by attention=auto", "queries x keys", "is", "for")
    for each in plan.attention:
        table.add_row(f"{each.queries:,} x {each.keys:,}", each.name, each.reason)
    return table


def _kernels(plan: Plan) -> Table:
    taken = "time" if plan.scheduled else "to move it"
    table = _table("\nkernels of a step, on a device", "", "count", "read and written", "FLOPs", taken)
    for each in plan.kernels or ():
        flops = f"{each.flops:.3g}" if each.flops else ""
        table.add_row(each.kind, f"{each.count:,}", size(each.bytes), flops, f"{1e3 * each.seconds:.1f} ms")
    return table


def _collectives(plan: Plan) -> Table:
    if not plan.scheduled:
        table, between = _table("\ncollectives of a step", "", "over", "count", "a device sends"), "between slices"
    else:
        columns = ("", "over", "count", "a device sends", "time", "exposed")
        table, between = _table("\ncollectives of a step", *columns), "between hosts"
    for each in plan.collectives or ():
        over = " and ".join(each.axes) + (f", {between}" if each.slow else "")
        times = [] if each.seconds is None else [f"{1e3 * t:.2f} ms" for t in (each.seconds, each.exposed or 0.0)]
        table.add_row(each.kind, over, f"{each.count:,}", size(each.bytes), *times)
    return table


def scaling(plans: Sequence[Plan]) -> Table:
    """A table with a line for each of several topologies."""
    table = _table(
        "\nscaling", "topology", "chips", "needs", "fits", "step", "MFU", "examples/s", "chip-hours", "input"
    )
    for plan in plans:
        name = f"{plan.topology} x {plan.slices}" if plan.slices > 1 else plan.topology
        row = [name, f"{plan.chips:,}", size(plan.memory.needed), "yes" if plan.fits else "no"]
        if plan.seconds is None:
            row += ["", "", "", "", ""]
        else:
            numbers = plan.numbers()
            row += [f"{plan.seconds.step:.3g} s", f"{plan.mfu:.0%}", f"{plan.rate:,.0f}"]
            row += [f"{numbers['chip_hours']:,.0f}", "short" if numbers["input_bound"] else "enough"]
        table.add_row(*row)
    return table


def trial_line(trial: Trial) -> Text:
    """A line on a setting that was compiled."""
    words = " ".join(trial.setting) or "as it is"
    if trial.plan is None:
        return Text(f"{words}: skipped: {trial.error}", style="red")
    if trial.seconds is None:
        return Text(f"{words}: {verdict(trial.plan).plain}", style="red" if not trial.plan.fits else "")
    return Text(f"{words}: {trial.seconds:.3g} s, MFU {trial.plan.mfu:.0%}, {size(trial.plan.memory.needed)}")


def tuned(title: str, trials: Sequence[Trial]) -> Group:
    """All settings that were compiled: those that fit, fastest first, then the others; and below, of each number of the
    table, what was set, which is too long to stand beside the figures."""
    columns = ("needs", "step", "MFU", "products", "the rest", "network", "compiled in")
    table, settings = _table(f"\n{title}, fastest first", "", *columns), []
    for trial in sorted(trials, key=lambda trial: (trial.seconds is None, trial.seconds or 0.0)):
        settings.append(Text(f"{len(settings) + 1}: {' '.join(trial.setting) or 'as it is'}"))
        row = [str(len(settings))]
        if trial.plan is not None:
            row += [size(trial.plan.memory.needed)]
        if trial.plan is None:
            row += ["", "skipped", *[""] * 4]
        elif trial.seconds is None or trial.plan.seconds is None:
            row += ["" if trial.plan.fits else "does not fit", *[""] * 4]
        else:
            parts = trial.plan.seconds
            row += [f"{trial.seconds:.3g} s", f"{trial.plan.mfu:.0%}"]
            row += [f"{part:.3g} s" for part in (parts.products, parts.memory, parts.network)]
        table.add_row(*row, f"{trial.taken:.0f} s")
    return Group(table, Text("with"), *settings)


def size(count: float) -> str:
    """Bytes in words, as `2.31 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"
