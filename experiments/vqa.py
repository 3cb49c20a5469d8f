"""Answers to questions about a picture: what was pretrained is tuned to choose among the answers that there are.

    mmjax train experiments/vqa.py:tiny --workdir runs/vqa_tiny                # minutes on a CPU, on the demo data
    mmjax train experiments/vqa.py:tiny_from_albef --workdir runs/vqa_albef    # from `runs/albef_untaught`
    mmjax train experiments/vqa.py:tiny_spoken --workdir runs/vqa_spoken       # questions are heard instead of read

The demo data `asked_emoji` asks of pictures of one to four emoji. Neither a question nor a picture alone tells an
answer, and the emoji of its test pictures are in no training picture. Training draws such questions and pictures anew
(`AskedScenes`): the 1,440 pictures of a built dataset would be learned by heart. The test's speakers speak no
training question.
"""

from typing import Any

from mmjax.data import (
    ANSWERS,
    AskedScenes,
    CropOrPad,
    Decode,
    DecodeAudio,
    Label,
    Lowercase,
    Mixture,
    PickCaption,
    PickUtterance,
    RandomAffine,
    Renamed,
    Resize,
    SentencePiece,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Accuracy
from mmjax.experiment import Experiment, Load, experiment
from mmjax.models import AudioTransformer, Blocks, Cross, LogMel, TextTransformer, ViT
from mmjax.objectives import Classify
from mmjax.optim import AdamW

VOCAB, LENGTH, SIDE, WIDTH = 1_024, 28, 96, 128
SAMPLES = 48_000  # three seconds, the longest question
SMALL: dict[str, Any] = {"width": WIDTH, "heads": 4, "remat": "dots"}


@experiment
def answering(asked: str, tower: Any, chain: Any, speech: bool, init: Any, peak_lr: float) -> Experiment:
    """The question's tokens read the picture's, and the first of them tells the answer. asked: the question's name."""
    picture = ViT(patch=12, size=SIDE, cls=True, pooling="cls", blocks=Blocks(depth=3, **SMALL), embed_dim=WIDTH)
    return Experiment(
        towers={"image": picture, asked: tower},
        fusions={"reading": Cross(reader=asked, blocks=Blocks(depth=2, **SMALL))},
        objectives={"answer": Classify("answer", len(ANSWERS), ("image", asked), fusion="reading", hidden=2 * WIDTH)},
        data=Mixture(
            {"asked_emoji": 1.0},
            sources={"asked_emoji": Renamed(AskedScenes(Tfds("asked_emoji"), speech=speech), {"text": "question"})},
            transforms={
                "image": (Decode(), Resize(SIDE), RandomAffine(translate=0.03, scale=(0.95, 1.05))),
                asked: chain,
                "answer": (Label(ANSWERS),),
            },
        ),
        optimizer=AdamW(peak_lr=peak_lr, warmup_steps=50, weight_decay=0.05),
        batch_size=128,
        steps=1_200,
        evaluators=[Accuracy("answer"), Accuracy("answer", split="test", without_each=True, by="kind", when="end")],
        evaluate_every=200,
        save_every=200,
        init=init,
    )


@experiment
def written(init: Any, peak_lr: float, pieces: SentencePiece) -> Experiment:
    tower = TextTransformer(vocab=VOCAB, length=LENGTH, pooling="cls", blocks=Blocks(depth=2, **SMALL), embed_dim=WIDTH)
    chain = (PickCaption(), Lowercase(), Tokenize(pieces, LENGTH, bos=True))
    return answering("text", tower, chain, False, init, peak_lr)


@experiment
def tiny() -> Experiment:
    return written(init={}, peak_lr=1e-3, pieces=SentencePiece(VOCAB, name="questions", max_captions=20_000))


@experiment
def tiny_from_albef() -> Experiment:
    """From `albef.py:tiny_untaught`: both towers, the fusion, and the tokenizer, whose ids the text tower knows."""
    parts = ("towers.image", "towers.text", "fusions.reading")
    pieces = SentencePiece(VOCAB, path="")  # that of the text's tower
    return written(init={part: Load("runs/albef_untaught") for part in parts}, peak_lr=5e-4, pieces=pieces)


@experiment
def tiny_spoken() -> Experiment:
    tower = AudioTransformer(
        spectrogram=LogMel(hop=250, mean=-4.0, std=4.75),
        samples=SAMPLES,
        patch=(6, 64),
        cls=True,
        pooling="cls",
        blocks=Blocks(depth=2, **SMALL),
        embed_dim=WIDTH,
    )
    chain = (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES))
    return answering("audio", tower, chain, True, init={}, peak_lr=1e-3)
