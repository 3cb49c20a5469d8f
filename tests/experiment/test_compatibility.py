from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mmjax.data.pipeline import Mixture, batch_spec
from mmjax.data.sources.precomputed import Vector
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from mmjax.experiment.compatibility import check_fit, idle
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.precomputed import Given
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.next_sentence import NextSentence
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.train.plan.flops import count
from tests.depth import DepthTower, ReadDepth
from tests.flat import flat
from tests.objectives.rounds import Distilling, Fusing, Matching, ToyFusion

SIZE = {"width": 8, "depth": 1, "heads": 2, "embed_dim": 4, "pooling": "mean"}
TOWERS = {
    "image": flat(ViT, patch=4, size=8, **SIZE),
    "text": flat(TextTransformer, vocab=64, length=6, **SIZE),
    "audio": flat(AudioTransformer, spectrogram=LogMel(mels=8), patch=(2, 8), samples=1600, **SIZE),
}
OBJECTIVES = {
    "seen": Contrastive(("image", "text")),
    "heard": Contrastive(("audio", "text")),
    "words": MaskedText(vocab=64),
}
DATA = Mixture(
    {"toy": 1.0},
    transforms={
        "image": (Decode(), Resize(8)),
        "text": (Tokenize(SentencePiece(vocab_size=64), length=6),),
        "audio": (DecodeAudio(), CropOrPad(1600)),
    },
)


def tower(name, **changes):
    return {**TOWERS, name: TOWERS[name].clone(**changes)}, OBJECTIVES, DATA


def objective(name, changed):
    return TOWERS, {**OBJECTIVES, name: changed}, DATA


def chain(name, *transforms):
    return TOWERS, OBJECTIVES, replace(DATA, transforms={**DATA.transforms, name: transforms})


def without(modality):
    kept = {name: chain for name, chain in DATA.transforms.items() if name != modality}
    return TOWERS, OBJECTIVES, replace(DATA, transforms=kept)


def test_parts_that_fit_pass_with_room_to_spare():
    check_fit(TOWERS, OBJECTIVES, DATA)
    check_fit(*tower("text", vocab=100, length=9))
    check_fit(*objective("words", MaskedText(vocab=64)))
    check_fit(*chain("audio", DecodeAudio(), CropOrPad(800)))


def reading(**changed):
    """Objectives that read all towers, and others."""
    return {**OBJECTIVES, **changed}


def test_inputs_fusions_and_teachers_are_looked_for_where_views_say():
    """A second caption goes through the tower of texts, which needs no chain of its own name then."""
    chains = {**DATA.transforms, "caption_2": DATA.transforms["text"]}
    pair = Contrastive(("image", "caption_2"), towers={"caption_2": "text"})
    check_fit(TOWERS, reading(again=pair), replace(DATA, transforms=chains))
    first = {"image": DATA.transforms["image"], "caption_2": DATA.transforms["text"]}
    towers = {name: TOWERS[name] for name in ("image", "text")}
    check_fit(towers, {"pair": pair}, replace(DATA, transforms=first))
    check_fit(TOWERS, reading(fuse=Fusing()), DATA, fusions={"both": ToyFusion()})
    check_fit(TOWERS, reading(distil=Distilling()), DATA, ema=0.9)
    long = {**chains, "caption_2": (Tokenize(SentencePiece(vocab_size=64), length=7),)}
    many = {**chains, "caption_2": (Tokenize(SentencePiece(vocab_size=80), length=6),)}
    for objectives, transforms, fusions, message in (
        (reading(again=pair), DATA.transforms, {}, r"data\.transforms lacks 'caption_2', .*are image, text, audio"),
        (reading(again=pair), long, {}, r"texts of 7 tokens, longer than the 6 of towers\.text\.length"),
        (reading(again=pair), many, {}, r"up to 80 pieces .*towers\.text\.vocab=64"),
        (
            reading(again=pair.clone(towers={"caption_2": "txt"})),
            chains,
            {},
            r"objectives\.again reads 'txt', .*text\?",
        ),
        (reading(fuse=Fusing()), chains, {"bath": ToyFusion()}, r"objectives\.fuse reads the fusion 'both', .*bath\?"),
        (reading(match=Matching("bath")), chains, {"both": ToyFusion()}, r"objectives\.match reads the fusion 'bath'"),
        (OBJECTIVES, chains, {"both": ToyFusion()}, r"no objective reads fusions\.both"),
        (reading(distil=Distilling()), chains, {}, r"objectives\.distil has 'image' .*teacher, .*set ema=0\.999"),
    ):
        with pytest.raises(UserError, match=message):
            check_fit(TOWERS, objectives, replace(DATA, transforms=transforms), fusions=fusions)


