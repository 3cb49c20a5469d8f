"""Show and Tell, and with attention: an LSTM writes what a picture shows (Vinyals et al. 2014, arXiv:1411.4555; Xu et
al. 2015, arXiv:1502.03044).

    mmjax train experiments/show_and_tell.py:show_and_tell --workdir /mnt/bucket/nic    # the released recipe
    mmjax train experiments/show_and_tell.py:attention --workdir /mnt/bucket/attend     # soft attention at each word
    mmjax train experiments/show_and_tell.py:tiny --workdir runs/show_and_tell_tiny     # minutes on a CPU, demo data

Recipes are those of the released code, which looks through Inception-v3 and VGG-19. Here CLIP's ResNet-50 stands for
both, locked as they are at first: its mean token for Inception's pooled one, and its 196 tokens of pictures of 448
pixels for VGG's 196. Batches aren't grouped by length, and how long to train is ours: one code has it on its command
line, and the other stops by BLEU.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, RandomResizedCrop, Resize, SentencePiece, Tfds, Tokenize
from mmjax.evaluate import Captions, Losses
from mmjax.experiment import Experiment, Load, experiment
from mmjax.models import LinearProjector, RecurrentDecoder, ResNet
from mmjax.objectives import Caption
from mmjax.optim import AdamW, Sgd

CAPTIONS = 586_363  # of an epoch of COCO
HALVINGS = tuple(8 * epochs * CAPTIONS // 32 for epochs in range(1, 7))  # every 8 epochs
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LOCKED = (r"^towers_image/",)


@experiment
def coco(size: int, crop: Any, decoder: Any, objective: Any, optimizer: Any, batch_size: int, steps: int) -> Experiment:
    """Captions of COCO, cut into words, by a decoder that reads a locked tower."""
    words = Tokenize(SentencePiece(decoder.vocab, name="coco_pairs", model_type="word"), decoder.length, bos=True)
    return Experiment(
        towers={"image": ResNet(layers=(3, 4, 6, 3), size=size, embed_dim=1_024, mean=MEAN, std=STD)},
        objectives={"caption": objective},
        data=Mixture(
            {"coco_pairs": 1.0},
            transforms={"image": (Decode(upright=False), crop), "text": (PickCaption(), Lowercase(), words)},
            sources={"coco_pairs": Tfds("coco_pairs", fields={"text": "caption"})},
            workers=16,
        ),
        optimizer=optimizer,
        batch_size=batch_size,
        steps=steps,
        init={"towers.image": Load("hf:timm/resnet50_clip.openai")},
    )


@experiment
def show_and_tell() -> Experiment:
    """The picture is read once, before the first word. TensorFlow's LSTM has a forget bias of 1."""
    decoder = RecurrentDecoder(
        vocab=12_000,
        length=40,
        width=512,
        embed_width=512,
        prefix={"image": LinearProjector()},
        input_dropout=0.3,
        dropout=0.3,
        forget_bias=1.0,
    )
    halved = Sgd(peak_lr=2.0, schedule="steps", drops=HALVINGS, clip_norm=5.0, frozen=LOCKED)
    crop, steps = RandomResizedCrop(224, area=(0.7, 1.0)), 56 * CAPTIONS // 32
    return coco(224, crop, decoder, Caption(decoder, reads=("image",)), halved, 32, steps)


@experiment
def attention() -> Experiment:
    """The picture is looked at for each word, and all of it once in the end, as far as the penalty has it."""
    decoder = RecurrentDecoder(
        vocab=10_000,
        length=40,
        width=1_800,
        embed_width=512,
        context={"image": None},
        start_layers=2,
        dropout=0.5,
    )
    objective = Caption(decoder, reads=("image",), mean="sums", attention_penalty=1.0)
    adam = AdamW(peak_lr=2e-4, schedule="constant", b2=0.999, clip_norm=None, frozen=LOCKED)
    return coco(448, Resize(448), decoder, objective, adam, 64, 20 * CAPTIONS // 64)


@experiment
def small(size: int, prefix: Any, context: Any, penalty: float) -> Experiment:
    """Descriptions of the demo data's pictures, two to four sentences, and a tower that isn't locked."""
    vocab, length = 128, 64
    decoder = RecurrentDecoder(
        vocab=vocab, length=length, width=128, embed_width=128, prefix=prefix, context=context, attention_width=64
    )
    words = Tokenize(SentencePiece(vocab, name="described_emoji"), length, bos=True)
    blind = Losses(split="test", batches=4, name="blind", without=("image",), when="end")
    return Experiment(
        towers={"image": ResNet(layers=(1, 1, 1, 1), width=16, size=size, embed_dim=128)},
        objectives={"caption": Caption(decoder, reads=("image",), alone=True, attention_penalty=penalty)},
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"text": "captions", "captions": "captions"})},
            transforms={"image": (Decode(), Resize(size)), "text": (PickCaption(), Lowercase(), words)},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.1),
        batch_size=64,
        steps=600,
        evaluators=[Losses(split="test", batches=4, when="end"), blind, Captions("caption", split="test", when="end")],
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    """Show and Tell on the demo data."""
    return small(96, {"image": LinearProjector()}, {}, penalty=0.0)


@experiment
def tiny_attention() -> Experiment:
    """The same with attention to the nine tokens of a picture."""
    return small(96, {}, {"image": None}, penalty=0.1)
