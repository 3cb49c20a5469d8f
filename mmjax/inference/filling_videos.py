"""Fills a masked place of what is said in a video with one of given texts (`Reserve`)."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains
from mmjax.data.decoding.videos import video_facts
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.input import as_array, is_path, local_file
from mmjax.data.transforms.reserve.clips import EachClip
from mmjax.data.transforms.reserve.streams import ReserveStreams
from mmjax.data.transforms.video import DecodeVideo
from mmjax.data.transforms.video_input import VideoInput
from mmjax.errors import UserError
from mmjax.inference.classification import Classification
from mmjax.inference.filling_parts import Programs, check_read_beside, check_room, cleaned_part
from mmjax.inference.inputs import Inputs, Row
from mmjax.objectives.reserve.filling import filled_logits
from mmjax.objectives.reserve.objective import Reserve
from mmjax.objectives.reserve.sequences import encoded_parts
from mmjax.objectives.reserve.streams import NOTHING, SpanRows, StreamRows


class SpokenFiller:
    """Compares options with what the joint transformer of a `Reserve` objective expects at a mask.

    The prompt stands in the last segment of a row, after the sounds of those before, as in the released code's
    evaluation on questions.
    """

    def __init__(self, experiment: Any, tokenizers: Mapping[str, Tokenizer], inputs: Inputs, programs: Programs):
        self._experiment, self._tokenizers, self._inputs, self._programs = experiment, tokenizers, inputs, programs

    def __call__(
        self,
        name: str,
        part: Reserve,
        halves: tuple[str, str],
        options: Sequence[str] | None,
        given: Mapping[str, Any],
    ) -> Classification:
        check_read_beside(name, given, [one for one in (part.video, part.audio) if one is not None])
        if options is None:
            raise UserError(f"fill(): {name!r} compares texts, and knows none by itself: give options=[...]")
        if part.video not in given:
            raise UserError(f"fill() needs {part.video}=..., whose frames {name!r} reads beside the prompt")
        if not part.knows_spans:
            raise UserError(f"fill(): {name!r} has no stuff_to_span among its losses, and can't tell texts apart")
        step, cleaning = self._streams(part)
        frames = step.segments // step.groups

        def pieces(text: str) -> list[int]:
            return step.whole(cleaned_part(text, cleaning))

        sound: dict[str, np.ndarray] = {}
        heard = 0
        if part.audio is not None and part.audio in given:
            sound = self._sound(part.audio, given[part.audio], frames * step.each)
            heard = (frames - 1) * step.each * step.audio_tokens
        before = [*pieces(halves[0]), step.ids.mask]
        words = [*before, *pieces(halves[1])]
        check_room(heard + len(words), step.length, part.words, heard)
        empty = step.length - heard - len(words)
        ids = [step.ids.audio_span] * heard + words + [step.ids.pad] * empty
        segments = [place // (step.each * step.audio_tokens) for place in range(heard)]
        segments += [frames - 1] * len(words) + [0] * empty
        spans, lengths = np.full((len(options), step.span_length), step.ids.pad, np.int32), []
        for span, option in zip(spans, options, strict=True):
            found = pieces(option)
            if not 0 < len(found) <= step.span_length:
                raise UserError(
                    f"fill(): the option {option!r} has {len(found)} pieces; one has 1 to {step.span_length}"
                )
            span[: len(found)] = found
            lengths.append(len(found))
        row = self._frames(part.video, given[part.video], frames) | sound
        row |= {
            "ids": np.asarray(ids, np.int32),
            "segments": np.asarray(segments, np.int32),
            "audio_ptr": np.asarray([*range(heard), *[NOTHING] * (step.length - heard)], np.int32),
            "blocks": np.asarray([0] * (step.length - empty) + [NOTHING] * empty, np.int32),
            "at": np.asarray(heard + len(before) - 1, np.int32),
            "spans": spans,
            "lengths": np.asarray(lengths, np.int32),
        }
        logits = self._programs.of(f"{name} with sound" if sound else name, _of_spans(part, name, frames))([[row]])[0]
        return Classification(tuple(options), softmax(logits), logits)

    def _streams(self, part: Reserve) -> tuple[ReserveStreams, Sequence[Any]]:
        """The step that makes the streams of words, with its tokenizer, and those before it."""
        chain = self._experiment.data.transforms.get(part.words, ())
        place = next((place for place, step in enumerate(chain) if isinstance(step, ReserveStreams)), None)
        if place is None:
            raise UserError(f"fill(): the model's record has no ReserveStreams for {part.words!r}")
        if part.words not in self._tokenizers:
            raise UserError(f"fill(): the model has no tokenizer for {part.words!r}, which reads the prompt")
        return chain[place].with_tokenizer(self._tokenizers[part.words]), chain[:place]

    def _frames(self, modality: str, value: Any, count: int) -> Row:
        """The middle frame of each of `count` equal parts of a video."""
        chain = tuple(
            replace(step, frames=count) if isinstance(step, DecodeVideo) else step
            for step in self._experiment.data.transforms[modality]
        )
        row = Inputs(Chains({modality: chain}), self._inputs.upright).row(modality, value)
        return {"frames" + name.removeprefix(modality): array for name, array in row.items()}

    def _sound(self, modality: str, value: Any, count: int) -> Row:
        """A sound's clips: `count` of them in equal parts of it, each around the middle of its part."""
        chain = self._experiment.data.transforms[modality]
        each = next((step for step in chain if isinstance(step, EachClip)), None)
        decode = each.steps[0] if each is not None and each.steps else None
        if each is None or not isinstance(decode, DecodeAudio):
            raise UserError(f"fill(): the transforms of {modality!r} have no EachClip((DecodeAudio(...), ...))")
        wave = _decoded(modality, value, decode)
        samples = self._inputs.specs[modality].shape[1]
        middles = ((np.arange(count) + 0.5) * len(wave) / count).astype(int)
        starts = np.clip(middles - samples // 2, 0, max(len(wave) - samples, 0))
        clips: list[Any] = [wave[start : start + samples] for start in starts]
        for step in each.steps[1:]:
            clips = [step(clip, None) for clip in clips]
        waves = [getattr(clip, "values", clip) for clip in clips]
        return {"clips": np.stack(waves), "clips_mask": np.ones(count, bool)}


def _of_spans(part: Reserve, name: str, frames: int) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
    def compute(pretrainer: Any, batch: dict[str, jax.Array]) -> jax.Array:
        there = jnp.ones(len(batch["ids"]), bool)

        def read(input: str, entry: str) -> Any:
            tokens, real = pretrainer.towers[input].tokens(batch[entry], batch.get(f"{entry}_mask"))
            return encoded_parts(tokens, real, batch[entry].shape[1], there, input)

        video = read(part.video, "frames")
        audio = read(part.audio, "clips") if part.audio is not None and "clips" in batch else None
        ids, segments, blocks, sound = (batch[key][:, None] for key in ("ids", "segments", "blocks", "audio_ptr"))
        nothing = jnp.full_like(ids, NOTHING)
        seen = jnp.zeros((len(there), 1, frames), jnp.int32)
        rows = StreamRows(ids, segments, blocks, sound, text=nothing, target=nothing, frame=nothing, frame_blocks=seen)
        spans = SpanRows(batch["spans"], batch["lengths"])
        return filled_logits(pretrainer.objectives[name], rows, batch["at"], spans, audio, video)

    return compute


def _decoded(modality: str, value: Any, decode: DecodeAudio) -> np.ndarray:
    """The whole sound, int16 `[T]`; that of a video too, by its file's name."""
    where = f"the {modality}"
    value = as_array(value)
    try:
        if is_path(value) and os.fspath(value).lower().endswith(VideoInput.endings):
            file = local_file(value, where)
            facts = video_facts(file)
            if not facts.sounds or facts.seconds is None:
                raise UserError(f"{where}: {file} has no sound: leave {modality} out")
            return decode(Clip(file, 0.0, facts.seconds), None)
        return SoundInput(modality, (decode,), decode.spec(None)).read(value, where)[0]
    except BadExample as reason:
        raise UserError(f"{where}: {reason}") from reason
