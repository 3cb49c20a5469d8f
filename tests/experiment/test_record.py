import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys

import fiddle as fdl
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.data.pipeline import Mixture
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.image import Decode
from mmjax.data.transforms.record import CopyInput
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from mmjax.experiment import old_fields
from mmjax.experiment import record as records
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import complete, fields
from mmjax.experiment.old_names import NAMES
from mmjax.experiment.record import dumps, known, loads, name_of
from mmjax.interop.preprocessing.image import from_open_clip
from mmjax.interop.preprocessing.text import OPEN_CLIP_CLEANING
from tests.parts import Encoder, Share, Study, config, list_too, listed  # noqa: F401


def record(experiment) -> str:
    return json.dumps({"mmjax": "0", "name": "", "experiment": experiment})


# --- there and back ---


def test_record_transforms_are_parts_and_older_records_have_none():
    copy = fdl.Config(CopyInput, of="text", to="caption_2")
    text = dumps(fdl.Config(Mixture, {}, {}, record_transforms=(copy,)))
    assert '"@call": "data:CopyInput"' in text
    assert fdl.build(loads(text)).record_transforms == (CopyInput("text", "caption_2"),)
    older = {"@call": "data:Mixture", "weights": {}, "transforms": {}}
    assert fdl.build(loads(record(older))).record_transforms == ()


@pytest.mark.usefixtures("listed")
def test_what_is_read_is_what_was_written():
    again = loads(dumps(config(), name="study.py:study"))
    assert again == complete(config())
    assert diff(again, config()) == []
    built = fdl.build(again)
    assert built.towers["image"] == Encoder(width=64)
    assert built.chain == (Share(0.1), Share(seeds=(3,)))
    assert isinstance(built.chain, tuple)
    assert name_of(dumps(config(), name="study.py:study")) == "study.py:study"


def test_how_other_projects_models_take_their_inputs_can_be_kept():
    """What `data.preprocessors` and `data.text_preprocessors` give, as configs."""

    def as_config(part):
        if isinstance(part, tuple):
            return tuple(map(as_config, part))
        if not dataclasses.is_dataclass(part) or isinstance(part, type):
            return part
        given = {field.name: as_config(getattr(part, field.name)) for field in dataclasses.fields(part)}
        return fdl.Config(type(part), **given)

    subwords = Tokenize(Subwords(49_408), 77, bos=True, empty="keep")
    pieces = Tokenize(SentencePiece(32_000, path=""), 64, pad=1, empty="keep")
    chains = {
        "clip": (*from_open_clip({"resize_mode": "longest"}).transforms, *OPEN_CLIP_CLEANING["lower"], subwords),
        "siglip": (*from_open_clip({}).transforms, *OPEN_CLIP_CLEANING["canonicalize"], pieces),
    }
    mixture = fdl.Config(Mixture, {}, transforms={name: as_config(chain) for name, chain in chains.items()})
    assert fdl.build(loads(dumps(mixture))).transforms == chains


@pytest.mark.usefixtures("listed")
def test_the_record_is_readable_and_whole():
    written = json.loads(dumps(config()))["experiment"]
    assert written["@call"] == "tests.parts:Study"
    assert written["towers"]["image"]["width"] == 64
    assert written["towers"]["image"]["rate"] == 0.0  # a default, written out: the code's may change
    assert written["chain"]["@tuple"][0]["share"] == 0.1
    assert written["weights"]["masked"]["@call"] == "optax:linear_schedule"


@pytest.mark.usefixtures("listed")
def test_a_tuple_of_numbers_stands_on_one_line_and_a_part_does_not():
    lines = [line.strip() for line in dumps(config()).splitlines()]
    assert '"seeds": {"@tuple": [1, 2]}' in lines
    assert '"image": {' in lines
    assert '"@call": "tests.parts:Encoder",' in lines


