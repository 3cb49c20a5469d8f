"""Fusion: one classifier of picture, words and speech, by each way of bringing them together.

    mmjax train experiments/fusion.py:concatenated --workdir runs/concatenated     # minutes on a CPU, on the demo data
    mmjax train experiments/fusion.py:merged --workdir runs/merged                 # attention between the tokens

The classic multimodal classifier: a small convolutional network for pictures, another for spectrograms, an LSTM for
words. The task: to which of Unicode's nine groups an emoji belongs, of emoji that training never shows; in training an
input of an example is taken away at a rate of a tenth, so that each is of use alone. What differs between the functions
of this file is the fusion, and nothing else: concatenation and an MLP; gates (GMU: Arevalo et al. 2017,
arXiv:1702.01992); the tensor of all products (Zadeh et al. 2017, arXiv:1707.07250), and one of low rank (Liu et al.
2018, arXiv:1806.00064); decisions averaged or weighted; and attention between the tokens.
"""

from typing import Any

from mmjax.data import (
    CropOrPad,
    Decode,
    DecodeAudio,
    Label,
    Mixture,
    PickCaption,
    PickUtterance,
    Resize,
    SentencePiece,
    Tokenize,
)
from mmjax.evaluate import Accuracy
from mmjax.experiment import Experiment, experiment
from mmjax.models import (
    Blocks,
    Concatenated,
    Convolutional,
    ConvolutionalAudio,
    Gated,
    Late,
    LogMel,
    LowRank,
    Merged,
    Recurrent,
    TensorFusion,
)
from mmjax.objectives import Classify
from mmjax.optim import AdamW

INPUTS = ("image", "text", "audio")
GROUPS = (
    "activities", "animals-nature", "flags", "food-drink", "objects", "people-body", "smileys-emotion",
    "symbols", "travel-places",
)  # fmt: skip
PIXELS, WORDS, SAMPLES, VOCABULARY = 32, 18, 54_400, 512
WIDTH, DROPPED = 128, 0.1


@experiment
def towers() -> dict[str, Any]:
    sizes: dict[str, Any] = {"channels": (16, 32, 64), "groups": 8, "embed_dim": WIDTH}
    return {
        "image": Convolutional(**sizes),
        "text": Recurrent(vocab=VOCABULARY, length=WORDS, width=WIDTH, embed_dim=WIDTH),
        "audio": ConvolutionalAudio(spectrogram=LogMel(hop=500, mean=-4.0, std=4.75), samples=SAMPLES, **sizes),
    }


@experiment
def spoken_emoji() -> Mixture:
    return Mixture(
        {"spoken_emoji": 1.0},
        transforms={
            "image": (Decode(), Resize(PIXELS)),
            "text": (PickCaption(), Tokenize(SentencePiece(VOCABULARY, name="spoken_emoji"), WORDS)),
            "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES)),
            "group": (Label(GROUPS),),
        },
        cache=True,
    )


@experiment
def classifier(fusion: Any, decisions: bool = False) -> Experiment:
    return Experiment(
        towers=towers(),
        fusions={"fusion": fusion},
        objectives={"group": Classify("group", len(GROUPS), INPUTS, fusion="fusion", decisions=decisions)},
        data=spoken_emoji(),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.05),
        batch_size=128,
        steps=300,
        evaluators=[Accuracy("group"), Accuracy("group", split="test", without_each=True, when="end")],
        evaluate_every=100,
        save_every=100,
    )


@experiment
def concatenated() -> Experiment:
    return classifier(Concatenated(embed_dim=WIDTH, hidden=(WIDTH,), drop_inputs=DROPPED))


@experiment
def gated() -> Experiment:
    return classifier(Gated(embed_dim=WIDTH, drop_inputs=DROPPED))


@experiment
def tensor() -> Experiment:
    return classifier(TensorFusion(embed_dim=WIDTH, width=16, drop_inputs=DROPPED))


@experiment
def low_rank() -> Experiment:
    return classifier(LowRank(embed_dim=WIDTH, rank=4, drop_inputs=DROPPED))


@experiment
def late() -> Experiment:
    return classifier(Late(classes=len(GROUPS), rule="mean", drop_inputs=DROPPED), decisions=True)


@experiment
def late_learned() -> Experiment:
    return classifier(Late(classes=len(GROUPS), rule="learned", drop_inputs=DROPPED), decisions=True)


@experiment
def merged() -> Experiment:
    blocks = Blocks(width=WIDTH, depth=2, heads=4)
    return classifier(Merged(blocks=blocks, project=True, embed_dim=WIDTH, drop_inputs=DROPPED))
