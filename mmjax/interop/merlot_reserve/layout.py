"""MERLOT Reserve's released checkpoints (Zellers et al. 2022, arXiv:2201.02639), read: flax's msgpack of a training
state, its parameters in 16 bits.

A file holds arrays alone. Their shapes tell the sizes; the rest is the released code's: heads of 64 channels, of which
rotary positions scale the first 32 (`rotary.rotate`), 60 frames of a spectrogram pooled to 6 tokens, streams of 16
segments in two groups. Two things no file tells. One is the size of frames, since rotary positions have no parameters:
it is 192 x 320, with which the model was pretrained, or 288 x 512 where the file is called so (`base_resadapt`); the
same numbers read frames of any size. The other is the tokenizer, which is taken from a `lowercase_encoder.json` (or
`tokenizer.json`) beside the file; its ids are the table's rows, the special ones among them, and none is raised.

Frames are cropped to their shape here, where the released code leaves margins, and every sound is played as fast as it
was recorded. Checkpoints that were fine-tuned for a task have other heads, and are refused.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax.numpy as jnp
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import GivenIds
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.frame_crop import CropFrame
from mmjax.data.transforms.reserve.clips import EachClip
from mmjax.data.transforms.reserve.ids import ReserveIds
from mmjax.data.transforms.reserve.streams import ReserveStreams
from mmjax.data.transforms.reserve.web_text import MaskSpans
from mmjax.data.transforms.text import Lowercase
from mmjax.data.transforms.video import DecodeVideo, EachFrame
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules
from mmjax.interop.bundle import Bundle
from mmjax.interop.merlot_reserve.rules import (
    EMBEDDING,
    LAYER_NAME,
    OBJECTIVE,
    TOWERS,
    WORDS,
    rules,
)
from mmjax.interop.parts import Parts
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.reserve.audio import ReserveAudio
from mmjax.models.towers.reserve.vision import ReserveVision
from mmjax.objectives.reserve.objective import Reserve
from mmjax.runtime.files import regular

LARGEST = 2**33  # bytes of a file: those of the large model with its optimiser's state have 5e9
HEAD = 64  # channels of a head, of which the released code scales half
RATE, HOP, FRAMES, CHANNELS = 22_050, 588, 60, 65  # of a clip; the last channel is the speed at which it is played
SEGMENTS, GROUPS, EACH = 16, 2, 3
CLIP_TOKENS, POOLED = 6, 2  # of a clip; patches along a frame's side that are pooled
SIZE, ADAPTED_SIZE, ADAPTED = (192, 320), (288, 512), "resadapt"
TOKENIZERS = ("lowercase_encoder.json", "tokenizer.json")
FIXED: dict[str, Any] = {"activation": "quick_gelu", "norm_eps": 1e-5, "inits": "reserve", "out_bias": False}


def read(path: str | Path) -> Bundle:
    """The model of a file: towers `video` and `audio`, and the objective `reserve`, whose rotary positions scale.

    Raises:
        UserError: it isn't there or broken, or holds what the model hasn't, or lacks what it has.
    """
    path = Path(path)
    arrays = plainly_numbered(_arrays(path), str(path))
    size = ADAPTED_SIZE if ADAPTED in path.name else SIZE
    try:
        parts = model_parts(arrays, size, str(path))
    except (ValueError, IndexError) as error:  # of arrays with other numbers of axes
        raise UserError(f"{path} is no checkpoint of MERLOT Reserve: {error}") from error
    depths = {name: _depth(arrays, name) for name in (*TOWERS, "span_encoder", "joint_transformer")}
    variables = parameter_rules.take(rules(depths, parts.towers["video"].blocks.width // HEAD), arrays, str(path))
    tokenizers = _tokenizers(path, len(arrays[WORDS]))
    config = bundles.stand_in(parts.towers, parts.objectives, reserve_chains(parts, size, bool(tokenizers)))
    notes = (
        f"{path} doesn't say the size of frames: it is read with {size[0]}x{size[1]} pixels; the same numbers fit "
        "other sizes (towers.video.size, objectives.reserve.grid and the transforms of video)",
    )
    bundle = Bundle(config, variables, tokenizers, str(path), notes=notes)
    build(config)
    bundles.check_bundle(bundle)
    return bundle


def write(bundle: Bundle, path: Path, exact: bool = True) -> None:
    """Raises UserError: nothing is written so."""
    del path, exact
    raise UserError(f"{bundle.source or 'the model'} can't be written as MERLOT Reserve's, which is only read")


# --- what a file is ---


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The parameters by their paths, fp32."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    content = regular.content(path, LARGEST)
    try:
        state = serialization.msgpack_restore(content)
    except Exception as error:  # msgpack's, flax's and numpy's exceptions have nothing in common
        raise UserError(f"{path} can't be read as flax's msgpack, it is damaged or something else: {error}") from error
    params = state.get("params") if isinstance(state, Mapping) else None
    if not isinstance(params, Mapping):
        raise UserError(f"{path} is no state of a training: it has no params")
    found: dict[Any, Any] = flatten_dict(dict(params))
    if odd := [name for name, leaf in found.items() if not isinstance(leaf, np.ndarray)]:
        raise UserError(f"{path}: params/{'/'.join(map(str, odd[0]))} is {type(found[odd[0]]).__name__}, no array")
    return {"/".join(map(str, name)): _fp32(array) for name, array in found.items()}


def plainly_numbered(arrays: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arrays with plain numbers in the names of layers, `layer_7` for `layer_07`."""
    found = {re.sub(LAYER_NAME, lambda name: f"layer_{int(name[1])}", name): array for name, array in arrays.items()}
    if len(found) < len(arrays):
        raise UserError(f"{where} has layers whose numbers are equal: layer_07 and layer_7, say")
    return found


