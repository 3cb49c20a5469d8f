"""What a model answers in a split's conversations is what whole passes of its decoder give, question by question."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.data import Decode, Folder, Mixture, ReadConversation, Resize, SentencePiece, TokenizeConversation
from mmjax.data.pipeline import prepare
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.evaluate import Dialogues
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.split_dialogues import SplitDialogues, conversation_or_none
from mmjax.evaluate.split_predictions import SplitPredictor
from mmjax.experiment import Experiment
from mmjax.interop.bundle import variables_of
from mmjax.models import Blocks, DecoderBlocks, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW
from mmjax.runtime.mesh import Mesh

SIDE, VOCAB, LENGTH, MOST = 8, 40, 40, 3
SHOWN = {"type": "image"}
TALKS: list[Any] = [
    [([SHOWN, "what is it"], "a red dog"), (["and it"], "two"), ([SHOWN, "and the other"], "a blue cat")],
    [(["who"], "two cats"), ([SHOWN, SHOWN, "where"], "to the left")],
    "no conversation",
    [([SHOWN, "what"], "a cat")],
]


def messages(talk: Any) -> str:
    if isinstance(talk, str):
        return talk
    turns: list[dict[str, Any]] = []
    for asked, answer in talk:
        parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in asked]
        turns += [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return json.dumps(turns)


class Made:
    """A model of random weights that reads two pictures, and a split of conversations."""

    def __init__(self, folder: Path):
        random = np.random.default_rng(3)
        lines = [["image", "image_2", "split", "messages"]]
        self.pictures: list[Any] = []
        for row, talk in enumerate(TALKS):
            count = json.dumps(talk).count('"image"')
            self.pictures.append(random.integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8))
            names = [f"{row}{place}.png" for place in range(count)]
            for name, pixels in zip(names, self.pictures[row], strict=True):
                Image.fromarray(pixels).save(folder / name)
            lines.append([*names, *[""] * (2 - count), "test", messages(talk)])
        with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
        talks = [turn for talk in TALKS if not isinstance(talk, str) for turn in talk]
        said = [text for asked, answer in talks for text in (*asked, answer) if isinstance(text, str)]
        tokenizer = PieceTokenizer(SentencePiece(VOCAB, model_type="word").train(said * 9))
        size: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2}
        cut = TokenizeConversation(SentencePiece(VOCAB, model_type="word"), LENGTH)
        pictures = (Decode(), Resize(SIDE))
        experiment = Experiment(
            towers={
                name: ViT(patch=4, size=SIDE, pooling="mean", blocks=Blocks(**size)) for name in ("image", "image_2")
            },
            objectives={
                "answers": Caption(
                    TextDecoder(
                        vocab=VOCAB,
                        length=LENGTH,
                        blocks=DecoderBlocks(**size),
                        cross="within",
                        context={"image": None, "image_2": None},
                    ),
                    reads=("image", "image_2"),
                    alone=True,
                )
            },
            data=Mixture(
                {"own": 1.0},
                {"image": pictures, "image_2": pictures, "text": (cut,)},
                {"own": Folder(str(folder / "table.csv"), files=("image_2",))},
                record_transforms=(ReadConversation(entries=("image", "image_2")),),
            ),
            optimizer=AdamW(peak_lr=1e-3),
            batch_size=2,
            steps=1,
        )
        self.pretrainer = experiment.pretrainer()
        self.variables = {
            **jax.tree.map(
                lambda x: np.float32((0.6 if len(x.shape) > 1 else 0.1) * random.normal(size=x.shape)),
                variables_of(experiment),
            )
        }
        self.tokenizer = tokenizer
        self.data = prepare(experiment.data, tokenizers={"text": tokenizer})
        self.cut: Any = self.data.chains.transforms["text"][0]
        self.told = [conversation_or_none(messages(talk)) for talk in TALKS]
        self.mesh = Mesh().build(jax.devices()[:1])
        decoder: Any = experiment.objectives["answers"].decoder
        own = {"params": jax.tree.map(jnp.asarray, self.variables["params"]["objectives_answers"]["decoder"])}

        def whole(ids: Any, mask: Any, views: Any) -> Any:
            return decoder.apply(own, decoder.apply(own, ids, mask, views), method="logits")

        self.whole = jax.jit(whole)
        self.encoded = jax.jit(
            lambda batch: self.pretrainer.apply(self.variables, batch, "answers", method="views_to_write")
        )

    def logits(self, row: int, turn: int, more: list[int]) -> np.ndarray:
        """Of what follows the question, and each of these words, by whole passes without a cache."""
        talk = json.loads(messages(TALKS[row]))[: 2 * turn + 1]
        begun, _, _ = self.cut.prompt(talk)
        seen = json.dumps(talk).count('"image"')
        batch: dict[str, Any] = {"index": jnp.zeros(1, jnp.uint32)}
        for place, name in enumerate(("image", "image_2")):
            there = place < seen
            pixels = self.pictures[row][place] if there else np.zeros((SIDE, SIDE, 3), np.uint8)
            batch |= {name: jnp.asarray(pixels[None]), f"{name}_valid": jnp.asarray([there])}
        ids = np.zeros((1, LENGTH), np.int32)
        ids[0, : len(begun) + len(more)] = [*begun, *more]
        mask = np.arange(LENGTH)[None] < len(begun) + len(more)
        found = np.asarray(self.whole(ids, mask, self.encoded(batch)))[0]
        return found[len(begun) - 1 : len(begun) + len(more)]

    def written(self, row: int, turn: int) -> str:
        """The likeliest words."""
        ids: list[int] = []
        while len(ids) < MOST and self.tokenizer.eos not in ids:
            ids.append(int(self.logits(row, turn, ids)[-1][: self.tokenizer.vocab_size].argmax()))
        return self.tokenizer.decode([id for id in ids if id != self.tokenizer.eos]).strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Made:
    return Made(tmp_path_factory.mktemp("talks"))


def test_each_question_is_answered_behind_the_true_turns_before_it(made: Made) -> None:
    with jax.set_mesh(made.mesh):
        writing = SplitDialogues(made.pretrainer, made.data, made.mesh, 2)
        found = writing.answers(made.variables, "test", "answers", made.told, MOST)
        options = {(0, 3): ["a red dog", "two"], (1, 1): ["two cats", "to", "a"]}
        scores = writing.answer_scores(made.variables, "test", "answers", made.told, options)
    places = [(row, turn) for row, talk in enumerate(TALKS) if not isinstance(talk, str) for turn in range(len(talk))]
    assert [(each.row, each.number - 1) for each in found] == places
    for each in found:
        assert each.wanted == TALKS[each.row][each.number - 1][1]
        assert each.asked == TALKS[each.row][each.number - 1][0][-1]
        assert each.written == made.written(each.row, each.number - 1)
    assert len({each.written for each in found}) > 2
    assert scores.keys() == options.keys()
    for (row, number), some in options.items():
        for text, score in zip(some, scores[row, number], strict=True):
            ids = made.cut.answer(text)
            whole = jax.nn.log_softmax(made.logits(row, number - 1, ids)[:-1])
            assert score == pytest.approx(sum(float(whole[i, id]) for i, id in enumerate(ids)), abs=1e-4)


def test_the_evaluator_asks_the_model_once_and_the_page_shows_what_it_wrote(made: Made) -> None:
    with jax.set_mesh(made.mesh):
        predictor: Any = SplitPredictor(made.pretrainer, made.data, made.mesh, 2)
        embedded = Embedded({}, {}, split="test", predictions=predictor.on(made.variables, "test"))
        judge = Dialogues("answers", most=MOST, split="test")
        values = judge(embedded, lambda texts: np.zeros(0))
        predictor.writing = None  # what was written is known
        samples = judge.samples(embedded)
        with pytest.raises(UserError, match="embeddings alone answer nothing"):
            judge(Embedded({}, {}), lambda texts: np.zeros(0))
    assert values["dialogues/answers/examples"] == 6.0
    assert [sample.row for sample in samples] == [0, 1, 3]
    assert [line.text for line in samples[0].lines if line.said == "asked"] == ["what is it", "and it", "and the other"]