@pytest.mark.usefixtures("listed")
def test_a_shared_module_stays_shared_and_equal_ones_apart():
    assert '"@same": [' in dumps(config(tied=True))
    tied, apart = loads(dumps(config(tied=True))), loads(dumps(config()))
    assert tied.towers["image"] is tied.towers["text"]
    assert apart.towers["image"] is not apart.towers["text"]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("limit", [float("inf"), float("-inf"), float("nan"), 1e-300, 0.1 + 0.2])
def test_floats_come_back_bit_for_bit_in_strict_json(limit):
    whole = complete(config())
    whole.towers["image"].limit = limit
    text = dumps(whole)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert np.float64(loads(text).towers["image"].limit).tobytes() == np.float64(limit).tobytes()


# --- refused when written ---


def helper(width):
    return Encoder(width=width)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    "value",
    [
        fdl.Config(helper, width=3),
        fdl.Config(nn.Dense, features=3),
        fdl.Config(os.system, command="true"),
        fdl.Partial(Encoder),
        fdl.ArgFactory(Encoder),
        nn.gelu,
        os.system,
        lambda x: x,
        jnp.bfloat16,
        np.float32(1),
        np.ones(2),
        jnp.ones(2),
        {1: 2},
        {"@call": "os:system"},
        {1, 2},
        b"bytes",
        slice(3),
        range(3),
        type("Text", (str,), {})("text"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_list_does_not_know_is_not_written(value):
    for place in ("towers", "chain"):
        whole = complete(config())
        setattr(whole, place, {"image": value} if place == "towers" else (value,))
        with pytest.raises(UserError, match=rf"^{place}\.(image|0)[ :]"):
            dumps(whole)


@pytest.mark.usefixtures("listed")
def test_a_function_that_lies_about_its_name_is_not_written():
    def impostor(width):
        return width

    impostor.__module__, impostor.__qualname__, impostor.__name__ = "tests.parts", "Encoder", "Encoder"
    with pytest.raises(UserError, match=r"towers.image calls tests.parts:Encoder, which may not stand"):
        dumps(fdl.Config(Study, towers={"image": fdl.Config(impostor, width=3)}))


@pytest.mark.parametrize("function", [eval, print])
def test_positional_arguments_are_not_written(function):
    with pytest.raises(UserError, match=r"has \*args or Fiddle tags"):
        dumps(fdl.Config(function, "1"))


def test_an_unlisted_root_is_not_written():
    with pytest.raises(UserError, match=r"the experiment calls tests.parts:Study"):
        dumps(config())


# --- refused when read ---

ATTACKS = [
    "os:system",
    "posix:system",
    "subprocess:run",
    "subprocess:Popen",
    "builtins:eval",
    "builtins:exec",
    "builtins:__import__",
    "builtins:open",
    "builtins:dict",
    "importlib:import_module",
    "pickle:loads",
    "shutil:rmtree",
    "functools:partial",
    "operator:methodcaller",
    "fiddle:build",
    "fiddle:Config",
    "jax.version:os.system",
    "jax.version:os",
    "jax:version.os.system",
    "optax:linear_schedule.__globals__",
    "optax:linear_schedule.__call__",
    "optax.schedules._schedule:linear_schedule",
    "optax:adam",
    "mmjax.experiment.definition:importlib.import_module",
    "mmjax.experiment.definition:Experiment.__init__",
    "mmjax.experiment.load:load_experiment",
    "mmjax.experiment.load:_load",
    "mmjax.experiment.record:sys.modules",
    "mmjax.experiment.record:_FLOATS",
    "mmjax.runtime.mesh:Mesh.build",
    "mmjax.experiment.Mesh:build",
    "mmjax:experiment",
    "experiment",
    "experiment:",
    ":Mesh",
    "experiment:Mesh ",
    "experiment::Mesh",
    "experiment:mesh",
    ".mesh:Mesh",
    "no_such_module_at_all:thing",
    "",
    "antigravity:geohash",
    "own.py:Mine",
    "own.py:system",
    "../own.py:Mine",
    "/tmp/own.py:Mine",
    "experiment.json.py:Mesh",
    "tests/parts.py:Encoder",
    "tests.parts:Encoder",
    "parts.py:Encoder",
    "own.py:Mine.__init__",
    "own.py:",
    ".py:Mine",
    ["experiment", "Mesh"],
    {"@call": "experiment:Mesh"},
    None,
    7,
]


@pytest.mark.parametrize("called", ATTACKS, ids=str)
@pytest.mark.parametrize(
    "place",
    [
        lambda attack: attack,
        lambda attack: {"@call": "experiment:Mesh", "data": attack},
        lambda attack: {"@call": "experiment:Mesh", "data": {"@tuple": [{"key": [attack]}]}},
    ],
    ids=["root", "field", "deep"],
)
def test_nothing_off_the_list_is_imported(called, place, monkeypatch):
    imported = []
    monkeypatch.setattr(importlib, "import_module", lambda name: imported.append(name) or sys.modules[name])
    with pytest.raises(UserError, match=r"isn't among the callables that an experiment.json may name"):
        loads(record(place({"@call": called, "command": "true"})))
    assert set(imported) <= {f"mmjax.{face}" for face in records.FACES}


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"@call": "tests.parts:Share", "__class__": 1}, "has no field '__class__'"),
        ({"@call": "tests.parts:Share", "__fn_or_cls__": 1}, "has no field"),
        ({"@call": "tests.parts:Share", "self": 1}, "has no field 'self'"),
        ({"@call": "tests.parts:Share", "shar": 1}, "has no field 'shar'; did you mean share"),
        ({"@call": "tests.parts:Encoder", "parent": None}, "has no field 'parent'"),
        ({"@call": "tests.parts:Encoder", "@tuple": []}, "is none of"),
        ({"@type": "pyref", "module": "os", "name": "system"}, "is none of"),
        ({"@ref": "os:system"}, "is none of"),
        ({"@tuple": "abc"}, "is none of"),
        ({"@float": "1"}, "is none of"),
        ({"@float": ["inf"]}, "is none of"),
        ({"@same": "towers"}, "is none of"),
        ({"@same": ["towers"]}, "where no config stands"),
        ({"@same": []}, "where no config stands"),
        ({"@same": [{}]}, "where no config stands"),
        ({"@call": "tests.parts:Encoder", "head": {"@same": []}}, "where no config stands"),
        ([1, 2], "must be a @call"),
        ("os.system", "must be a @call"),
        ({"towers": {}}, "must be a @call"),
    ],
)
def test_other_records_are_refused(experiment, message):
    with pytest.raises(UserError, match=message):
        loads(record(experiment))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"a": 1}',
        '{"experiment": NaN}',
        '{"experiment": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "9" * 9999,
    ],
    ids=["empty", "cut", "list", "number", "other", "nan", "deep", "long"],
)
def test_text_that_is_no_record_is_refused(text):
    with pytest.raises(UserError):
        loads(text)
    if text != '{"experiment": NaN}':
        for read in (records.name_of, records.version_of):
            with pytest.raises(UserError):
                read(text)


