import textwrap
from dataclasses import replace
from typing import Any

import fiddle as fdl
import pytest

from mmjax.data.pipeline import Mixture
from mmjax.errors import UserError
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.experiment import record as records
from mmjax.experiment.definition import Experiment, Load, unscaled
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import build, complete
from mmjax.experiment.load import experiment, experiment_name, load_experiment
from mmjax.experiment.overrides import override
from mmjax.experiment.resume import MAY_CHANGE, unresumable
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.masked import MaskedImage
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.mesh import Mesh
from tests.parts import Encoder

UNKNOWN: Any = "bf16"
BLOCKS = Blocks(width=8, depth=1, heads=1)

FILE = '''
"""A file of experiments."""

from mmjax.data.pipeline import Mixture
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.data.transforms.image import Decode, Resize
from mmjax.experiment import Experiment, Load, experiment
from mmjax.runtime.mesh import Mesh
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.vit import ViT
from mmjax.models.towers.text import TextTransformer
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.optim.optimizers import AdamW
from neighbour import borrowed, narrow

SIZES = {"tiny": dict(width=8, depth=1, heads=2), "small": dict(width=16, depth=2, heads=2)}


@experiment
def image(**sizes) -> ViT:
    return ViT(patch=4, size=8, pooling="mean", blocks=Blocks(**sizes), embed_dim=4)


@experiment
def towers(size) -> dict:
    text = TextTransformer(vocab=64, length=6, pooling="last", blocks=Blocks(**SIZES[size]), embed_dim=4)
    return {"image": image(**SIZES[size]), "text": text}


@experiment
def transforms() -> dict:
    return {
        "image": (Decode(), Resize(8)),
        "text": (PickCaption(), Tokenize(SentencePiece(vocab_size=64), length=6)),
    }


@experiment
def tiny(size="tiny", batch_size=8) -> Experiment:
    """The first that returns an Experiment."""
    return Experiment(
        towers=towers(size),
        objectives={"pair": Contrastive(pair=("image", "text"))},
        data=Mixture({"spoken_emoji": 1.0}, transforms=transforms()),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=2),
        batch_size=batch_size,
        steps=20,
        mesh=Mesh(fsdp=2),
    )


@experiment
def small() -> "Experiment":
    return tiny("small", batch_size=16)


@experiment
def needs(size) -> Experiment:
    return tiny(size)


def plain() -> Experiment:
    return tiny()


OTHER = 3
'''

NEIGHBOUR = """
from mmjax.experiment import Experiment, experiment

@experiment
def borrowed() -> Experiment:
    return None

@experiment
def narrow():
    return 1
"""


@pytest.fixture
def file(tmp_path) -> str:
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    path = tmp_path / "study.py"
    path.write_text(textwrap.dedent(FILE))
    return str(path)


def parts(**changes):
    """The arguments of an experiment that is all right, but for `changes`."""
    usual = {
        "towers": {"image": Encoder(), "text": Encoder()},
        "objectives": {"pair": Contrastive(pair=("image", "text"))},
        "data": Mixture({"spoken_emoji": 1.0}, transforms={}),
        "optimizer": AdamW(peak_lr=1e-3),
        "batch_size": 12,
        "steps": 10,
    }
    return usual | changes


# --- reading ---


def test_a_files_first_experiment_is_not_a_helper_and_not_borrowed(file):
    config = load_experiment(file)
    assert experiment_name(file) == f"{file}:tiny"
    assert config.towers["image"].blocks.width == 8
    assert config.mesh.fsdp == 2
    assert config.microbatches == 1  # a default, there to be seen and changed


def test_an_experiment_by_name_with_a_quoted_annotation(file):
    config = load_experiment(f"{file}:small")
    assert experiment_name(f"{file}:small") == f"{file}:small"
    assert (config.batch_size, config.towers["text"].blocks.width) == (16, 16)


def test_overrides_are_applied_in_order(file):
    config = load_experiment(file, ["towers.image.blocks.width=6", "batch_size=4", "batch_size=6", "weights.pair=0.5"])
    built = build(config)
    assert isinstance(built, Experiment)
    assert (built.towers["image"].blocks.width, built.towers["text"].blocks.width) == (6, 8)
    assert (built.batch_size, built.weights) == (6, {"pair": 0.5})


def test_an_experiment_builds_its_pretrainer(file):
    pretrainer = build(load_experiment(file, ["microbatches=2"])).pretrainer()
    assert isinstance(pretrainer, Pretrainer)
    assert pretrainer.towers["image"].blocks.width == 8
    assert pretrainer.microbatches == 2


