"""Writes texts with a loaded model: its methods `generate`, `caption`, `stream`, `chat`, `answer`, `log_likelihood`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.data.transforms.asked_dialogue import is_conversation
from mmjax.errors import UserError, unknown
from mmjax.evaluate.writing.beams import Beams, LengthRule
from mmjax.evaluate.writing.prompts import Prompts
from mmjax.evaluate.writing.sampling import Sampling
from mmjax.evaluate.writing.writer import Writer
from mmjax.inference.inputs import Inputs
from mmjax.inference.predictions import AskedTogether
from mmjax.inference.writing.chat import Chat
from mmjax.inference.writing.encoded_views import ViewEncoder
from mmjax.inference.writing.generation import MOST, Beginning, Generation, Order
from mmjax.objectives.caption import Caption
from mmjax.objectives.labels.classify import Classify
from mmjax.objectives.written import decoder_to_write

QUESTION = "Question: {} Answer:"  # of a model of texts alone (BLIP-2: Li et al. 2023, arXiv:2301.12597)


class Writes:
    """The methods of a model that write; `mmjax.load` gives one that has them."""

    experiment: Any
    source: str
    batch_size: int
    _bundle: Any
    _inputs: Inputs
    _one: Any
    _predictions: Any
    _given: Any
    _refuse_unnamed: Any

    @property
    def writes(self) -> tuple[str, ...]:
        """The names of its objectives that write."""
        return tuple(name for name, part in self.experiment.objectives.items() if isinstance(part, Caption))

    def generate(
        self,
        prompt: Any = "",
        *,
        max_new_tokens: int = MOST,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        beams: int | None = None,
        length_penalty: float = 1.0,
        length_rule: LengthRule = "power",
        stop: str | Sequence[str] = (),
        seed: int = 0,
        n: int = 1,
        details: bool = False,
        objective: str | None = None,
        **inputs: Any,
    ) -> Any:
        """Writes on behind a prompt, from inputs: `generate("a photo of", image=picture)`. Texts of lists, of prompts
        or inputs, come as a list; a prompt or an input that is single is every one's.

        prompt: a text; of a model that was trained on conversations the user's turn, or a list of messages that ends in
            one: `[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]`, with the
            picture beside it. Or a list of those.

        The text begins where the prompt ends, perhaps with a space. The words of a text depend on the seed, its number
        in the list and the settings alone, whatever else is written beside it.

        max_new_tokens: the most; fewer are written where the decoder has no more positions.
        temperature, top_k, top_p, min_p, repetition_penalty: how words are drawn (`Sampling`); by default the likeliest
            are taken.
        beams: searches for the likeliest text instead, by so many beginnings (`Beams`, with length_penalty and
            length_rule).
        stop: strings before which a text is cut, the first one that it has.
        n: the number of texts of each prompt; above 1 each gets a list.
        details: True gives `Written`s: texts with ids and log-probabilities.
        objective: its name, where several write.
        inputs: `image=...`, `audio=...`: what the decoder reads.

        Raises UserError where the model doesn't write, or a setting, a prompt or an input can't be used.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        strings = (stop,) if isinstance(stop, str) else tuple(stop)
        search = None if beams is None else Beams(beams, length_penalty, length_rule)
        order = Order(max_new_tokens, sampling, search, strings, seed, n)
        generation, items, alone = self._asked("generate", objective, prompt, inputs)
        found = [texts if details else [one.text for one in texts] for texts in generation(items, order)]
        listed = [texts[0] for texts in found] if n == 1 else found
        return listed[0] if alone else listed

    def caption(self, image: Any, prompt: Any = "", **options: Any) -> Any:
        """Writes a caption of a picture, or of each of several, from the begin of a text, or a prompt. options: those
        of `generate`."""
        return self.generate(prompt, image=image, **options)

    def stream(
        self,
        prompt: Any = "",
        *,
        max_new_tokens: int = MOST,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        objective: str | None = None,
        **inputs: Any,
    ) -> Iterator[str]:
        """The text of `generate` in pieces, as they are written: whole characters, and nothing of a stop string."""
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        strings = (stop,) if isinstance(stop, str) else tuple(stop)
        generation, items, alone = self._asked("stream", objective, prompt, inputs)
        if not alone:
            raise UserError("stream() writes one text: give a single prompt and single inputs")
        return generation.stream(next(iter(items)), Order(max_new_tokens, sampling, None, strings, seed))

    def chat(self, messages: Sequence[Mapping[str, Any]] = (), *, objective: str | None = None) -> Chat:
        """Begins a conversation: `chat.say("what is this?", image=picture)` gives the assistant's answer.

        messages: its first turns, the system's say, in Hugging Face's chat format or LLaVA's. objective: its name,
        where several write.

        Raises UserError where the model doesn't write, or wasn't trained on conversations; where messages have an
        unknown role, or more pictures than it reads.
        """
        return Chat(self.generation(objective, "chat"), self._inputs, self.source, messages)

    def answer(
        self, *unnamed: Any, objective: str | None = None, prompt: str | None = None, **inputs: Any
    ) -> str | list[str]:
        """The answer to a question on a picture, say: `answer(image=..., text="what is red?")`, or lists of them.

        Of a model that was trained on labels (`Classify`) it is the likeliest one, `predict(...).best`. Of one that
        writes it is written, without white space at its ends; then the options of `generate` may stand here too.
        prompt: the question's, with {} where it goes; by default the question alone where the training texts frame it
        (`TokenizeConversation`, `TokenizePrefixed`) or the decoder reads it as an input (`Caption.fusion`), else
        `Question: {} Answer:`. objective: its name, where there are several.

        Raises UserError as `predict` and `generate` do.
        """
        self._refuse_unnamed(unnamed, "answer")
        parts = self.experiment.objectives
        labelled = any(isinstance(part, Classify) for part in parts.values())
        if objective not in self.writes and (labelled or not self.writes):
            if prompt is not None:
                raise UserError(f"answer(prompt={prompt!r:.60}) is for words, and the answers here are labels")
            given = self._given(inputs, "answer")
            return self._predictions.predicted(given, objective, self.batch_size, (Classify,)).best
        generation = self.generation(objective, "answer")
        read = "text" in generation.views.objective.reads  # as an input, and the answer begins a text
        if (question := inputs.pop("text", None)) is None:
            raise UserError("answer() needs the question: text=...")
        prompt = prompt or ("{}" if read or generation.prompts.framed else QUESTION)
        if "{}" not in prompt:
            raise UserError(f"answer(prompt={prompt!r:.60}) has no {{}}, where the question goes")
        asked: Any = question
        if isinstance(question, str):
            asked = prompt.replace("{}", question)
        elif isinstance(question, Sequence):
            asked = [prompt.replace("{}", one) if isinstance(one, str) else one for one in question]
        begun = {"prompt": "", "text": asked} if read else {"prompt": asked}
        found = self.generate(**begun, objective=objective, **inputs)
        return found.strip() if isinstance(found, str) else [one.strip() for one in found]

    def log_likelihood(
        self,
        texts: Sequence[str],
        prompt: Any = "",
        *,
        mean: bool = False,
        objective: str | None = None,
        **inputs: Any,
    ) -> Float[np.ndarray, "*n c"]:
        """The log-probability of each text, with its end, behind the prompt and from the inputs: by it candidates are
        ranked, answers say (ALBEF: Li et al. 2021, arXiv:2107.07651). Each prompt is read once. mean: over the ids.

        Raises UserError as `generate` does.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise UserError(f"log_likelihood({texts!r:.60}): give a list of one text or more")
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise UserError(f"log_likelihood(...): {odd[0]!r:.60} is no text")
        generation, items, alone = self._asked("log_likelihood", objective, prompt, inputs)
        found = generation.scores(items, texts, mean)
        return found[0] if alone else found

    def generation(self, objective: str | None = None, who: str = "generation") -> Generation:
        """The writing of an objective: its name, where several write; who: asks, for messages."""
        asked = AskedTogether(self.experiment, {}, self._inputs, self._one)
        name = asked.chosen((Caption,), objective, who)
        if name not in self._generations:
            part: Caption = self.experiment.objectives[name]
            chain = self.experiment.data.transforms[part.text]
            prompts = Prompts(part.text, chain, self._bundle.tokenizers, self.source)
            decoder, params = decoder_to_write(part, name, self.experiment.towers, self._bundle.variables["params"])
            writer = Writer(decoder, params, prompts.eos, prompts.tokenizer.vocab_size)
            views = ViewEncoder(self.experiment, self._bundle.variables, name, self._inputs, self._one)
            self._generations[name] = Generation(writer, prompts, views, self.batch_size)
        return self._generations[name]

    def _asked(
        self, who: str, objective: str | None, prompt: Any, inputs: Mapping[str, Any]
    ) -> tuple[Generation, Iterable[Beginning], bool]:
        """The writing, what each text is written from, and whether it is a single one."""
        generation = self.generation(objective, who)
        name, part = generation.views.name, generation.views.objective
        given = {modality: value for modality, value in inputs.items() if value is not None}
        for modality in given:
            if modality not in part.reads:
                raise UserError(unknown(f"{who}() was given", modality, part.reads, f"inputs that {name!r} reads"))
        if part.reads and not given and not part.alone:
            raise UserError(
                f"{who}() needs {' or '.join(f'{one}=...' for one in part.reads)}: {name!r} writes of nothing else"
            )
        listed: dict[str, tuple[list[Any], bool]] = {}
        for modality, value in given.items():
            some, alone = self._inputs.listed(modality, value)
            listed[modality] = list(some), alone
        single = isinstance(prompt, str) or is_conversation(prompt)
        prompts = [prompt] if single else list(prompt) if isinstance(prompt, Sequence) else None
        if prompts is None:
            raise UserError(f"{who}({prompt!r:.60}): a prompt is a text, or a list of texts")
        several = {one: len(some) for one, (some, alone) in listed.items() if not alone}
        several |= {} if single else {"prompt": len(prompts)}
        if len(set(several.values())) > 1:
            told = ", ".join(f"{count} of {one}" for one, count in several.items())
            raise UserError(f"{who}() was given {told}: give as many of each, or a single one for all")
        count = next(iter(several.values()), 1)
        if not count:
            raise UserError(f"{who}() was given no example: the lists are empty")

        def item(place: int) -> Beginning:
            example = {one: some[place if one in several else 0] for one, (some, _) in listed.items()}
            row = generation.views.row(example, place if several else None)
            return Beginning(prompts[place if "prompt" in several else 0], row, place)

        return generation, map(item, range(count)), not several

    @cached_property
    def _generations(self) -> dict[str, Generation]:
        return {}
