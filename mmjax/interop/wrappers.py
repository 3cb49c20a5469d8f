"""Names of arrays as trainers save them: under what their model was wrapped in, `module.`, `model.`, `_orig_mod.`.

DistributedDataParallel puts a model under `module.`, Lightning and other trainers under `model.`, `torch.compile` under
`_orig_mod.`, several of them one in another. A name is never changed where the model's own names are there.
"""

from collections.abc import Callable
from itertools import count

from mmjax.interop.weight_files import Arrays

OUTER = ("module", "model", "base_model")
# No model calls a part of its own so: these are taken out wherever they stand.
ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DEEPEST = 4  # wrappers one in another
LISTED = 3


def unwrapped(
    arrays: Arrays, lacking: Callable[[Arrays], int], where: str, dot: str = "."
) -> tuple[Arrays, tuple[str, ...]]:
    """The arrays by the model's own names, and what is to be said of it: nothing where they had these already.

    lacking: how many of the arrays that the model needs aren't there by these names.
    where: whose they are, for what is said.  dot: what stands between the parts of a name.
    """
    best, least, wrapper = arrays, lacking(arrays), ""
    if not least:
        return arrays, ()
    inner = {_cleaned(name, dot): array for name, array in arrays.items()}
    candidates = {"": inner} if len(inner) == len(arrays) else {"": arrays}
    for depth in count():
        for prefix, named in candidates.items():
            if (missing := lacking(named)) < least:
                best, least, wrapper = named, missing, prefix
        if not least or depth == DEEPEST or not candidates:
            break
        candidates = {
            f"{prefix}{outer}{dot}": peeled
            for prefix, named in candidates.items()
            for outer in OUTER
            if (peeled := _peeled(named, f"{outer}{dot}"))
        }
    if best is arrays:
        return arrays, ()
    said = [f"{where}: its arrays are read without {_said(arrays, wrapper, dot)} in their names"]
    if outside := [name for name in inner if not name.startswith(wrapper)]:
        more = ", …" if len(outside) > LISTED else ""
        said.append(f"; {len(outside)} outside of it aren't read ({', '.join(outside[:LISTED])}{more})")
    return best, ("".join(said),)


def _cleaned(name: str, dot: str) -> str:
    return dot.join(part for part in name.split(dot) if part not in ANYWHERE)


def _peeled(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _said(arrays: Arrays, wrapper: str, dot: str) -> str:
    """The wrappers that were taken off."""
    parts = {part for name in arrays for part in name.split(dot)}
    found = [f"'{part}{dot}'" for part in ANYWHERE if part in parts]
    return " and ".join([*([f"'{wrapper}'"] if wrapper else []), *found])
