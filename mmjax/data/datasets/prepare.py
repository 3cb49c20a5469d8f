"""Builds datasets by their TFDS name, ours and TFDS's own, where they aren't built yet."""

import contextlib
import errno
import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax.data import datasets
from mmjax.data.datasets.without_tensorflow import FEATURES, free
from mmjax.errors import UserError, nearest
from mmjax.runtime.files.names import plain

_FILE_FORMAT = "array_record"  # the one that is read by index without TensorFlow


class DatasetError(UserError):
    """A dataset is missing and can't be built as things are; the message says what to do."""


class NeedsTensorFlowError(DatasetError):
    """A dataset can't be built, or even described, without TensorFlow, which isn't installed."""


def builder(name: str, data_dir: str | None = None) -> Any:
    """The TFDS builder of `name` ("spoken_emoji", "mnist", "name/config:version"), built or not.

    `data_dir` is TFDS's: None means $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
        DatasetError: the name is unknown (the message has the nearest), or its builder needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    base = _base(name)
    is_ours(name)  # importing registers it with TFDS
    try:
        try:
            return tfds.builder(name, data_dir=data_dir)
        except tfds.core.DatasetNotFoundError:
            _import_all_of_tfds()
            return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = sorted({*ours(), *tfds.list_builders(with_community_datasets=False)})
        hint = nearest(base, known) or f"; ours are {', '.join(ours())}."
        raise DatasetError(
            f"there is no dataset {name!r}, neither ours nor TFDS's{hint} One of your own making is read from where "
            f"TFDS built it, {_folder(name, data_dir)}"
        ) from error
    except ImportError as error:
        raise _missing(name, error) from error
    except (AssertionError, ValueError) as error:  # no such config or version
        code = tfds.builder_cls(base)
        configs = f", the configs {', '.join(sorted(code.builder_configs))}" if code.builder_configs else ""
        raise DatasetError(f"there is no {name!r}; {base} has the version {code.VERSION}{configs}") from error


def is_ours(name: str) -> bool:
    """True if mmjax has the builder of the dataset: a module of its name in this folder defines it."""
    base = _base(name)
    return base.isidentifier() and any(_defines(base, f"{datasets.__name__}.{base}{end}") for end in (".builder", ""))


def ours() -> list[str]:
    """The datasets whose builders mmjax has."""
    return sorted(module.name for module in pkgutil.iter_modules(datasets.__path__) if is_ours(module.name))


def _defines(base: str, module: str) -> bool:
    """Whether there is such a module, and a builder of that name in it."""
    from mmjax.data.datasets.builder import OwnBuilder  # imports TFDS, half a second

    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # no such folder, or a file, which nothing is in
        return False
    parts = vars(importlib.import_module(module)).values() if there else ()
    return any(isinstance(part, type) and issubclass(part, OwnBuilder) and part.name == base for part in parts)


def readable(name: str, data_dir: str | None = None) -> bool:
    """True if the dataset is built and can be read as it is, with no rewriting of its description."""
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    _check_name(name)
    if is_ours(name) and ":" not in name:
        return bool(builder(name, data_dir).data_path.exists())
    try:
        read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (DatasetNotFoundError, ImportError):
        return False
    return True


def prepare_dataset(name: str, data_dir: str | None = None) -> Path:
    """Builds the dataset `name` under `data_dir`, unless it is built. Of several processes that call it, one builds.

    Returns its folder. Where `name` has no version, the builder's is meant, whatever older ones there are. A dataset
    that needs TensorFlow is built where that is installed, and read anywhere (`without_tensorflow.py`).

    Raises:
        DatasetError: unknown name, a missing package, files that must be downloaded by hand, a full disk, or a
            dataset that was built in a format without random access.
    """
    _check_name(name)
    try:
        made = builder(name, data_dir)
    except NeedsTensorFlowError:
        if (folder := _built(name, data_dir)) is None:
            raise
        free(folder)
        return folder
    if not made.data_path.exists():
        _check_packages(made)
        with _alone(made):
            if not made.data_path.exists():
                _build(made)
        if _is_local(made):
            free(Path(made.data_path))
        made = builder(name, data_dir)
    if made.info.file_format.value not in (_FILE_FORMAT, "parquet"):
        raise DatasetError(
            f"{made.data_path} holds {made.info.file_format.value} files, which can't be read by index: build it "
            f"elsewhere (data_dir), or delete that folder and run `mmjax prepare {name}`"
        )
    return Path(made.data_path)


def _check_name(name: str) -> None:
    """Raises UserError where a part of the name, which becomes a folder, isn't plain."""
    for part in re.split("[/:]", name):
        plain(part, f"a part of the dataset's name {name!r}")


