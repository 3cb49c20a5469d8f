"""`mmjax.load`: any project's checkpoint as a model that takes pictures, strings and sounds."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np

from mmjax.data.chains import Chains, untrained
from mmjax.data.tokenizers.given_ids import IdsAlone
from mmjax.data.transforms.input import Input, shortened
from mmjax.errors import UserError, nearest
from mmjax.evaluate.attention_maps import MapRule
from mmjax.evaluate.evaluators.zeroshot import class_embeddings
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.inference.calibration import Calibration, calibration
from mmjax.inference.classification import Classification, prompts
from mmjax.inference.explainer import Explainer
from mmjax.inference.filling import TOP, Filler
from mmjax.inference.inputs import Inputs, Row
from mmjax.inference.loaded_towers import check_dtype, compute_in, described_tower
from mmjax.inference.predictions import AskedTogether
from mmjax.inference.read_ahead import rows
from mmjax.inference.row_embedder import RowEmbedder
from mmjax.inference.vectors import Scores, Vectors, cosines, two_sides
from mmjax.inference.writing.methods import Writes
from mmjax.interop.bundle import Bundle, without_queues
from mmjax.interop.resolve import resolve
from mmjax.runtime.files.own_code import Code

SPELT_OUT = ("image", "text", "audio", "video")  # modalities that a signature names, for editors


def load(
    source: str | os.PathLike[str],
    *,
    step: int | None = None,
    ema: bool = True,
    code: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    dtype: str | None = None,
    batch_size: int = 64,
    upright: bool = True,
) -> "Model":
    """Loads a model from a workdir, a folder, a file or a name.

    source: a workdir of a run; a folder that `mmjax export` wrote; a folder of Hugging Face's (config.json),
        sentence-transformers' (modules.json) or open_clip's (open_clip_config.json); big_vision's .npz; an .onnx of a
        DINOv2 tower; a file of MERLOT Reserve's; each also in a bucket (gs://...); or a name,
        `hf:google/siglip-base-patch16-224`, `open_clip:ViT-B-32/laion2b_s34b_b79k`, `bv:gs://....npz`, with `@revision`
        behind it or not. A named model is downloaded and converted once.
    step: the checkpoint of a workdir; None: the latest.
    ema: whether the moving average of the parameters is used, where a checkpoint has one.
    code: the file, or files, of parts of one's own that the model's record names, "own.py": they are run. Without it
        such a model is refused; its folder has their texts.
    dtype: of the towers' computation, "float32", "bfloat16" or "float16"; None: the experiment's.
    batch_size: the most inputs of a tower at a time.
    upright: whether pictures with an EXIF orientation are turned as it says. False leaves that to the model's own
        preprocessing: CLIP's, SigLIP's and most others' don't turn them.

    Raises:
        UserError: there is nothing of that name, or nothing that can be read (the message has the nearest); no such
            dtype.
    """
    check_dtype(dtype)
    bundle = without_queues(resolve(source, step=step, ema=ema, code=code))
    compute_in(bundle.config.towers, dtype)
    return Model(bundle, batch_size=batch_size, upright=upright)


class Model(Writes):
    """A pretrained model, ready to use.

    Inputs are given by modality, alone or several (a list, or anything that can be iterated over):

    - image: a PIL image, a file name, bytes of a file, a uint8 array `[H, W, 3]` (or `[H, W]`, `[H, W, 4]`); or a float
      array of the model's own size, `[size, size, 3]`, which is used unchanged, as normalised pixels.
    - text: a string; or an int array `[L]` of token ids, used unchanged; a model without a tokenizer takes only these.
    - audio: `(waveform, sample_rate)`, a waveform `[T]` at the model's rate, a file name, bytes of a file. Floats are
    in [-1, 1]; several channels are averaged.

    Pictures, strings and sounds go through the checkpoint's own preprocessing, pictures upright first: as their EXIF
    orientation says, in files as in PIL images that still carry it.
    """

    def __init__(self, bundle: Bundle, *, batch_size: int = 64, upright: bool = True):
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        self.batch_size = batch_size
        self._bundle = bundle
        self.experiment: Experiment = build(bundle.config)
        self.source = bundle.source
        chains, encoders = self.experiment.data.transforms, self.experiment.pretrainer().inputs()
        self._encoders = {name: tower for name, tower in encoders.items() if name in chains}  # the tower of each input
        transforms = {name: chain for name, chain in chains.items() if name in self._encoders}
        # Some projects' checkpoints have no tokenizer; their texts are given as ids then.
        lacking = {m: spec for m, spec in untrained(transforms).items() if m not in bundle.tokenizers}
        self._without = {modality: IdsAlone(spec, self.source) for modality, spec in lacking.items()}
        self._chains = Chains(transforms, {**bundle.tokenizers, **self._without})
        self._inputs = Inputs(self._chains, upright)
        self._embedder = RowEmbedder(self.experiment.pretrainer(), bundle.variables)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the model (for the processes of a pool, say) without compiled programs and device arrays: the
        experiment's record with code of one's own, the parameters as numpy arrays, the tokenizers.
        """
        config = self._bundle.config
        record, code = records.dumps(config, self.source), own_parts.files_of(config)
        return _unpickled, (replace(self._bundle, config=None), record, self.batch_size, self._inputs.upright, code)  # pyright: ignore[reportArgumentType]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it embeds."""
        return tuple(self._encoders)

    @property
    def kinds(self) -> Mapping[str, type[Input]]:
        """The kind of each modality: pictures, texts, sounds, or a kind of one's own."""
        return {modality: self._inputs.specs[modality].kind for modality in self._encoders}

    @property
    def towers(self) -> Mapping[str, Any]:
        """The encoder of each modality, a Linen module."""
        return self.experiment.towers

    @property
    def variables(self) -> dict[str, Any]:
        """Linen's collections, nested dicts of numpy arrays: the variables for `experiment.pretrainer().apply`."""
        return self._bundle.variables

    @property
    def params(self) -> dict[str, Any]:
        """The parameters, under `towers_<modality>` and `objectives_<name>`."""
        return self.variables["params"]

    @overload
    def embed(self, *, image: Any, batch_size: int | None = None, progress: bool | None = None) -> Vectors: ...
    @overload
    def embed(self, *, text: Any, batch_size: int | None = None, progress: bool | None = None) -> Vectors: ...
    @overload
    def embed(self, *, audio: Any, batch_size: int | None = None, progress: bool | None = None) -> Vectors: ...
    @overload
    def embed(self, *, video: Any, batch_size: int | None = None, progress: bool | None = None) -> Vectors: ...
    @overload
    def embed(
        self,
        *,
        image: Any = None,
        text: Any = None,
        audio: Any = None,
        video: Any = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> dict[str, Vectors]: ...
    @overload
    def embed(self, *, batch_size: int | None = None, progress: bool | None = None, **others: Any) -> Any: ...
    def embed(
        self,
        *unnamed: Any,
        image: Any = None,
        text: Any = None,
        audio: Any = None,
        video: Any = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        **others: Any,
    ) -> Vectors | dict[str, Vectors]:
        """Unit vectors, float32: `[E]` of one input, `[N, E]` of several; for several modalities a dict of them.

        batch_size: the most inputs at a time; None: the model's.
        progress: whether to draw a bar; None: for long lists, on a terminal.

        Raises:
            UserError: an input can't be used (the message says which), or the model has no such modality.
        """
        self._refuse_unnamed(unnamed, "embed")
        given = {"image": image, "text": text, "audio": audio, "video": video}
        given = self._given({m: value for m, value in given.items() if value is not None} | others, "embed")
        vectors = {modality: self._vectors(modality, value, batch_size, progress) for modality, value in given.items()}
        return vectors if len(vectors) > 1 else next(iter(vectors.values()))

    def preprocess(self, *unnamed: Any, **inputs: Any) -> Row:
        """The arrays that the towers read: `image` uint8 `[N, H, W, 3]`, `text` int32 `[N, L]` with `text_mask`,
        `audio` int16 `[N, T]` with `audio_mask`; without the first axis for a single input.
        """
        self._refuse_unnamed(unnamed, "preprocess")
        arrays: Row = {}
        for modality, value in self._given(inputs, "preprocess").items():
            items, alone = self._inputs.listed(modality, value)
            made = [self._inputs.row(modality, item, None if alone else i) for i, item in enumerate(items)]
            for name, empty in self._empty(modality).items():
                column = [row[name] for row in made]
                if len({array.dtype for array in column}) > 1:
                    raise UserError(f"{modality}: pixels and preprocessed floats can't stand in one array")
                arrays[name] = column[0].copy() if alone else np.stack(column) if column else empty
        return arrays

    def blank(self, modality: str) -> np.ndarray:
        """An input of zeros, as the modality's chain ends."""
        return self._one(modality)[modality]

    def similarity(self, *vectors: Any, **inputs: Any) -> Scores:
        """Cosines `[N, M]` of two sides: `similarity(image=[...], text=[...])`, or vectors from `embed` in place of
        either, `similarity(gallery, text="a cat")`. A side that is a single input has no axis.
        """
        (a, _), (b, _) = self._sides(vectors, inputs, "similarity")
        return cosines(a, b)

    def logits(self, *vectors: Any, objective: str | None = None, **inputs: Any) -> Scores:
        """The values of `similarity` with the contrastive objective's learned scale and bias: the logits of its loss.

        objective: its name, where several compare these modalities, or vectors are given.
        """
        (a, first), (b, second) = self._sides(vectors, inputs, "logits")
        return self._calibration((first, second), objective).logits(cosines(a, b))

    def probabilities(self, *vectors: Any, objective: str | None = None, **inputs: Any) -> Scores:
        """The probability that the second side belongs to the first: for a softmax objective they add up to 1 over the
        second side (its last axis); for a sigmoid objective each pair has its own. Arguments as for `logits`.
        """
        (a, first), (b, second) = self._sides(vectors, inputs, "probabilities")
        calibrated = self._calibration((first, second), objective)
        return calibrated.probabilities(calibrated.logits(cosines(a, b)))

    def classify(
        self,
        image: Any = None,
        *unnamed: Any,
        labels: Sequence[str] | Mapping[str, str] = (),
        templates: str | Sequence[str] = "{}",
        objective: str | None = None,
        **inputs: Any,
    ) -> Classification:
        """Chooses among labels: `classify(picture, labels=["cat", "dog"], templates="a photo of a {}.")`.

        image: the inputs, of the model's pictures, whatever it calls them; of another modality: `audio=...`.
        labels: names; or a dict from each name to what a prompt says for it, {"n02012849": "crane bird"}.
        templates: prompts with {} where the label goes, or the name of a list, "clip80"; of several, a label is the
            normalised mean of their vectors.

        For a softmax objective the probabilities add up to 1 over the labels; for a sigmoid objective each label has
        its own, and all may be low.
        """
        if unnamed:
            raise UserError(f"classify() takes its labels by name: classify(..., labels={shortened(unnamed[0])})")
        given = self._given(({} if image is None else {self._pictures(): image}) | inputs, "classify")
        if len(given) != 1:
            raise UserError(f"classify() takes one modality, not {len(given)}: {', '.join(given)}")
        ((modality, value),) = given.items()
        if (texts := self._chains.texts) is None:
            self._check("text", "labels are texts: ")
        assert texts is not None
        if texts in self._without:
            raise UserError(f"labels are texts: {self._without[texts].missing(texts)}")
        names, words, sentences = prompts(labels, templates)
        calibrated = self._calibration((modality, texts), objective)
        classes = class_embeddings(words, sentences, lambda strings: self._vectors(texts, strings))
        logits = calibrated.logits(cosines(self._vectors(modality, value), classes))
        return Classification(names, calibrated.probabilities(logits), logits)

    def predict(self, *unnamed: Any, objective: str | None = None, batch_size: int | None = None, **inputs: Any) -> Any:
        """The label that the model was trained to predict (`Classify`), a `Classification`, or the numbers (`Regress`),
        `[T]` or `[N, T]` in the labels' units: `predict(image=..., text=..., audio=...)`, or a list of each. An input
        that is left out is lacking; a fusion then reads the others alone. objective: its name, where there are several.

        Raises:
            UserError: the model predicts nothing; an input isn't one that the objective reads, or can't be used.
        """
        self._refuse_unnamed(unnamed, "predict")
        return self._predictions.predicted(self._given(inputs, "predict"), objective, batch_size or self.batch_size)

    def match(
        self, *unnamed: Any, objective: str | None = None, batch_size: int | None = None, **inputs: Any
    ) -> Scores:
        """The probability that two inputs belong together, by the fusion of their tokens (`Matching`): of the pair, or
        of each pair of two lists. `similarity` compares all with all, by the towers alone, at much less cost.

        Raises:
            UserError: the model wasn't trained to match; the inputs aren't the two that it matches, or can't be used.
        """
        self._refuse_unnamed(unnamed, "match")
        return self._predictions.matched(self._given(inputs, "match"), objective, batch_size or self.batch_size)

    def fill(
        self, prompt: str, *, options: Any = None, top: int = TOP, objective: str | None = None, **inputs: Any
    ) -> Classification:
        """Fills the one `[MASK]` of a prompt, which stands as a word by itself: `fill("the [MASK] rolls away",
        options=["dog", "ball"], video="clip.mp4")`.

        A model of `Reserve` compares its state there with the options' vectors; logits are cosines times its learned
        scale (the released code takes 100). It reads the middle frames of equal parts of the video, as many as a row of
        its training has, and with `audio` (a sound, or a video's file) the sound of all parts but the last, which has
        the prompt. One of `MaskedText` compares options of one piece each, or without any gives the `top` words of all
        its vocabulary; of what its fusion reads beside, what isn't given is lacking.

        Raises UserError where there isn't one mask, or the model, its prompt's length or an option doesn't fit.
        """
        given = self._given(inputs, "fill") if any(one is not None for one in inputs.values()) else {}
        return self._filler(prompt, options, top, objective, given)

    @cached_property
    def _filler(self) -> Filler:
        held = self._bundle
        return Filler(self.experiment, held.variables, held.tokenizers, self._inputs, self._predictions, self._one)

    def explain(self, *unnamed: Any, objective: str | None = None, rule: MapRule = "relevance", **inputs: Any) -> Any:
        """Maps of what each word looks at in the other inputs of a fusion, a `WordMaps` or, of lists, a list of them:
        `explain(image=..., text=...)`. rule, objective: as in `AttentionMaps`.

        Raises UserError where no fusion can be followed, or an input is lacking or can't be used.
        """
        self._refuse_unnamed(unnamed, "explain")
        return self._explainer(self.preprocess(**self._given(inputs, "explain")), objective, rule)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.experiment.pretrainer(), self._chains, self.variables)

    @cached_property
    def _predictions(self) -> AskedTogether:
        return AskedTogether(self.experiment, self._bundle.variables, self._inputs, self._one)

    def _pictures(self) -> str:
        """The modality that an input is of which is given without a name: `image`, or else the only one of pictures."""
        found = [modality for modality, kind in self.kinds.items() if kind.draws]
        return found[0] if "image" not in found and len(found) == 1 else "image"

    def _sides(self, vectors: tuple[Any, ...], inputs: dict[str, Any], who: str) -> list[tuple[Vectors, str | None]]:
        given = self._given(inputs, who) if inputs else {}
        return two_sides(vectors, given, self._vectors, who)

    def _calibration(self, pair: tuple[str | None, str | None], objective: str | None) -> Calibration:
        return calibration(self.experiment.objectives, self.params, pair, objective)

    def _given(self, inputs: Mapping[str, Any], who: str) -> dict[str, Any]:
        """The inputs by modality, without those that are None; an unknown name is refused, even with None."""
        parameters = inspect.signature(getattr(self, who)).parameters
        options = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name not in SPELT_OUT]
        for name in inputs:
            self._check(name, also=options)
        given = {modality: value for modality, value in inputs.items() if value is not None}
        if not given:
            known = ", ".join(f"{modality}=..." for modality in self.modalities)
            raise UserError(f"{who}() needs something to embed: {known}")
        return given

    def _refuse_unnamed(self, unnamed: tuple[Any, ...], who: str) -> None:
        if unnamed:
            ways = " or ".join(f"{who}({modality}={shortened(unnamed[0])})" for modality in self.modalities)
            raise UserError(f"{who}({shortened(unnamed[0])}) doesn't say what that is: {ways}")

    def _check(self, modality: str, why: str = "", also: Sequence[str] = ()) -> None:
        """Raises UserError unless the model has the modality. also: other names that may have been intended."""
        if modality not in self.modalities:
            meant = nearest(modality, [*self.modalities, *also])
            raise UserError(f"{why}the model has no {modality!r} tower; it embeds {', '.join(self.modalities)}{meant}")

    def _vectors(self, modality: str, value: Any, size: int | None = None, progress: bool | None = None) -> Vectors:
        items, alone = self._inputs.listed(modality, value)
        if alone:
            return self._embedder([[self._inputs.row(modality, next(iter(items)))]])[0]
        made = rows(self._inputs, modality, items, self.batch_size if size is None else size, progress)
        first = next(made, None)
        if first is None:
            return np.zeros((0, self._embedder.size(self._one(modality))), np.float32)
        return self._embedder(chain([first], made))

    def _empty(self, modality: str) -> Row:
        return {name: np.zeros((0, *a.shape), a.dtype) for name, a in self._one(modality).items()}

    def _one(self, modality: str) -> Row:
        """A row of the modality, of zeros."""
        spec = self._inputs.specs[modality]
        row = {modality: np.zeros(spec.shape, spec.dtype)}
        return row | ({f"{modality}_mask": np.ones(spec.shape[:1], bool)} if spec.masked else {})

    def __repr__(self) -> str:
        step = self._bundle.step
        lines = [f"mmjax.Model from {self.source}" + (f", step {step}" if step is not None else "")]
        for modality, name in self._encoders.items():
            size, shape = self._embedder.size(self._one(modality)), self._inputs.specs[modality].shape
            line = described_tower(self.towers[name], name, shape, size, self.params)
            lines.append(f"  {modality:6} {line}{'; without its tokenizer' if modality in self._without else ''}")
        return "\n".join(lines)


def _unpickled(bundle: Bundle, record: str, batch_size: int, upright: bool, code: Code = ()) -> Model:
    return Model(replace(bundle, config=records.loads(record, code)), batch_size=batch_size, upright=upright)
