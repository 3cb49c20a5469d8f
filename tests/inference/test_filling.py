"""A mask in a prompt is filled as by hand from the same parameters: a word of the vocabulary, or a text in a video."""

import math
from pathlib import Path
from typing import Any

import fiddle as fdl
import flax.linen as nn
import jax
import numpy as np
import pytest
import soundfile
from scipy.special import erf, softmax

from mmjax.data import (
    CropFrame,
    CropOrPad,
    Decode,
    DecodeAudio,
    DecodeVideo,
    EachClip,
    EachFrame,
    Lowercase,
    Mixture,
    ReserveIds,
    ReserveStreams,
    Resize,
    SentencePiece,
    Tokenize,
)
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.video_files import video_file
from mmjax.errors import UserError
from mmjax.experiment import Experiment, experiment
from mmjax.experiment.graph import build
from mmjax.inference.filling import MASK
from mmjax.inference.model import Model
from mmjax.interop.bundle import Bundle, variables_of
from mmjax.models import Blocks, Cross, LogMel, ReserveAudio, ReserveVision, TextTransformer, ViT
from mmjax.objectives import Contrastive, MaskedText, Reserve
from mmjax.optim import AdamW
from tests.models.towers.reserve import twin
from tests.objectives.reserve import by_hand

SIDE, VOCAB, LENGTH = 16, 64, 16
SEGMENTS, EACH, GROUPS, ROW, SPAN = 4, 3, 2, 28, 8
RATE, SAMPLES = 8_000, 1_600
ALIKE: dict[str, Any] = {"width": 32, "heads": 2, "activation": "quick_gelu", "norm_eps": 1e-5, "out_bias": False}
TEXTS = ["a red dog rolls", "a blue cat runs", "the green ball rolls to the left", "the dog and the cat", "a big ball"]