def _build(made: Any) -> None:
    _check_space(made)
    try:
        made.download_and_prepare(file_format=_FILE_FORMAT)
    except OSError as error:
        if made.data_path.exists():  # on a disk without locks another process was faster, and its data is the same
            return
        if error.errno == errno.ENOSPC or "enough disk space" in str(error):
            raise DatasetError(_full(made, _needed(made))) from error
        raise
    except ImportError as error:
        raise _missing(made.info.full_name, error) from error
    except AssertionError as error:
        if made.MANUAL_DOWNLOAD_INSTRUCTIONS is None:
            raise
        raise DatasetError(
            f"{made.info.full_name} has files that must be downloaded by hand, into "
            f"{made.data_dir_root / 'downloads' / 'manual'}: {made.MANUAL_DOWNLOAD_INSTRUCTIONS.strip()}"
        ) from error


def _import_all_of_tfds() -> None:
    """TFDS imports its builders up to the first that needs a package which isn't there; here the others follow."""
    import tensorflow_datasets as tfds

    for module in pkgutil.iter_modules(tfds.__path__):
        if module.ispkg:
            with contextlib.suppress(ImportError):
                importlib.import_module(f"tensorflow_datasets.{module.name}")


def _folder(name: str, data_dir: str | None) -> Path:
    """The folder of a dataset's versions."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    return root / name.partition(":")[0]


def _built(name: str, data_dir: str | None) -> Path | None:
    """The folder of a dataset that was built elsewhere, of the version that is asked for or else the newest."""
    version = name.partition(":")[2]
    found = [file.parent for file in _folder(name, data_dir).glob(f"{version or '*.*.*'}/{FEATURES}")]
    return max(
        found, key=lambda folder: [int(part) for part in folder.name.split(".") if part.isdecimal()], default=None
    )


def _base(name: str) -> str:
    return name.partition("/")[0].partition(":")[0]


def _check_packages(made: Any) -> None:
    missing = [package for package in getattr(made, "needs", ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise DatasetError(
            f"building {made.name} needs the packages {', '.join(missing)}, which aren't installed: "
            "pip install 'mmjax[demo]'"
        )


def _missing(name: str, error: ImportError) -> DatasetError:
    cause: BaseException | None = error  # TFDS raises a nameless ImportError from the real one
    while isinstance(cause, ImportError) and not cause.name and (cause.__cause__ or cause.__context__):
        cause = cause.__cause__ or cause.__context__
    package = (getattr(cause, "name", None) or str(error)).partition(".")[0]
    if package == "tensorflow":
        return NeedsTensorFlowError(
            f"{name!r} can't be built or read without TensorFlow: pip install 'mmjax[tf]', here or on another machine, "
            f"and run `mmjax prepare {name}` there once; what it builds is read without TensorFlow"
        )
    return DatasetError(f"{name!r} needs the package {package}, which isn't installed: pip install {package}")


def _needed(made: Any) -> int:
    return getattr(made, "BUILT_BYTES", 0) or int(made.info.dataset_size or 0) + int(made.info.download_size or 0)


def _full(made: Any, needed: int) -> str:
    free = shutil.disk_usage(_existing(Path(made.data_dir_root))).free
    return (
        f"no space for {made.info.full_name} in {made.data_dir_root}: {needed:,} bytes are needed, {free:,} are free. "
        "Make room, or choose another place by $TFDS_DATA_DIR or data_dir"
    )


def _check_space(made: Any) -> None:
    if not _is_local(made):
        return
    if shutil.disk_usage(_existing(Path(made.data_dir_root))).free < (needed := _needed(made)):
        raise DatasetError(_full(made, needed))


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def _is_local(made: Any) -> bool:
    return "://" not in os.fspath(made.data_dir_root)


@contextlib.contextmanager
def _alone(made: Any) -> Iterator[None]:
    """Waits until no other process builds this dataset here, and removes what a killed process has left.

    TFDS builds into `incomplete.*` and renames at the end, so that folder is never read. The lock belongs to the
    operating system, so it goes with the process that holds it. Object stores have none: there the rename decides.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None
    if fcntl is None or not _is_local(made):
        yield
        return
    folder = Path(made.data_path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{made.version}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a network disk without locks
            yield
            return
        for left in folder.glob(f"incomplete.*_{made.version}"):
            shutil.rmtree(left, ignore_errors=True)
        yield