def model_parts(arrays: Mapping[str, Any], size: tuple[int, int], where: str) -> Parts:
    """Towers and objective, as the names and shapes tell, for frames of `size` in pixels.

    Raises:
        UserError: they tell of something else.
    """
    needed = [*(EMBEDDING.format(name) for name in TOWERS), WORDS, "joint_transformer/layer_0/mlp_layer/out/kernel"]
    needed += [f"{name}/transformer/layer_0/mlp_layer/out/kernel" for name in (*TOWERS, "span_encoder")]
    if missing := [name for name in needed if name not in arrays]:
        raise UserError(
            f"{where} is no pretrained checkpoint of MERLOT Reserve: it lacks {missing[0]} and has "
            f"{', '.join(sorted({name.split('/')[0] for name in arrays}))} (those fine-tuned for a task lack what the "
            "task doesn't need)"
        )
    width = arrays[WORDS].shape[1]
    head = arrays["joint_transformer/layer_0/attention_layer/qkv/kernel"].shape[-1]
    if head != HEAD or width % HEAD:
        raise UserError(f"{where} has heads of {head} channels, {width} in all: in the released code a head has {HEAD}")
    frames, clips = (arrays[EMBEDDING.format(name)].shape for name in TOWERS)
    patch = math.isqrt(frames[0] // 3)
    if len(frames) != 2 or 3 * patch**2 != frames[0] or any(side % (POOLED * patch) for side in size):
        raise UserError(
            f"{where}: {EMBEDDING.format('vision_encoder')} {list(frames)} is of no square patches of {size}"
        )
    if len(clips) != 3 or clips[1] != CHANNELS or FRAMES % (clips[0] * CLIP_TOKENS):
        raise UserError(
            f"{where}: {EMBEDDING.format('audio_encoder')} {list(clips)} isn't of frames with {CHANNELS} channels, of "
            f"which {FRAMES} give {CLIP_TOKENS} tokens"
        )

    def blocks(encoder: str) -> fdl.Config:
        at = "" if encoder == "joint_transformer" else "transformer/"
        inner = arrays[f"{encoder}/{at}layer_0/mlp_layer/out/kernel"].shape[0]
        mlp = {} if inner == 4 * width else {"mlp_dim": inner}
        return fdl.Config(Blocks, width=width, depth=_depth(arrays, encoder), heads=width // HEAD, **mlp, **FIXED)

    log = fdl.Config(LogMel, RATE, 1_536, HOP, 1_536, CHANNELS - 1, 20.0, None, "slaney", floor=0.1, mean=math.log(0.1))
    towers = {
        "video": fdl.Config(
            ReserveVision, size=size, patch=patch, ratio=POOLED, blocks=blocks("vision_encoder"), scaled=True
        ),
        "audio": fdl.Config(
            ReserveAudio,
            spectrogram=log,
            samples=HOP * FRAMES,
            patch=clips[0],
            ratio=FRAMES // (clips[0] * CLIP_TOKENS),
            blocks=blocks("audio_encoder"),
            scaled=True,
        ),
    }
    objective = fdl.Config(
        Reserve,
        blocks=blocks("joint_transformer"),
        span_depth=_depth(arrays, "span_encoder"),
        vocab=arrays[WORDS].shape[0],
        special=0,
        grid=(size[0] // (POOLED * patch), size[1] // (POOLED * patch)),
        scaled=True,
    )
    return Parts(towers, {OBJECTIVE: objective})


def _depth(arrays: Mapping[str, Any], encoder: str) -> int:
    within = re.compile(rf"{encoder}/(transformer/)?(layer_\d+)/")
    return len({match[2] for name in arrays if (match := within.match(name))})


# --- inputs and files ---


def reserve_chains(parts: Parts, size: tuple[int, int], reads: bool = True) -> dict[str, Any]:
    """The transforms of the released model's inputs. reads: there is a tokenizer."""
    vocab = parts.objectives[OBJECTIVE].vocab
    spec = fdl.Config(Subwords, vocab) if reads else fdl.Config(GivenIds, vocab)
    ids, sound = fdl.Config(ReserveIds, shift=0), (fdl.Config(DecodeAudio, RATE), fdl.Config(CropOrPad, HOP * FRAMES))
    streams = fdl.Config(ReserveStreams, spec, SEGMENTS, EACH, GROUPS, audio_tokens=CLIP_TOKENS, ids=ids)
    frame = fdl.Config(CropFrame, *size, (1.05, 1.1))
    return {
        "video": (fdl.Config(DecodeVideo, SEGMENTS, jitter=False), fdl.Config(EachFrame, (frame,))),
        "audio": (fdl.Config(EachClip, sound, SEGMENTS * EACH),),
        "words": (fdl.Config(Lowercase), streams),
        "web_text": (fdl.Config(Lowercase), fdl.Config(MaskSpans, spec, ids=ids)),
    }


def _tokenizers(path: Path, vocab: int) -> dict[str, Tokenizer]:
    file = next((path.with_name(name) for name in TOKENIZERS if path.with_name(name).is_file()), None)
    if file is None:
        return {}
    tokenizer = SubwordTokenizer(tokenizer_json(file))
    if tokenizer.vocab_size > vocab:
        raise UserError(f"{file} has {tokenizer.vocab_size} pieces, and the table of tokens of {path} {vocab}")
    return {"words": tokenizer, "web_text": tokenizer}


def _fp32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
