import math

import fiddle as fdl
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from mmjax.errors import UserError
from mmjax.experiment.diff import MISSING, Same, diff
from mmjax.experiment.graph import complete, short_repr, target
from mmjax.experiment.overrides import override
from tests.parts import Encoder, Share, Study, config


def changed(*assignments, **arguments):
    whole = complete(config(**arguments))
    for assignment in assignments:
        override(whole, assignment)
    return whole


# --- complete ---


def test_complete_writes_every_plain_default_and_leaves_the_original_alone():
    original = config()
    whole = complete(original)
    image = whole.towers["image"]
    assert (image.width, image.rate, image.loss, image.pool) == (64, 0.0, "softmax", None)
    assert target(image.share) is Share  # an instance as a default is a config now
    assert image.share.share == 0.25
    assert whole.chain[1].share == 0.5
    assert "kernel_init" not in image.__arguments__  # not plain: it stays with the code
    assert not {"parent", "name"} & set(image.__arguments__)
    assert "rate" not in original.towers["image"].__arguments__


def test_complete_builds_the_same_thing():
    built, again = fdl.build(config()), fdl.build(complete(config()))
    assert built.towers == again.towers
    assert built.chain == again.chain
    assert built.share == again.share
    assert built.weights["masked"](50) == again.weights["masked"](50) == 0.5


def test_complete_twice_is_complete_once():
    assert diff(complete(config()), complete(complete(config()))) == []
    assert complete(complete(config())) == complete(config())


def test_complete_keeps_a_shared_module_shared():
    shared, apart = complete(config(tied=True)), complete(config())
    assert shared.towers["image"] is shared.towers["text"]
    assert apart.towers["image"] is not apart.towers["text"]


def test_the_function_called_is_the_graph_built():
    from tests.parts import study

    assert study(width=8).towers == fdl.build(config(width=8)).towers


def test_a_module_from_a_config_trains_like_one_made_by_hand():
    module = fdl.build(changed("towers.image.width=4")).towers["image"]
    x = jnp.ones((2, 3))
    params, same = (m.init(jax.random.key(0), x) for m in (module, Encoder(width=4)))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, same))


# --- override ---


def test_overrides_reach_fields_dict_keys_and_tuple_items():
    whole = changed(
        "towers.image.width=6",
        "chain.0.share=0.75",
        "chain.1.seeds=[7,8]",
        "chain.0.seeds.1=9",
        "steps=3",
        "share.share=1",
        "weights.paired=0.5",
        "towers.text.pool=last",
        "towers.text.limit=2",
    )
    built = fdl.build(whole)
    assert built.towers["image"].width == 6
    assert built.towers["text"].width == 64
    assert built.chain == (Share(0.75, (1, 9)), Share(0.5, (7, 8)))
    assert built.steps == 3
    assert built.share == Share(1.0)
    assert isinstance(built.share.share, float)
    assert built.weights["paired"] == 0.5
    assert built.towers["text"].pool == "last"
    assert built.towers["text"].limit == 2.0


def test_an_override_inside_a_schedule():
    assert fdl.build(changed("weights.masked.transition_steps=10")).weights["masked"](5) == 0.5


def test_an_override_of_a_shared_module_is_seen_at_both_places():
    assert fdl.build(changed("towers.image.width=6", tied=True)).towers["text"].width == 6


def test_a_left_out_weight_can_be_added_and_a_module_cannot():
    whole = complete(fdl.Config(Study, towers={"image": fdl.Config(Encoder)}))
    override(whole, "weights.new=2")
    assert whole.weights == {"new": 2.0}
    scheduled = changed("weights.new=2")
    assert scheduled.weights["new"] == 2.0
    with pytest.raises(UserError, match=r"there is no 'towers.imge'; did you mean towers.image"):
        override(whole, "towers.imge=2")


