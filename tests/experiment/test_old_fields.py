"""Records of before `Blocks`: each part with a transformer had its fields of its own."""

import json

import fiddle as fdl
import jax
import jax.numpy as jnp
import pytest

from mmjax.errors import UserError
from mmjax.experiment.diff import diff
from mmjax.experiment.record import dumps, loads
from mmjax.models import Blocks, Decoder, TextTransformer, Trunk, ViT
from mmjax.runtime.files import own_code

OWN = {"width": 8, "depth": 2, "heads": 2, "activation": "quick_gelu", "norm": "post", "dropout": 0.1, "remat": "full"}
TRUNK = {"@call": "models:Trunk", "width": 8, "depth": 2, "heads": 2, "remat": "dots", "dtype": "bfloat16"}
BESIDE = {"width": 8, "depth": 2, "heads": 2, "dtype": "bfloat16", "pooling": "cls"}


def read(part):
    return loads(json.dumps({"mmjax": "0", "name": "", "experiment": part}))


@pytest.mark.parametrize("called", ["models:ViT", "mmjax.models.image:ViT"])
def test_a_towers_own_fields_are_its_blocks(called):
    was = {"@call": called, "patch": 4, "size": 8, **OWN, "pooling": "mean"}
    now = fdl.Config(ViT, patch=4, size=8, blocks=fdl.Config(Blocks, **OWN), pooling="mean")
    assert diff(read(was), now) == []
    assert '"blocks": {\n' in dumps(read(was))  # and so it is written


def test_a_decoders_are_too_wherever_it_stands():
    decoder = {"@call": "models:Decoder", "width": 8, "depth": 1, "heads": 2, "window": {"@tuple": [2, 2]}}
    was = {"@call": "objectives:MaskedImage", "decoder": decoder, "keep": 0.5}
    built = fdl.build(read(was))
    assert built.decoder == Decoder(blocks=Blocks(width=8, depth=1, heads=2, remat=None), window=(2, 2))


def both(image, text):
    """Two towers with one trunk, as an experiment holds them."""
    towers = {
        "image": {"@call": "models:ViT", "patch": 4, "size": 8, **image, "trunk": TRUNK},
        "text": {"@call": "models:TextTransformer", "vocab": 9, "length": 4, **text},
    }
    towers["text"]["trunk"] = {"@same": ["towers", "image", "trunk"]}
    return read({"@call": "experiment:Experiment", "towers": towers}).towers


def test_what_a_tower_said_as_its_trunk_says_is_the_trunks():
    towers = both(BESIDE, BESIDE)
    trunk = fdl.Config(Trunk, blocks=fdl.Config(Blocks, width=8, depth=2, heads=2, remat="dots", dtype="bfloat16"))
    assert towers["image"].blocks is None
    assert towers["text"].trunk is towers["image"].trunk
    assert diff(towers["image"], fdl.Config(ViT, patch=4, size=8, pooling="cls", trunk=trunk)) == []
    assert diff(towers["text"], fdl.Config(TextTransformer, vocab=9, length=4, pooling="cls", trunk=trunk)) == []


def test_a_tower_of_when_nothing_was_recomputed_unless_said_so_has_a_trunk_still():
    towers = both(BESIDE | {"dtype": "float32", "remat": None}, BESIDE)
    assert towers["image"].blocks.remat is None
    tokens = jax.eval_shape(fdl.build(towers["image"]).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.uint8))
    assert "trunk" in tokens["params"]


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"inits": "bert"}, {"mlp_dim": 9}, {"remat": "full"}])
def test_what_it_said_otherwise_stays_its_own(change):
    towers = both(BESIDE | change, BESIDE)
    ((field, value),) = change.items()
    assert getattr(towers["image"].blocks, field) == value
    assert towers["text"].blocks is None


@pytest.mark.parametrize("compared", [False, True])
def test_a_tower_of_ones_own_that_is_made_of_ours_is_read_likewise(compared, tmp_path):
    own = "from mmjax.models import ViT\n\n\nclass Mine(ViT, kw_only=True):\n    more: int = 0\n"
    (tmp_path / "own.py").write_text(own)
    part = {"@call": "own.py:Mine", "patch": 4, "size": 8, "more": 3, **OWN, "pooling": "mean"}
    code = {"own.py": "of before"}
    text = json.dumps({"mmjax": "0", "name": "", "code": code, "experiment": part})
    read = loads(text, own_code.named(tmp_path / "own.py"), stand_ins=compared)
    assert fdl.build(read).blocks == Blocks(**OWN)
    assert read.more == 3


def test_a_part_says_it_in_one_of_both_ways():
    now = {"@call": "models:Trunk", "blocks": {"@call": "models:Blocks", "width": 8, "depth": 1, "heads": 2}}
    assert fdl.build(read(now)) == Trunk(blocks=Blocks(width=8, depth=1, heads=2, remat=None))  # the default of then
    with pytest.raises(UserError, match="models:Trunk has no field 'width'"):
        read(now | {"width": 8})
