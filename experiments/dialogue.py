"""Dialogue about pictures, and by voice: answers turn by turn, of which later ones need what was said before.

    mmjax train experiments/dialogue.py:base --workdir /mnt/bucket/dialogue    # on dialogues of one's own
    mmjax train experiments/dialogue.py:tiny --workdir runs/dialogue_tiny      # minutes on a CPU, demo data
    mmjax train experiments/dialogue.py:tiny_without_history --workdir runs/dialogue_without

This project's own. A decoder reads all turns in one row, with the picture and what was asked by voice, and learns all
answers at once (as LLaVA does: Liu et al. 2023, arXiv:2304.08485). Those that need no earlier turn are learnt half of
the time, so that those weigh more which do. The other arm hears each question alone, drawn one by one, and no sound of
another; of the answers that need an earlier turn it can know less than half.

`dialogues/dialogues.parquet` has the columns `messages` (Hugging Face's chat format, with a part {"type": "audio"}
where a question is spoken), `image` and `audio`.
"""

from typing import Any

from mmjax.data import (
    CropOrPad,
    Decode,
    DecodeAudio,
    DrawExchange,
    Folder,
    Lowercase,
    Mixture,
    PickUtterance,
    PredictAnswers,
    RandomResizedCrop,
    ReadConversation,
    Renamed,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    TokenizeConversation,
)
from mmjax.evaluate import Dialogues, Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import AudioTransformer, Blocks, DecoderBlocks, LinearProjector, LogMel, ResNet, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

READS = ("image", "audio")
LARGE: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, "remat": "full", "dtype": "bfloat16"}
LIKE_GPT: Any = {"inits": "gpt2", "activation": "gelu_tanh"}
PATCHES, CELLS = 14 * 14, 4 * 4  # tokens of a picture
VOCAB, LENGTH, SAMPLES = 64, 64, 48_000  # words, and those of five exchanges; three seconds


@experiment
def speaker(vocab: int, length: int, blocks: DecoderBlocks) -> dict[str, Any]:
    """GPT-2's decoder, with the picture's tokens before the words, whose every layer attends to those of the sound."""
    read: Any = {"prefix": {"image": LinearProjector()}, "context": {"audio": LinearProjector()}, "cross": "within"}
    decoder = TextDecoder(vocab=vocab, length=length, blocks=blocks, **read)
    return {"answers": Caption(decoder, reads=READS, alone=True)}


@experiment
def base() -> Experiment:
    """ViT-B/16, an audio tower as wide, and GPT-2's small size."""
    sound = AudioTransformer(
        spectrogram=LogMel(), samples=160_000, patch=(16, 16), pooling="mean", blocks=Blocks(**LARGE)
    )
    return Experiment(
        towers={"image": ViT(patch=16, size=224, pooling="mean", blocks=Blocks(**LARGE)), "audio": sound},
        objectives=speaker(50_257, 1_024, DecoderBlocks(**LIKE_GPT, **LARGE)),
        data=Mixture(
            {"dialogues": 1.0},
            {
                "image": (Decode(), RandomResizedCrop(224, area=(0.5, 1.0))),
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(160_000)),
                "text": (TokenizeConversation(Subwords(50_257, "gpt2", end="<|endoftext|>"), 1_025 - PATCHES),),
            },
            {"dialogues": Folder("dialogues/dialogues.parquet")},
            record_transforms=(ReadConversation(entries=READS, root="dialogues"), PredictAnswers()),
            workers=16,
        ),
        optimizer=AdamW(peak_lr=3e-4, warmup_steps=2_000, weight_decay=0.1, b2=0.95),
        batch_size=512,
        steps=100_000,
        mesh=Mesh(fsdp=8),
        evaluators=[Dialogues("answers")],
        evaluate_every=5_000,
    )


@experiment
def small(heard: Any, length: int, history: int | None, steps: int) -> Experiment:
    """Pictures of two tiles; in one of four dialogues a question may be spoken."""
    own: dict[str, Any] = {"width": 128, "heads": 4}
    cut = TokenizeConversation(SentencePiece(VOCAB, name="described_dialogues", model_type="word"), length)
    judged: dict[str, Any] = {"objective": "answers", "needs": "needs_history", "history": history, "most": 4}
    sound = AudioTransformer(
        spectrogram=LogMel(hop=250, mean=-4.0, std=4.75),
        samples=SAMPLES,
        patch=(6, 64),
        pooling="mean",
        blocks=Blocks(**own, depth=2),
    )
    return Experiment(
        towers={"image": ResNet(layers=(1, 1, 1, 1), width=16, size=128, embed_dim=128), "audio": sound},
        objectives=speaker(VOCAB, CELLS + LENGTH, DecoderBlocks(**LIKE_GPT, **own, depth=4)),
        data=Mixture(
            {"written": 0.75, "spoken": 0.25},
            {
                "image": (Decode(), Resize(128)),
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES)),
                "text": (Lowercase(), cut),
            },
            {
                "written": Renamed(Tfds("described_emoji"), {"speech": "audio"}),  # nothing is heard
                "spoken": Tfds("described_emoji", fields={"messages": "spoken_messages", "audio": "speech"}),
            },
            record_transforms=(ReadConversation(entries=READS), heard),
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.1, b2=0.95),
        batch_size=32,
        steps=steps,
        evaluators=[Losses(batches=4), Dialogues(split="test", when="end", **judged)],
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    return small(PredictAnswers(needs="needs_history"), LENGTH, None, steps=1_000)


@experiment
def tiny_without_history() -> Experiment:
    return small(DrawExchange(needs="needs_history", hard=2.0), 20, 0, steps=1_000)