@pytest.mark.parametrize("deep", [65, 300, 900])
@pytest.mark.parametrize("inside", [{"@call": "data:EveryCaption"}, {}, None])
def test_parts_within_parts_without_end_are_refused(deep, inside):
    """Less deep than Python's stack, and deeper than what builds an experiment bears."""
    value: object = 1
    for _ in range(deep):
        value = [value] if inside is None else {**inside, "source": value}
    root = {"@call": "data:EveryCaption", "source": value}
    with pytest.raises(UserError, match=r"source\..*\.\.\. is nested more than 64 deep: this is no experiment\.json"):
        loads(record(root))


def test_fiddles_own_json_is_no_way_in():
    from fiddle.experimental import serialization as fiddles

    with pytest.raises(UserError, match=r"no experiment.json"):
        loads(fiddles.dump_json(fdl.Config(subprocess.run, args=["true"])))


@dataclasses.dataclass
class Exploding:
    fuse: int = 0

    def __post_init__(self) -> None:
        pytest.fail(f"something was called, with fuse={self.fuse}")


def test_reading_calls_nothing(monkeypatch):
    list_too(monkeypatch, __name__, "Exploding")
    read = loads(dumps(fdl.Config(Exploding, fuse=3)))
    assert (read.fuse, records.target(read)) == (3, Exploding)