def test_a_modality_goes_by_what_its_parts_say_and_not_by_its_name():
    """Two kinds of pictures, captions of another name, and an array of one's own."""
    towers = {"sketch": TOWERS["image"], "image": TOWERS["image"].clone(), "caption": TOWERS["text"]}
    towers["depth"] = DepthTower(embed_dim=4)
    objectives = {
        "drawn": Contrastive(("sketch", "image")),
        "far": Contrastive(("image", "depth")),
        "said": Contrastive(("image", "caption")),
        "words": MaskedText(vocab=64, modality="caption"),
    }
    pictures, texts = DATA.transforms["image"], DATA.transforms["text"]
    transforms = {"sketch": pictures, "image": pictures, "caption": texts, "depth": (ReadDepth(8),)}
    data = replace(DATA, transforms=transforms)
    check_fit(towers, objectives, data)
    for changed, message in (
        ({"depth": DepthTower(embed_dim=8)}, r"objectives\.far .*towers\.image into 4 and towers\.depth into 8"),
        ({"depth": TOWERS["image"].clone()}, r"towers\.depth reads pictures .* gives float32\[8, 8, 1\]"),
        ({"caption": TOWERS["text"].clone(vocab=32)}, r"towers\.caption\.vocab=32 has no room"),
        ({"sketch": TOWERS["image"].clone(size=16)}, r"towers\.sketch has size=16"),
    ):
        with pytest.raises(UserError, match=message):
            check_fit(towers | changed, objectives, data)
    with pytest.raises(UserError, match=r"objectives\.words .*vocab=32, .*64 pieces and towers\.caption\.vocab=64"):
        check_fit(towers, {**objectives, "words": MaskedText(vocab=32, modality="caption")}, data)
    with pytest.raises(UserError, match=r"end the chain of 'caption' in SentencePair"):
        check_fit(towers, {**objectives, "words": NextSentence(modality="caption")}, data)
    batch = {name: jnp.asarray(leaf) for name, leaf in batch_spec(data, 2).items()}
    shapes = jax.eval_shape(Pretrainer(towers, objectives).init, jax.random.key(0), batch)
    assert shapes["params"]["towers_depth"]["stem"]["kernel"].shape == (16, 16)


def test_a_plain_module_may_be_a_tower():
    class Plain(nn.Module):
        pass

    check_fit({**TOWERS, "image": Plain()}, OBJECTIVES, DATA)


def test_a_frozen_tower_may_be_there_for_evaluation_alone():
    """As ImageBind's text tower: it gets parameters, and the step doesn't touch it."""
    seen = {"seen": OBJECTIVES["seen"]}
    with pytest.raises(
        UserError, match=r"no objective reads towers\.audio: .*optimizer\.frozen=\('\^towers_audio/',\)"
    ):
        check_fit(TOWERS, seen, DATA)
    assert idle(TOWERS, seen, ("^towers_audio/",)) == ("audio",)
    assert idle(TOWERS, seen, ("^towers_audio/stem", "scale$")) == ()
    assert idle(TOWERS, OBJECTIVES, ("^towers_audio/",)) == ()
    check_fit(TOWERS, seen, DATA, idle=("audio",))
    pretrainer = Pretrainer(TOWERS, seen, idle=("audio",))
    batch = {name: jnp.asarray(leaf) for name, leaf in batch_spec(DATA, 2).items()}
    variables = jax.eval_shape(pretrainer.init, jax.random.key(0), batch)
    assert "towers_audio" in variables["params"]
    pair = Pretrainer({modality: TOWERS[modality] for modality in ("image", "text")}, seen)
    with_it, without_it = (
        count(jax.make_jaxpr(lambda variables, made=made: made.apply(variables, batch)[0])(variables))
        for made in (pretrainer, pair)
    )
    assert with_it == without_it > 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (tower("text", vocab=32), r"up to 64 pieces .*towers\.text\.vocab=32 .*set towers\.text\.vocab=64"),
        (objective("words", MaskedText(vocab=32)), r"objectives\.words .*vocab=32, .*64 pieces .*set it to 64"),
        (objective("words", MaskedText(vocab=65)), r"objectives\.words .*vocab=65"),
        (tower("text", length=5), r"texts of 6 tokens, longer than the 5 of towers\.text\.length"),
        (tower("audio", samples=800), r"sounds of 1600 samples, longer than the 800 of towers\.audio\.samples"),
        (
            chain("audio", DecodeAudio(8_000), CropOrPad(1600)),
            r"rate=8000 Hz, .*spectrogram\.rate=16000",
        ),
        (tower("image", size=16), r"pictures of 8x8, towers\.image has size=16 and patch=4"),
        (tower("image", patch=3), r"towers\.image has size=8 and patch=3: .*don't divide"),
        (tower("image", embed_dim=8), r"objectives\.seen .*towers\.image into 8 and towers\.text into 4"),
        (tower("image", embed_dim=None), r"towers\.image into 8 and towers\.text into 4"),
        (objective("seen", Contrastive(("image", "txet"))), r"objectives\.seen reads 'txet', .*did you mean text\?"),
        (
            (*tower("text", vocab=65)[:1], {**OBJECTIVES, "words": MaskedText(vocab=64, tied=True)}, DATA),
            r"objectives\.words is tied to the table of towers\.text, which has vocab=65",
        ),
        (objective("follows", NextSentence()), r"objectives\.follows .*end the chain of 'text' in SentencePair"),
        (objective("heard", MaskedText(vocab=64)), r"no objective reads towers\.audio"),
        (
            chain("image", DecodeAudio(), CropOrPad(800)),
            r"towers\.image reads pictures \[H, W, 3\], and data\.transforms gives int16\[800\]",
        ),
        (chain("audio", Decode(), Resize(8)), r"towers\.audio reads waveforms int16\[T\], .* gives uint8\[8, 8, 3\]"),
        (chain("text", Vector(6)), r"towers\.text reads token ids int32\[L\], .* gives float32\[6\]"),
        (
            ({**TOWERS, "image": Given(embed_dim=4)}, OBJECTIVES, DATA),
            r"data\.transforms gives uint8\[8, 8, 3\], and towers\.image\.embed_dim=4",
        ),
        (
            objective("seen", Contrastive(("image", "text"), masking={"image": Corrupt(vocab=64)})),
            r"objectives\.seen corrupts what towers\.image reads; only tokens of text can be",
        ),
        (without("audio"), r"data\.transforms lacks 'audio', but the chains of data\.transforms are image, text"),
    ],
)
def test_parts_that_do_not_fit_are_named_with_their_values(parts, message):
    with pytest.raises(UserError, match=message):
        check_fit(*parts)