def test_a_key_may_hold_dots():
    whole = complete(fdl.Config(Study, towers={"a.b": fdl.Config(Encoder)}))
    override(whole, "towers.a.b.width=3")
    assert whole.towers["a.b"].width == 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("towers.image.seeds=(3,)", r"there is no 'towers.image.seeds'; did you mean towers.image.share.seeds\?"),
        ("towers.image.widht=3", r"there is no 'towers.image.widht'; did you mean towers.image.width"),
        ("tower.image.width=3", r"did you mean towers.image.width"),
        ("towers.imag.width=3", r"there is no 'towers.imag.width'; did you mean towers.image.width\?"),
        ("chain.2.share=3", r"there is no 'chain.2.share'; did you mean chain.[01].share"),
        ("zzz=1", r"there is no 'zzz'\nwhat can be set:\n  steps=10\n"),
        ("steps.more=3", r"there is no 'steps.more'"),
        ("steps=many", r"steps must be an int \(it is 10 now\), but 'many' is a string"),
        ("steps=1.5", r"steps must be an int .* but 1.5 is a float"),
        ("steps=True", r"steps must be an int"),
        ("towers.image.causal=true", r"causal must be a bool \(True or False\)"),
        ("towers.image.loss=softmx", r"loss must be one of 'softmax', 'sigmoid'"),
        ("towers.image.width=None", r"width must be an int"),
        ("chain.0.seeds=3", r"chain.0.seeds must be a tuple"),
        ("towers.image.parent=None", r"there is no 'towers.image.parent'"),
        ("towers=3", r"towers is a dict of parts, not a value; set what is in it\nwhat can be set in towers:"),
        ("steps", r"'steps' is no override: write path=value"),
    ],
)
def test_bad_overrides_say_what_to_write(assignment, message):
    with pytest.raises(UserError, match=message):
        changed(assignment)


def test_a_path_that_stops_at_a_part_offers_what_is_in_it():
    with pytest.raises(UserError) as caught:
        changed("towers.image=3")
    message = str(caught.value)
    assert "towers.image.width=64" in message
    assert "towers.image.share.share=0.25" in message
    assert "towers.image.share.seeds=(1, 2)\n" in message
    assert "towers.text" not in message


# --- diff ---


def test_equal_experiments_have_no_difference():
    assert diff(config(), config()) == []
    assert diff(config(), complete(config())) == []  # a default written out is no difference
    limits = [complete(config()) for _ in range(2)]
    for limit in limits:
        limit.towers["image"].limit = math.nan
    assert diff(*limits) == []


def test_differences_name_the_path_and_both_values():
    right = changed("towers.image.width=6", "chain.1.seeds=[3,4]", "share.share=0.9")
    assert diff(config(), right) == [
        ("towers.image.width", 64, 6),
        ("chain.1.seeds", (3,), (3, 4)),
        ("share.share", 0.5, 0.9),
    ]


def test_what_only_one_side_has_is_one_difference():
    left, right = complete(config()), complete(config())
    audio = right.towers["audio"] = fdl.Config(Encoder, width=2)
    del right.weights["paired"]
    added, removed = diff(left, right)
    assert (added.path, added.left, target(added.right)) == ("towers.audio", MISSING, target(audio))
    assert removed == ("weights.paired", 1.0, MISSING)


def test_another_class_is_one_difference():
    right = complete(config())
    right.towers["image"] = fdl.Config(nn.Dense, features=3)
    right.weights["masked"] = fdl.Config(optax.constant_schedule, 1.0)
    assert [d.path for d in diff(config(), right)] == ["towers.image", "weights.masked"]


def test_shared_and_equal_modules_differ():
    (difference,) = diff(config(), config(tied=True))
    assert difference.path == "towers.text"
    assert difference.right == Same("towers.image")
    assert repr(difference.right) == "(shared with towers.image)"


def test_short_reads_like_python():
    assert short_repr(config().chain) == "(Share(share=0.1), Share(seeds=(3,)))"
    assert short_repr("x" * 99, 10) == "'xxxxxxxx…"
