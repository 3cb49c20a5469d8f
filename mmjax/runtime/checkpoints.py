"""Saves checkpoints in the background, atomically; restores and verifies them. The only file that imports Orbax.

A checkpoint holds digests of its own files, written before Orbax gives it its name: a checkpoint with a name was saved
whole, and later damage is detected.
"""

import errno
import hashlib
import itertools
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import jax
import numpy as np
from etils import epath, epy
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UserError
from mmjax.runtime import hosts
from mmjax.runtime.files import archives, digests, regular
from mmjax.runtime.retention import Keeping

with epy.lazy_imports():  # most commands read no checkpoint
    import orbax.checkpoint as ocp

T = TypeVar("T")
DIRECTORY = "checkpoints"
ITEM = "default"  # the folder inside a step that Orbax gives to a checkpoint of one item
ASIDE = "damaged"  # where checkpoints go that are not whole
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a step that isn't saved to its end
CHANGING = "_CHECKPOINT_METADATA"  # times and versions: Orbax writes it once more after the rest; nothing is read of it
SLICED = 2**20  # bytes from which on the replicas of an array save a slice each; cutting a small one costs more
FULL = os.strerror(errno.ENOSPC)
LISTED = 8  # lines of a mismatch that an error shows


class CheckpointError(UserError):
    """A checkpoint could not be written, or doesn't match the request."""


class _Quiet(logging.Filter):
    """Drops Orbax's log records below an error: dozens of lines a save, none of which a user can act on. Drops, too,
    what each of its threads logs, with a traceback, of an exception that is raised again for whoever waits for the
    save.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or (record.levelno >= logging.ERROR and not record.exc_info)


logging.getLogger("absl").addFilter(_Quiet())


class _Told(logging.Filter):
    """Drops asyncio's log records of the writes that failed together with the first one, which is raised."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not ("never retrieved" in record.getMessage() and record.exc_info and "OCDBT" in str(record.exc_info[1]))


logging.getLogger("asyncio").addFilter(_Told())


def _told_already(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`sys.unraisablehook` without the messages of tensorstore's threads after a failed save: each write that is still
    under way finds the event loop closed, which Orbax closes at the first failure; that first error is raised.
    """

    def quiet(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return quiet


sys.unraisablehook = _told_already(sys.unraisablehook)


class Checkpointer:
    """Checkpoints of a run in `workdir/checkpoints/<step>`: those that `keep` says, or the latest so many.

    A state is stored as nested dicts by the names of its fields and parameters, with no trace of its Python classes.

    Raises CheckpointError where the folder can't be made.
    """

    def __init__(
        self,
        workdir: str | Path,
        keep: int | Keeping = 3,
        reads_only: bool = False,
        beside: Callable[[epath.Path], None] = lambda folder: None,
    ):
        """reads_only: only restores, and leaves unfinished saves alone: a run may be writing them. beside: writes more
        into the folder of a step, before its digests are taken; in a thread, and on host 0 alone.
        """
        keeping = Keeping(keep) if isinstance(keep, int) else keep
        if keeping.latest < 1:
            raise UserError(f"Checkpointer: keep={keeping.latest} must be at least 1.")
        self.directory = _directory(workdir)
        self._step: int | None = None  # the step being saved
        self._beside = beside
        with self._writing("make"):
            if not reads_only:
                self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = _manager(
                self.directory,
                preservation_policy=keeping,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                cleanup_tmp_directories=not reads_only,  # of saves that a kill cut off
                read_only=reads_only,
            )

    def save(self, step: int, state: Any) -> bool:
        """Starts to save; the state may be donated as soon as this returns. Returns False where the step is already
        there.

        Raises CheckpointError where there is no space, or the save before this one failed.
        """
        if step in self.steps():
            return False
        hosts.first(lambda: self._check_space(state))
        with self._writing("save"):
            self._manager.wait_until_finished()  # `_seal` reads the step
            self._step = step
            return self._manager.save(step, args=ocp.args.PyTreeSave(_nested(state)))

    def _seal(self) -> None:
        """Writes the digests; Orbax calls this when all files of a step are written, before it gives the folder its
        name.
        """
        if hosts.leads():
            for path in self.directory.iterdir():  # in a bucket it has its name from the start, and a mark at the end
                if path.name == str(self._step) or path.name.startswith(f"{self._step}{UNFINISHED}"):
                    self._beside(path)
                    digests.write(path, leave_out=(CHANGING,))

    def restore(self, abstract_state: T, step: int | None = None) -> T:
        """The state as saved, laid out as `abstract_state` (arrays or `ShapeDtypeStruct`s with shardings) says.

        `step` None: the latest. Raises CheckpointError where there is none, or names, shapes or dtypes
        differ (listing both sides; Orbax alone would cast a dtype in silence).
        """
        self.wait()
        step = _chosen(self.directory, self.steps(), step)
        wanted = _named(abstract_state)
        _check_same(wanted, _saved(self.directory / str(step)), self.directory / str(step))
        target = unflatten_dict(wanted, sep="/")
        restored = self._manager.restore(
            step,
            args=ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)),
        )
        leaves = flatten_dict(restored, sep="/")
        return jax.tree.unflatten(jax.tree.structure(abstract_state), [leaves[name] for name in wanted])

    def steps(self) -> list[int]:
        """The steps that are wholly saved, or being saved, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The last of `steps`, None where there is none."""
        return max(self.steps(), default=None)

    def wait(self) -> None:
        """Waits for the save in progress; raises CheckpointError where it failed."""
        with self._writing("save"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save in progress, and stops the threads."""
        with self._writing("save"):
            self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # OSError, or tensorstore's ValueError, or Orbax's own around either
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            reason = FULL if FULL in str(error) else reason
            free = _free_bytes(self.directory)
            space = "" if free is None else f" {free / 1e6:,.1f} MB are free there."
            raise CheckpointError(
                f"Could not {what} checkpoints in {self.directory}: {reason}.{space} "
                "Make space, or name another --workdir; checkpoints that were complete are still whole."
            ) from error

    def _check_space(self, state: Any) -> None:
        free = _free_bytes(self.directory)
        need = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(state))
        if free is not None and need > free:
            raise CheckpointError(
                f"No space for a checkpoint in {self.directory}: it takes {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB "
                "are free. Make space, or name another --workdir."
            )