def test_a_record_and_a_workdir_give_the_experiment_back(file, tmp_path):
    config = load_experiment(file, ["steps=7"])
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "experiment.json").write_text(records.dumps(config, name="study.py:tiny"))
    for source in (str(workdir), str(workdir / "experiment.json")):
        assert diff(load_experiment(source), config) == []
        assert experiment_name(source) == "study.py:tiny"
    assert load_experiment(str(workdir), ["steps=9"]).steps == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":tinny", r"'tinny' isn't in it; its experiments: tiny, small; did you mean tiny\?"),
        (":plain", r"'plain' isn't marked @experiment; its experiments: tiny, small"),
        (":OTHER", "isn't marked @experiment"),
        (":image", "gives no Experiment but a part of one; its experiments: tiny"),
        (":needs", r"can't be run alone \(missing a required argument: 'size'\)"),
    ],
)
def test_unknown_names_name_the_nearest(file, name, message):
    with pytest.raises(UserError, match=message):
        load_experiment(file + name)


def test_unknown_files_name_the_nearest(file, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no file '.*studdy.py'; did you mean .*study.py\?"):
        load_experiment(str(tmp_path / "studdy.py:tiny"))
    with pytest.raises(UserError, match=r"neither an experiment .* nor a workdir .*; did you mean .*study.py\?"):
        load_experiment(str(tmp_path / "study"))
    with pytest.raises(UserError, match=r"; there are: .*neighbour.py, .*study.py"):
        load_experiment(str(tmp_path / "zzz.py"))


def test_a_file_without_experiments_says_how_to_mark_one(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match="has no experiment: a function marked @experiment and annotated -> Experiment"):
        load_experiment(str(path))


def test_a_fault_in_the_file_keeps_its_own_error(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_experiment(str(path))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(UserError, match=r"experiment.json: this is no experiment.json of mmjax"):
        load_experiment(str(tmp_path))


# --- checks ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be an int of at least 1"),
        ({"steps": 1e3}, r"steps=1000.0 must be an int"),
        ({"seed": True}, "seed=True must be an int"),
        ({"microbatches": 5}, r"microbatches=5 must divide batch_size=12; near it: \[2, 3, 4, 6\]"),
        ({"weights": {"pari": 1.0}}, r"weights 'pari', but the objectives are pair; did you mean pair\?"),
        ({"weights": {"pair": -1.0}}, "weights.pair=-1.0 must be a number of at least 0"),
        ({"weights": {"pair": "a"}}, "weights.pair='a' must be a number"),
        ({"towers": {"image": Encoder()}}, "objectives.pair reads 'text', but the towers are image"),
        ({"towers": {}}, "objectives.pair reads 'image', but the towers are none"),
        ({"towers": {}, "objectives": {}}, "an experiment needs towers, or an objective that needs none"),
        ({"fusions": {"both": Encoder()}}, r"no objective reads fusions\.both: leave it out"),
        ({"fusions": {"a/b": Encoder()}}, "a key of fusions"),
        (
            {"towers": {"image": ViT(patch=4, size=8, blocks=replace(BLOCKS, dtype=UNKNOWN), pooling="mean")}},
            r"towers.image.blocks.dtype='bf16' is none of float32, bfloat16, float16",
        ),
        ({"evaluators": ["retrieval"]}, "'retrieval' is no evaluator: those of mmjax.evaluate are, such as Retrieval"),
        ({"evaluators": [Retrieval]}, "Retrieval'> is no evaluator: .* inherits from mmjax.evaluate.Evaluator"),
        ({"evaluators": [lambda embedded, embed_text: {}]}, "is no evaluator: .* mmjax.evaluate.Evaluator"),
        ({"ema": 1.0}, "ema=1.0 must lie between 0 and 1"),
        (
            {"objectives": {"masked": MaskedImage(decoder=Decoder(blocks=replace(BLOCKS, dtype=UNKNOWN)))}},
            r"objectives.masked.decoder.blocks.dtype='bf16' is none of float32, bfloat16, float16",
        ),
        ({"init": {"image": Load("x")}}, r"init 'image', but the towers, fusions and objectives are towers.image"),
        ({"init": {"towers.image": 3}}, r"must be a path, or Load\(path"),
        ({"optimizer": AdamW(peak_lr=1e-3, warmup_steps=10)}, r"warmup_steps=10 must be less than steps=10: set"),
        ({}, r"data\.transforms lacks 'image'"),
    ],
)
def test_what_cannot_be_says_why(changes, message):
    with pytest.raises(UserError, match=message):
        Experiment(**parts(**changes))