# --- the list ---


def parts() -> dict[str, type]:
    """What of the list an experiment may hold, schedules apart."""
    found = {called: getattr(importlib.import_module(module), name) for called, (module, name) in known().items()}
    return {c: part for c, part in found.items() if isinstance(part, type) and dataclasses.is_dataclass(part)}


def test_the_list_is_of_exact_undotted_names():
    for called, (module, name) in known().items():
        assert called == f"{module.removeprefix('mmjax.')}:{name}"
        assert name.isidentifier()
        assert not name.startswith("_")
        assert module == "optax" or module.removeprefix("mmjax.") in records.FACES


@pytest.mark.parametrize("face", records.FACES)
def test_a_face_lists_what_its_folder_defines_and_no_file(face):
    module = importlib.import_module(f"mmjax.{face}")
    names = [name for _, (home, name) in known().items() if home == module.__name__]
    assert names
    for name in names:
        thing = getattr(module, name)
        assert not inspect.ismodule(thing)
        if face != "experiment":  # which lists what of a run an experiment says: its mesh, its best checkpoints
            assert getattr(thing, "__module__", module.__name__).startswith(f"mmjax.{face}")


def test_everything_on_the_list_exists_and_can_be_a_config():
    assert len(parts()) > 70
    for part in parts().values():
        assert records.target(fdl.Config(part)) is part


def test_what_a_face_lists_for_people_alone_is_no_part():
    for called in ("evaluate:evaluate_model", "objectives:Objective", "experiment:load_experiment", "data:BadExample"):
        assert called in known()
        with pytest.raises(UserError, match="isn't among the callables"):
            loads(record({"@call": called}))


@pytest.mark.parametrize("old", sorted(NAMES))
def test_files_of_older_versions_name_what_has_moved(old):
    now = NAMES[old]
    assert now in parts()
    assert old not in known()
    read = loads(record({"@call": old}))
    assert read == loads(record({"@call": now}))
    assert f'"{now}"' in dumps(read)


def test_a_field_that_came_later_means_in_older_records_what_was_done_then():
    older = loads(record({"@call": "data:Decode", "most_pixels": 9}))
    assert fdl.build(older) == Decode(most_pixels=9, upright=False)  # pictures weren't turned
    now = fdl.Config(Decode)
    assert fdl.build(loads(dumps(now))) == Decode(upright=True)
    for called, meant in old_fields.BEFORE.items():
        assert set(meant) <= set(fields(parts()[called]))


@pytest.mark.parametrize("called", sorted(old_fields.GONE))
def test_fields_of_older_versions_are_read_over(called):
    for name in old_fields.GONE[called]:
        assert name not in fields(parts()[called])
        assert loads(record({"@call": called, name: 102})) == loads(record({"@call": called}))