def latest_step(workdir: str | Path) -> int | None:
    """The latest step saved in a workdir, None where there is none. Creates nothing."""
    return max(_steps(_directory(workdir)), default=None)


def saved_steps(workdir: str | Path) -> list[int]:
    """The steps saved in a workdir, in order. Creates nothing, and reads none of them."""
    return _steps(_directory(workdir))


def checkpoint_identity(workdir: str | Path, step: int) -> str | None:
    """Identifies a step's checkpoint: the text differs between two checkpoints of one step. None where there is none.
    Reads a small file.
    """
    path = _directory(workdir) / str(step) / digests.NAME
    try:
        return hashlib.blake2b(regular.content(path), digest_size=16).hexdigest()
    except (OSError, UserError):
        return None


class Saved(NamedTuple):
    """A checkpoint on the disk. saved_at: seconds since 1970. problems: the files that aren't as they were written."""

    step: int
    path: str
    saved_at: float
    bytes: int
    problems: list[str]


def saved(workdir: str | Path) -> list[Saved]:
    """Every checkpoint of a workdir, by step, each read whole. Changes nothing."""
    directory, found = _directory(workdir), []
    for step in _steps(directory):
        path = directory / str(step)
        size, time = sum((path / name).stat().length for name in digests.files(path)), path.stat().mtime
        found.append(Saved(step, str(path), time, size, digests.problems(path)))
    return found


def whole_steps(workdir: str | Path) -> Iterator[int]:
    """The steps whose checkpoints are whole, the latest first. Every byte of each is read as it comes."""
    directory = _directory(workdir)
    return (step for step in reversed(_steps(directory)) if not digests.problems(directory / str(step)))


def whole_step(
    workdir: str | Path, *, strict: bool = False, say: Callable[[str], None] = lambda text: None
) -> int | None:
    """The latest step whose checkpoint is whole, None where nothing was ever saved. Every byte of it is read.

    A damaged one that is newer is set aside, into `workdir/damaged`, and `say` gets a message. Of several hosts only
    host 0 may call this.

    Raises:
        CheckpointError: the latest is damaged and `strict` is set, or none is whole; nothing is moved then.
    """
    directory = _directory(workdir)
    damaged: dict[int, str] = {}
    found = None
    for step in reversed(_steps(directory)):
        problems = digests.problems(directory / str(step))
        if not problems:
            found = step
            break
        more = f", and {len(problems) - 1} files more" if len(problems) > 1 else ""
        damaged[step] = f"the checkpoint of step {step} in {directory} is damaged: {problems[0]}{more}"
        if strict:
            break
    if damaged and (found is None or strict):
        raise CheckpointError(
            ". ".join(text[0].upper() + text[1:] for text in damaged.values())
            + (". Without --strict, the run goes on from the one before, if that is whole." if strict else
               ". No checkpoint is whole: give another --workdir to begin anew, or bring back the files.")
        )  # fmt: skip
    for step, text in damaged.items():
        say(f"{text}; it is set aside as {set_aside(directory / str(step), directory.parent)}")
    return found