def test_a_bad_override_of_a_number_is_met_by_the_same_check(file):
    with pytest.raises(UserError, match=r"^microbatches=3 must divide batch_size=8") as caught:
        load_experiment(file, ["microbatches=3"])
    assert "Fiddle" not in str(caught.value)


def test_a_missing_field_is_named():
    arguments = parts()
    del arguments["optimizer"]
    with pytest.raises(UserError, match="optimizer"):
        build(fdl.Config(Experiment, **arguments))


@pytest.mark.parametrize(
    ("source", "path", "now"),
    [
        ("quickstart.py", "towers.image.depth", "towers.image.blocks.depth"),
        ("quickstart.py", "towers.text.norm", "towers.text.blocks.norm"),
        ("quickstart.py", "objectives.masked_image.decoder.remat", "objectives.masked_image.decoder.blocks.remat"),
        ("m3ae.py:tiny", "towers.text.heads", "towers.text.trunk.blocks.heads"),
        ("m3ae.py:tiny", "towers.text.blocks.heads", "towers.text.trunk.blocks.heads"),
    ],
)
def test_a_path_of_before_is_answered_with_todays(source, path, now):
    with pytest.raises(UserError, match=rf"^there is no '{path}'; did you mean {now}\?$"):
        load_experiment(f"experiments/{source}", [f"{path}=2"])


@experiment
def alike() -> dict[str, Any]:
    both = Blocks(width=8, depth=1, heads=2)
    return {
        "image": ViT(patch=4, size=8, blocks=both, pooling="mean"),
        "text": TextTransformer(vocab=9, length=3, blocks=both),
    }


def test_blocks_that_two_towers_were_given_are_one():
    """As their docstring says."""
    config = complete(fdl.Config(Experiment, towers=alike.as_buildable()))  # pyright: ignore[reportFunctionMemberAccess]
    assert '"blocks": {"@same": ["towers", "image", "blocks"]}' in records.dumps(config)
    override(config, "towers.image.blocks.width=6")
    assert config.towers["text"].blocks.width == 6


# --- resuming ---


def harmless(file, *overrides) -> list[str]:
    return [difference.path for difference in unresumable(load_experiment(file), load_experiment(file, overrides))]


def test_what_only_watches_or_moves_a_run_may_change(file):
    assert harmless(file, "mesh.data=4", "mesh.fsdp=1", "log_every=3", "keep=9", "microbatches=2", "save_every=5") == []
    assert harmless(file, "evaluate_every=7") == []
    assert harmless(file, "towers.image.blocks.remat=full", "towers.text.blocks.attention=cudnn") == []
    assert harmless(file, "towers.image.blocks.unroll=2") == []
    m3ae = "experiments/m3ae.py:tiny"
    assert harmless(m3ae, "towers.image.trunk.blocks.remat=full", "objectives.masked.decoder.blocks.unroll=2") == []


def test_what_changes_a_step_may_not(file):
    changes = ["steps=30", "batch_size=4", "seed=1", "towers.image.blocks.width=5", "optimizer.peak_lr=1e-2"]
    assert sorted(harmless(file, *changes, "keep=5")) == sorted(change.split("=")[0] for change in changes)


def test_a_pattern_matches_whole_components_and_what_is_below(file):
    left = complete(fdl.Config(Experiment, **parts()))
    right = complete(fdl.Config(Experiment, **parts(mesh=Mesh(tensor=2), evaluators=[Load("x")])))
    assert {d.path for d in diff(left, right)} == {"mesh.tensor", "evaluators.0"}
    assert unresumable(left, right) == []
    assert {path for path in MAY_CHANGE if path.split(".")[0] not in Experiment.__dataclass_fields__} == set()


def test_what_computes_in_fp16_is_named_for_no_loss_is_scaled(file):
    assert unscaled(load_experiment(file)) is None
    assert unscaled(load_experiment(file, ["towers.image.blocks.dtype=bfloat16"])) is None
    told = unscaled(load_experiment(file, ["towers.image.blocks.dtype=float16"]))
    assert told is not None
    assert told.startswith(
        "warning: towers.image.blocks.dtype=float16: nothing scales the loss, so gradients below 6e-8 "
    )