# What a file of parts has besides parts of experiments, and why an experiment doesn't hold it.
LEFT_OUT = {
    "mmjax.objectives.encoding:Encoding": "how a part of a batch is encoded",
    "mmjax.data.embedding_files:Embeddings": "read from a folder",
    "mmjax.data.tar_index:TarIndex": "made of a tar",
    "mmjax.experiment.confined:Record": "a record, not in one",
    "mmjax.experiment.diff:Same": "found between two experiments",
    "mmjax.experiment.show:Differences": "as above",
    "mmjax.models.layers.decoder_blocks:OffsetRMSNorm": "as below",
    "mmjax.models.layers.decoder_layer": "what text decoders are made of; their fields say how",
    "mmjax.models.layers.attention_pooler": "what PooledViT is made of",
    "mmjax.objectives.contract:ReadBeside": "made of an objective",
    "mmjax.models.layers.additive_attention": "what RecurrentDecoder is made of",
    "mmjax.models.layers.lstm": "as above",
    "mmjax.models.layers.transformer": "what towers are made of; their fields say how",
    "mmjax.models.layers.pooling": "as above",
    "mmjax.models.layers.tpu_attention": "made of the shapes that a kernel is given",
    "mmjax.models.layers.window_attention": "what decoders are made of; their fields say how",
    "mmjax.objectives.masked:MaskedPatches": "a base class",
    "mmjax.objectives.contrastive.ring:RingPlan": "made by ring_loss",
    "mmjax.data.datasets.": "builders, which TFDS finds by name",
    "mmjax.data.cuts:Lengths": "what is found of a sample",
    "mmjax.data.paths:File": "made by Folder",
    "mmjax.data.prepare.settings": "of a command; kept with what it makes",
    "mmjax.data.transforms.clip:Clip": "made by CutWindow",
    "mmjax.data.sources.contents": "made of what a Folder gives",
    "mmjax.models.towers.tubelets:SpaceAndTime": "a base class",
    "mmjax.models.towers.resnet:Bottleneck": "what ResNet is made of",
    "mmjax.models.towers.resnet:MeanAttention": "as above",
    "mmjax.models.towers.resnet:ResNetTrunk": "as above",
    "mmjax.models.towers.reserve.encoder": "what towers of parts and Reserve are made of",
    "mmjax.models.towers.reserve.parts:PartsTower": "a base class",
    "mmjax.models.fusion.coattention:CoLayer": "what CoAttention is made of",
    "mmjax.models.fusion.embeddings:EmbeddingFusion": "a base class",
    "mmjax.models.fusion.exchange:OwnNorms": "what Exchange is made of",
    "mmjax.models.fusion.joined": "what fusions of embeddings are made of",
    "mmjax.models.layers.divided": "what DividedViT is made of",
    "mmjax.models.layers.multiway": "what Multiway and MultiwayTrunk are made of",
    "mmjax.models.fusion.tokens:TokenFusion": "a base class",
    "mmjax.runtime.retention:Keeping": "made of an experiment's fields, not one of them",
}


def test_every_part_is_on_the_list_or_left_out_knowingly():
    found = set()
    package = importlib.import_module("mmjax")
    names = [m.name for m in pkgutil.walk_packages(package.__path__, "mmjax.")]
    holders = (
        "data",
        "experiment",
        "evaluate.evaluators",
        "models",
        "objectives",
        "optim",
        "runtime.mesh",
        "runtime.retention",
    )
    inside = tuple(f"mmjax.{holder}" for holder in holders)
    for module in [importlib.import_module(name) for name in names if name.startswith(inside)]:
        for name, value in vars(module).items():
            is_part = dataclasses.is_dataclass(value) and isinstance(value, type)  # Linen modules are dataclasses too
            if is_part and value.__module__ == module.__name__ and not name.startswith("_"):
                found.add((module.__name__, name))
    assert len(found) > 20
    in_faces = {(part.__module__, part.__name__) for part in parts().values()}
    left_out = {pair for pair in found if ":".join(pair).startswith(tuple(LEFT_OUT))}
    unknown = sorted(found - left_out - in_faces)
    assert not unknown, "put them into the face of their folder (its __init__.py), or here with the reason"
    assert not left_out & in_faces
    assert {pair for pair in in_faces if pair[0].startswith(inside)} <= found


def test_versions_without_a_part_say_so(monkeypatch):
    list_too(monkeypatch, "mmjax.runtime.mesh", "Gone")
    list_too(monkeypatch, "mmjax.gone", "Gone")
    for called in ("mmjax.runtime.mesh:Gone", "mmjax.gone:Gone"):
        with pytest.raises(UserError, match=f"this version of mmjax .* has no {called}"):
            loads(record({"@call": called}))


def test_schedules_survive():
    schedule = fdl.Config(optax.linear_schedule, 0.0, 1.0, transition_steps=10)
    assert fdl.build(loads(dumps(schedule)))(5) == 0.5