def set_aside(path: epath.Path, workdir: epath.Path) -> epath.Path:
    """Moves a damaged file or folder, a checkpoint say, to where it isn't taken for whole; returns its new path."""
    folder = workdir / ASIDE
    folder.mkdir(parents=True, exist_ok=True)
    names = (folder / f"{path.name}{'' if n == 0 else f'-{n}'}" for n in itertools.count())
    return path.rename(next(name for name in names if not name.exists()))


def restore_variables(workdir: str | Path, step: int | None = None, *, ema: bool = False) -> dict[str, Any]:
    """Linen's collections, `params` among them, nested dicts of numpy arrays; nothing of the optimiser is read or needs
    to be known.

    `ema`: for the parameters, their moving average where the checkpoint has one. `step` None: the latest.
    Raises CheckpointError where there is no such checkpoint, or it is damaged, UserError where it would unpack to
    many times its size.
    """
    directory = _directory(workdir)
    path = directory / str(_chosen(directory, _steps(directory), step))
    if problems := digests.problems(path):
        raise CheckpointError(f"The checkpoint {path} is damaged: {'; '.join(problems[:LISTED])}. Take another --step.")
    tops = unflatten_dict(_saved(path), sep="/")
    top = "ema" if ema and "ema" in tops else "params"
    wanted = {name: tops[name] for name in (top, "model_state") if name in tops}
    size = sum((path / name).stat().length for name in digests.files(path))
    archives.bounded(path, sum(map(_bytes, jax.tree.leaves(wanted))), size)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(path / ITEM, args=args)
    return {"params": restored[top], **restored.get("model_state", {})}


def _directory(workdir: str | Path) -> epath.Path:
    path = epath.Path(workdir) / DIRECTORY
    return path if "://" in str(path) else epath.Path(Path(path).absolute())  # Orbax wants it absolute


def _manager(directory: epath.Path, **options: Any) -> "ocp.CheckpointManager":
    chosen = ocp.CheckpointManagerOptions(create=False, **options)
    types = ocp.type_handlers
    arrays = types.ArrayHandler(min_slice_bytes_for_replica_parallel=SLICED)
    each = ((kind, arrays if kind is jax.Array else types.get_type_handler(kind)) for kind in types.supported_types())
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=types.create_type_handler_registry(*each))
    return ocp.CheckpointManager(directory, options=chosen, item_handlers=handler)


def _steps(directory: epath.Path) -> list[int]:
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def _chosen(directory: epath.Path, steps: Sequence[int], step: int | None) -> int:
    if not steps:
        raise CheckpointError(f"There is no checkpoint in {directory}.")
    if step is not None and step not in steps:
        raise CheckpointError(f"There is no checkpoint of step {step} in {directory}; there are {list(steps)}.")
    return steps[-1] if step is None else step


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their path: {"params/towers_image/...": leaf}. Empty containers are left out."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nested(tree: Any) -> dict[str, Any]:
    return unflatten_dict(_named(tree), sep="/")


def _saved(path: epath.Path) -> dict[str, Any]:
    """Shapes and dtypes of a checkpoint's leaves, by path."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path / ITEM).item_metadata.tree
    return flatten_dict(tree, sep="/")


def _bytes(leaf: Any) -> int:
    return np.dtype(leaf.dtype).itemsize * math.prod(leaf.shape)


def _described(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"


def _check_same(wanted: dict[str, Any], saved: dict[str, Any], path: epath.Path) -> None:
    sides = {name: (_described(wanted.get(name)), _described(saved.get(name))) for name in {**wanted, **saved}}
    lines = [f"  {name}: here {here}, saved {there}" for name, (here, there) in sides.items() if here != there]
    if lines:
        more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        raise CheckpointError(
            f"The checkpoint {path} is of another model or optimiser; {len(lines)} of {len(sides)} arrays differ:\n"
            + "\n".join(lines[:LISTED])
            + more
        )


def _free_bytes(directory: epath.Path) -> int | None:
    """Free bytes where a local folder lies (or will lie); None for a bucket, or where that can't be known."""
    if "://" in str(directory):
        return None
    existing = next((path for path in [Path(directory), *Path(directory).parents] if path.exists()), None)
    return None if existing is None else shutil.disk_usage(existing).free
