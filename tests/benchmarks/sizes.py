"""How large each experiment is: the table in experiments/README.md.

python -m tests.benchmarks.sizes            # prints it
python -m tests.benchmarks.sizes --write    # puts it into experiments/README.md

Nothing is allocated: parameters by `jax.eval_shape`, FLOPs by counting the matrix products and convolutions of the
traced towers.
"""

import argparse
import ast
import functools
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax.data.pipeline import batch_spec
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.train.plan import flops

FOLDER = Path(__file__).parents[2] / "experiments"
README = FOLDER / "README.md"
BEGIN, END = "<!-- sizes: begin, made by python -m tests.benchmarks.sizes --write -->", "<!-- sizes: end -->"


class Size(NamedTuple):
    """Of an experiment: parameters by tower and objective (`towers_image`), and the FLOPs of each tower's forward pass
    for one whole example."""

    parameters: dict[str, int]
    flops: dict[str, int]

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())


def files() -> list[str]:
    """The files of `experiments/`, the quickstart first."""
    names = sorted(path.name for path in FOLDER.glob("*.py") if "@experiment" in path.read_text(encoding="utf-8"))
    return sorted(names, key=lambda name: name != "quickstart.py")


def experiments(file: str) -> list[str]:
    """The names of a file's experiments, without running it."""
    functions = [
        node
        for node in ast.parse((FOLDER / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.args.args and node.returns is not None
    ]
    return [node.name for node in functions if node.returns and ast.unparse(node.returns) == "Experiment"]


def title(file: str) -> str:
    """`CLIP (arXiv:2103.00020)`: what a file's documentation begins with."""
    text = ast.get_docstring(ast.parse((FOLDER / file).read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.rstrip(".")


@functools.cache
def size(name: str) -> Size:
    """Of `file.py:name`."""
    built = build(load_experiment(f"{FOLDER}/{name}"))
    pretrainer, spec = built.pretrainer(), batch_spec(built.data, 1)
    batch = {key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for key, leaf in spec.items()}
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    # The batch's entries as zeros within: arrays of a full-size batch are never made.
    zeros = lambda: {key: jnp.zeros(leaf.shape, leaf.dtype) for key, leaf in batch.items()}  # noqa: E731
    variables = jax.eval_shape(lambda: pretrainer.init(rngs, zeros()))
    counted = {}
    for modality in built.towers:
        entries = {key: leaf for key, leaf in batch.items() if key.partition("_")[0] == modality}
        counted[modality] = flops.count(jax.make_jaxpr(_embedded(pretrainer))(variables, entries))
    parameters = {
        part: sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in variables["params"].items()
    }
    return Size(parameters, counted)


def _embedded(pretrainer: Any) -> Any:
    return lambda variables, batch: pretrainer.apply(variables, batch, method="embed")


def table() -> str:
    """A row for each experiment."""
    rows = ["| experiment | parameters | towers | GFLOP an example |", "|---|---|---|---|"]
    for file in files():
        rows.append(f"| **{title(file)}** | | | |")
        for name in experiments(file):
            found = size(f"{file}:{name}")
            millions = ", ".join(
                f"{part.removeprefix('towers_')} {count / 1e6:.2f}M"
                for part, count in found.parameters.items()
                if part.startswith("towers_")
            )
            work = ", ".join(f"{modality} {_giga(count)}" for modality, count in found.flops.items())
            rows.append(f"| `{file}:{name}` | {found.total:,} | {millions} | {work} |")
    return "\n".join(rows)


def _giga(count: int) -> str:
    return f"{count / 1e9:.3g}" if count < 1e11 else f"{count / 1e9:,.0f}"


def written(text: str, found: str) -> str:
    """The README's text with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{found}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into experiments/README.md")
    write = parser.parse_args().write
    found = table()
    if write:
        README.write_text(written(README.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