@experiment
def reading() -> Experiment:
    size: dict[str, Any] = dict(width=16, depth=1, heads=2)
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=VOCAB, length=LENGTH, blocks=Blocks(**size), embed_dim=8),
        },
        fusions={"reader": Cross(reader="text", blocks=Blocks(**size))},
        objectives={
            "pair": Contrastive(("image", "text")),
            "alone": MaskedText(vocab=VOCAB),
            "read": MaskedText(vocab=VOCAB, fusion="reader", beside=("image",)),
        },
        data=Mixture(
            {},
            {
                "image": (Decode(), Resize(SIDE)),
                "text": (Lowercase(), Tokenize(SentencePiece(vocab_size=VOCAB), length=LENGTH, bos=True)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


@experiment
def watching() -> Experiment:
    mels = LogMel(RATE, 160, 80, 256, 8, 20.0, None, "slaney", floor=0.1, mean=math.log(0.1))
    blocks = Blocks(depth=1, **ALIKE)
    words = ReserveStreams(SentencePiece(VOCAB), SEGMENTS, EACH, GROUPS, ROW, ROW, SPAN, audio_tokens=2)
    return Experiment(
        towers={
            "video": ReserveVision(size=(16, 24), patch=4, blocks=blocks),
            "audio": ReserveAudio(spectrogram=mels, samples=SAMPLES, blocks=blocks),
        },
        objectives={
            "reserve": Reserve(blocks=blocks, span_depth=1, vocab=VOCAB + 10, grid=(2, 3), web_text=None, chosen=8)
        },
        data=Mixture(
            {},
            {
                "video": (DecodeVideo(SEGMENTS, jitter=False), EachFrame((CropFrame(16, 24),))),
                "audio": (EachClip((DecodeAudio(rate=RATE), CropOrPad(SAMPLES)), SEGMENTS * EACH),),
                "words": (Lowercase(), words),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


def made(config: fdl.Config, modality: str, tokenizer: PieceTokenizer) -> Model:
    random = np.random.default_rng(0)
    shapes = variables_of(build(config))
    variables = jax.tree.map(lambda x: np.float32(0.3 * random.normal(size=x.shape)), shapes)
    if "objectives_reserve" in variables["params"]:
        variables["params"]["objectives_reserve"]["log_scale"] = np.array([1.0, 1.5, 4.0], np.float32)
    return Model(Bundle(config, variables, {modality: tokenizer}, "made"))


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20))


@pytest.fixture(scope="module")
def reader(tokenizer: PieceTokenizer) -> Model:
    return made(reading.as_buildable(), "text", tokenizer)


@pytest.fixture(scope="module")
def watcher(tokenizer: PieceTokenizer) -> Model:
    return made(watching.as_buildable(), "words", tokenizer)


def head(x: np.ndarray, held: Any) -> np.ndarray:
    """BERT's head in float64."""
    held = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), held)
    dense, norm, words = (held[name] for name in ("dense", "norm", "words"))
    x = np.asarray(x, np.float64) @ dense["kernel"] + dense["bias"]
    x = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * norm["scale"] + norm["bias"]
    return x @ words["kernel"] + words["bias"]


def ids_of(tokenizer: PieceTokenizer) -> tuple[list[Any], int]:
    """Of "the [MASK] rolls": with the mask's id, and its place."""
    before, behind = tokenizer.encode("the"), tokenizer.encode("rolls")
    return [tokenizer.bos, *before, 4, *behind, tokenizer.eos], 1 + len(before)


def states(model: Model, ids: list[int], image: np.ndarray | None, fused: bool) -> np.ndarray:
    row = np.zeros((1, LENGTH), np.int32)
    row[0, : len(ids)] = ids
    mask = (np.arange(LENGTH) < len(ids))[None]

    def forward(pretrainer: Any) -> Any:
        text = pretrainer.towers["text"].tokens(row, mask)
        if not fused:
            return text[0]
        pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8) if image is None else image[None]
        tokens, real = pretrainer.towers["image"].tokens(pixels)
        given = {"text": text, "image": (tokens, real & (image is not None))}
        return pretrainer.fusions["reader"](given, train=False, keys=None)[0]["text"][0]

    found = nn.apply(forward, model.experiment.pretrainer())(model.variables)
    return np.asarray(found)[0, found.shape[1] - LENGTH :]


@pytest.mark.parametrize("seen", [None, False, True])
def test_a_word_is_filled_as_by_hand(reader: Model, tokenizer: PieceTokenizer, seen: bool | None) -> None:
    """By the tower alone, and by the fusion without and with a picture."""
    name, (ids, place) = "alone" if seen is None else "read", ids_of(tokenizer)
    picture = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    given: dict[str, Any] = {"image": picture} if seen else {}
    state = states(reader, ids, picture if seen else None, seen is not None)[place]
    logits = head(state, reader.params[f"objectives_{name}"])[: tokenizer.vocab_size]
    found = reader.fill(f"The {MASK} rolls", objective=name, top=4, **given)
    order = np.argsort(-logits[5:])[:4] + 5
    np.testing.assert_allclose(found.logits, logits[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, softmax(logits)[order], rtol=1e-3, atol=1e-5)
    assert found.labels == tuple(tokenizer.decode([int(i)]).strip() or f"#{i}" for i in order)
    options = [word for word in ("a", "the", "ball") if len(tokenizer.encode(word)) == 1]
    chosen = [tokenizer.encode(word)[0] for word in options]
    assert len(options) > 1
    compared = reader.fill(f"the {MASK} rolls", objective=name, options=options, **given)
    np.testing.assert_allclose(compared.logits, logits[chosen], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(compared.probabilities, softmax(logits[chosen]), rtol=1e-4, atol=1e-5)
    assert compared.labels == tuple(options)


def by_formulas(model: Model, frames: np.ndarray, clips: np.ndarray | None, options: list[str]) -> np.ndarray:
    """The logits of options for "the [MASK] rolls", in float64 from the towers' tokens."""
    held, cut = twin.in_float64(model.params["objectives_reserve"]), model._bundle.tokenizers["words"].encode
    table = held["token"]["embedding"]

    def pieces(text: str) -> list[int]:
        return [id + 10 for id in cut(f" {text}")]

    def tokens(name: str, given: np.ndarray) -> np.ndarray:
        found = model.towers[name].apply({"params": model.params[f"towers_{name}"]}, given[None], method="tokens")[0]
        return np.asarray(found, np.float64).reshape(len(given), -1, 32)[:, 1:]

    x, places = [], []
    if clips is not None:
        for number, token in enumerate(tokens("audio", clips)[:EACH].reshape(-1, 32)):  # of the first of two segments
            x.append(token)
            places.append((0.0, 0.0, 0.0, (number + 1) / 1024))
    at = len(x) + len(pieces("the"))
    for id in [*pieces("the"), 3, *pieces("rolls")]:
        x.append(table[id])
        places.append((0.0, 0.0, 1 / 16, len(x) / 1024))
    for segment, of_frame in enumerate(tokens("video", frames)):
        for cell, where in enumerate(twin.grid_places(2, 3)):
            x.append(of_frame[cell])
            places.append((*where, segment / 16, 0.0))
    found = twin.encoded(np.array(x), held["joint"], np.array(places))
    state = by_hand.unit(twin.linear(found[at], held["head"]))
    scale = np.exp(min(held["log_scale"][2], math.log(100)))
    spans = [by_hand.span_vector(np.array(pieces(option)), held, table, False) for option in options]
    return np.array([scale * state @ by_hand.unit(span) for span in spans])


def heard(wave: np.ndarray) -> np.ndarray:
    """The six clips around the middles of equal parts."""
    part = len(wave) / 6
    starts = [int((k + 0.5) * part) - SAMPLES // 2 for k in range(6)]
    return np.array([wave[start : start + SAMPLES] for start in starts])


def test_a_text_is_filled_in_a_video_as_by_hand(watcher: Model, tmp_path: Path) -> None:
    """A row of its training has two segments: of six frames the second and the fifth are seen."""
    random = np.random.default_rng(4)
    frames = random.integers(0, 256, (6, 16, 24, 3), np.uint8)
    options = ["dog", "green ball", "cat"]
    found = watcher.fill(f"the {MASK} rolls", options=options, video=frames)
    expected = by_formulas(watcher, frames[[1, 4]], None, options)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, softmax(expected), rtol=1e-4)
    assert found.labels == tuple(options)
    assert np.ptp(expected) > 0.05

    wave = (8_000 * np.sin(np.arange(6 * 2_000) ** 1.5 / 90)).astype(np.int16)
    for sound in ((wave, RATE), write(tmp_path / "sound.wav", wave)):
        with_sound = watcher.fill(f"the {MASK} rolls", options=options, video=frames, audio=sound)
        expected = by_formulas(watcher, frames[[1, 4]], heard(wave), options)
        np.testing.assert_allclose(with_sound.logits, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(with_sound.logits - found.logits).max() > 1e-3


def write(path: Path, wave: np.ndarray) -> str:
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    return str(path)


def test_the_sound_of_a_video_s_file_is_heard(watcher: Model, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = np.repeat(np.random.default_rng(5).integers(0, 256, (2, 32, 48, 3), np.uint8), 8, axis=0)
    time = np.arange(2 * RATE) / RATE
    tone = (9_000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16)
    paths = []
    for name, sound in (("clip.mp4", tone), ("mute.mp4", None)):
        (tmp_path / name).write_bytes(video_file(frames, 8, sound, RATE, "mp4"))
        paths.append(str(tmp_path / name))
    prompt, options = f"the {MASK} rolls", ["dog", "cat"]
    mute = watcher.fill(prompt, options=options, video=paths[0])
    loud = watcher.fill(prompt, options=options, video=paths[0], audio=paths[0])
    assert np.abs(mute.logits - loud.logits).max() > 1e-4
    with pytest.raises(UserError, match=r"mute\.mp4 has no sound: leave audio out"):
        watcher.fill(prompt, options=options, video=paths[0], audio=paths[1])


FRAMES = np.zeros((2, 16, 24, 3), np.uint8)
ONE = f"the {MASK} rolls"


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        ("the dog rolls", {}, r"the prompt has 0 times \[MASK\], and one is filled"),
        (f"{MASK} and {MASK}", {}, r"the prompt has 2 times \[MASK\]"),
        (7, {}, "a prompt is a text"),
        (ONE, {"options": []}, "give a list of one text or more"),
        (ONE, {"options": "dog"}, "give a list of one text or more"),
        (ONE, {"options": ["dog", " "]}, "' ' is no text"),
        (ONE, {"options": ["a", "a"]}, "'a' comes 2 times"),
        (ONE, {"options": ["hippopotamus"]}, r"'hippopotamus' has \d+ pieces in the model's vocabulary"),
        (ONE, {"top": 0}, r"fill\(top=0\)"),
        (ONE, {"objective": "pair"}, "asks 'pair', but the MaskedText or Reserve objectives are alone, read"),
        (ONE, {"objective": None}, r"fill\(\) can ask alone, read: say which"),
        (ONE, {"image": FRAMES[0]}, "was given 'image', but the inputs that 'alone' reads beside the prompt are none"),
        (ONE, {"audio": "x.wav"}, "the model has no 'audio' tower"),
        (f"{MASK} {'a big ball ' * 20}", {}, r"the prompt has \d+ tokens, and 'text' takes 16: shorten it"),
    ],
)
def test_what_no_reader_can_fill_is_refused(prompt: Any, given: dict[str, Any], message: str, reader: Model) -> None:
    with pytest.raises(UserError, match=message):
        reader.fill(prompt, **{"objective": "alone", **given})


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        (ONE, {"options": None}, r"'reserve' compares texts, and knows none by itself: give options"),
        (ONE, {"video": None}, r"fill\(\) needs video=\.\.\."),
        (ONE, {"options": ["a big ball " * 9]}, r"pieces; one has 1 to 8"),
        (f"{MASK} {'a big ball ' * 20}", {}, r"the prompt has \d+ tokens, and 'words' takes 28"),
        (
            f"{MASK} {'a ball ' * 12}",
            {"audio": (np.ones(8_000, np.int16), RATE)},
            r"has \d+ tokens, 6 of them for the sound, and 'words' takes 28",
        ),
        (ONE, {"audio": "gone.wav"}, "the audio: there is no file gone.wav"),
        (ONE, {"audio": "gone.mp4"}, "the audio: there is no file gone.mp4"),
    ],
)
def test_what_no_watcher_can_fill_is_refused(prompt: str, given: dict[str, Any], message: str, watcher: Model) -> None:
    with pytest.raises(UserError, match=message):
        watcher.fill(prompt, **{"options": ["dog"], "video": FRAMES, **given})


def test_a_model_without_tokenizer_or_without_such_an_objective_says_so(watcher: Model, reader: Model) -> None:
    bare = Model(Bundle(watcher._bundle.config, watcher.variables, {}, "bare"))
    with pytest.raises(UserError, match="no tokenizer for 'words'"):
        bare.fill(ONE, options=["dog"], video=FRAMES)
    bare = Model(Bundle(reader._bundle.config, reader.variables, {}, "bare"))
    with pytest.raises(UserError, match="no tokenizer for 'text'"):
        bare.fill(ONE, objective="alone")
    config = reading.as_buildable()
    config.objectives = {"pair": config.objectives["pair"]}
    config.fusions = {}
    pair = made(config, "text", reader._bundle.tokenizers["text"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"trained with a MaskedText or Reserve objective, .* pair \(Contrastive\)"):
        pair.fill(ONE)


def test_a_model_of_masked_words_compares_no_texts(tokenizer: PieceTokenizer) -> None:
    config = watching.as_buildable()
    config.objectives["reserve"].masked_words = True
    with pytest.raises(UserError, match="'reserve' has no stuff_to_span among its losses"):
        made(config, "words", tokenizer).fill(ONE, options=["dog"], video=FRAMES)


def test_ids_that_are_not_raised_are_filled_too(watcher: Model, tokenizer: PieceTokenizer) -> None:
    """As of a released checkpoint, whose tokenizer has the special ids itself."""
    config = watching.as_buildable()
    config.data.transforms["words"][1].ids = fdl.Config(ReserveIds, 60, 61, 62, 63, 64, 65, 66, shift=0)
    other = made(config, "words", tokenizer)
    found = other.fill(ONE, options=["dog", "cat"], video=FRAMES)
    assert np.isfinite(found.logits).all()
    assert np.abs(found.logits - watcher.fill(ONE, options=["dog", "cat"], video=FRAMES).logits).max() > 1e-4
