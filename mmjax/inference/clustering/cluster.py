"""`mmjax cluster`: a tree of visual words from features, in a file; killed anywhere, it goes on where it stopped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmjax.data.tokenizers.word_tree import CentroidTree, check_shape, paths_of
from mmjax.errors import UserError
from mmjax.inference.clustering.collected import (
    Collected,
    from_embeddings,
    from_experiment,
    from_file,
    is_vectors,
)
from mmjax.inference.clustering.fit import ITERATIONS, checked_out, fit_tree
from mmjax.runtime import hosts
from mmjax.runtime.compilation_cache import use_compilation_cache

LEAVES = 3  # that are listed, of the largest and of the smallest


def cluster(
    source: str,
    out: str | Path,
    *,
    branching: int = 12,
    depth: int = 4,
    seed: int = 0,
    iterations: int = ITERATIONS,
    entry: str | None = None,
    split: str | None = None,
    examples: int | None = None,
    overrides: Sequence[str] = (),
    leave_out: bool = False,
    code: Any = None,
    console: Console | None = None,
) -> CentroidTree:
    """Fits a tree to features and writes it to a file, or completes the one there (`fit_tree`).

    source: vectors `.npy` [N, D]; a folder of `mmjax embed`; or an experiment, `load_experiment` takes it, whose chain
    of `entry` is run over a split (None: train) up to its `VisualWords`. examples: of the split, spread evenly; None:
    all. overrides: `path=value` of the experiment. Of several hosts, which must share the file's folder, the first one
    reads the data and writes.

    Raises UserError for arguments that don't go with the source, and as `fit_tree` does.
    """
    check_shape("mmjax cluster", branching, depth)
    path = checked_out(out)
    use_compilation_cache()
    hosts.join()
    console = console or Console(highlight=False, quiet=not hosts.leads())
    say = partial(console.print, soft_wrap=True, markup=False)
    found = _features(source, path, entry, split, examples, overrides, code, console, say)
    say(f"{found.features.shape[0]:,} features of {found.features.shape[-1]:,} numbers from {source}")
    with _shown(console) as told:
        tree = fit_tree(
            found.features,
            branching=branching,
            depth=depth,
            seed=seed,
            iterations=iterations,
            out=path,
            leave_out=leave_out,
            told=told,
        )
    if found.temporary is not None:
        hosts.first(lambda: found.temporary.unlink(missing_ok=True))  # pyright: ignore[reportOptionalMemberAccess]
    for line in summary_lines(tree):
        say(line)
    say(f"the tree is in {path}")
    return tree


def _features(
    source: str,
    out: Path,
    entry: str | None,
    split: str | None,
    examples: int | None,
    overrides: Sequence[str],
    code: Any,
    console: Console,
    say: Callable[[str], None],
) -> Collected:
    if not is_vectors(source):
        options = {"entry": entry, "split": split or "train", "examples": examples, "overrides": overrides}
        return _on_all_hosts(lambda: from_experiment(source, out, **options, code=code, console=console, say=say))
    given = {"--split": split, "--examples": examples, "PATH=VALUE": overrides or None, "--code": code}
    given |= {"--entry": entry} if source.endswith(".npy") else {}
    if unfit := [name for name, value in given.items() if value is not None]:
        raise UserError(f"{', '.join(unfit)} is for an experiment whose data is read, and {source} holds vectors")
    if source.endswith(".npy"):
        return from_file(source)
    return _on_all_hosts(lambda: from_embeddings(source, entry, out, say))


def _on_all_hosts(collect: Callable[[], Collected]) -> Collected:
    """The features that the first host has collected, as each host maps them."""
    path = hosts.first(lambda: str(collect().temporary))
    return Collected(from_file(path).features, Path(path))


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[int, int, float], None]]:
    """Shows each iteration: on a terminal in a line that is rewritten, elsewhere in a line for every tenth."""
    if console.is_terminal and not console.quiet:
        with console.status("looking through the features") as status:
            yield lambda *told: status.update(_iteration(*told))
        return

    def plain(level: int, iteration: int, inertia: float) -> None:
        if iteration % 10 == 0:
            console.print(_iteration(level, iteration, inertia), soft_wrap=True)

    yield plain


def _iteration(level: int, iteration: int, inertia: float) -> str:
    return f"level {level}  iteration {iteration}  inertia {inertia:.6g}"


def summary_lines(tree: CentroidTree) -> list[str]:
    """The lines that describe a whole tree: inertia and nodes by level, its largest and smallest leaves."""
    lines = []
    count = tree.about["features"] - tree.about["left_out"]
    if tree.about["left_out"]:
        lines.append(f"{tree.about['left_out']:,} features weren't finite, and were left out")
    for number, level in enumerate(tree.levels, 1):
        inertia, updates = tree.about["inertia"][number - 1], tree.about["updates"][number - 1]
        used = f"{int(level.used.sum()):,} of {len(level.counts):,} nodes used"
        lines.append(
            f"level {number}  inertia {inertia:.6g}, {inertia / count:.4g} a feature, {used}, {updates} updates"
        )
    counts = tree.levels[-1].counts
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    for name, leaves in (("largest", order[:LEAVES]), ("smallest", order[::-1][:LEAVES])):
        paths = paths_of(leaves, tree.branching, tree.depth)
        listed = (f"{leaf} ({'.'.join(map(str, path))}) with {counts[leaf]:,}"
                  for leaf, path in zip(leaves.tolist(), paths.tolist(), strict=True))  # fmt: skip
        lines.append(f"{name} leaves: {', '.join(listed)}")
    return lines
