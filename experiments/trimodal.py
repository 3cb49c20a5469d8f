"""Trimodal: images, texts and sounds in one space, all pairs contrasted, each modality rebuilt from a part.

    mmjax train experiments/trimodal.py:base --workdir /mnt/bucket/trimodal      # on clips of one's own
    mmjax train experiments/trimodal.py:tiny --workdir runs/trimodal_tiny        # minutes on a CPU, on the demo data
    mmjax train experiments/trimodal.py:tiny_pair --workdir runs/trimodal_pair   # without sounds, to compare
    mmjax train experiments/trimodal.py:tiny_stamps --workdir runs/trimodal_stamps

This project's own. Contrastive losses as CLIP's (arXiv:2103.00020) from a part of the patches, as FLIP's
(arXiv:2212.00794), whose encodings the masked objectives share (MAE, arXiv:2111.06377; AudioMAE, arXiv:2207.06405;
BERT, arXiv:1810.04805). An example may lack any modality. `clips/clips.csv` has the columns `image`, `text`, `audio`.
"""

from typing import Any

from mmjax.data import (
    CropOrPad,
    Decode,
    DecodeAudio,
    Folder,
    Lowercase,
    Mixture,
    PickCaption,
    PickUtterance,
    RandomResizedCrop,
    SentencePiece,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import AudioTransformer, Blocks, Decoder, LogMel, TextTransformer, ViT
from mmjax.objectives import Contrastive, Keep, MaskedAudio, MaskedImage, MaskedText
from mmjax.optim import AdamW

KINDS = ("image", "text", "audio")
WEIGHTS = {"masked_image": 0.1, "masked_audio": 0.1, "masked_text": 0.1}
BASE: dict[str, Any] = {"width": 768, "heads": 12, "remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "activation": "quick_gelu", "remat": "dots"}


@experiment
def towers(
    pixels: int, patch: int, vocab: int, length: int, samples: int, strip: Any, blocks: Any, depth: int, pooling: str
) -> dict[str, Any]:
    """`blocks`: what all three have; the text tower has half of the `depth`."""
    log_mel = LogMel(hop=250, mean=-4.0, std=4.75)
    embedding = {"pooling": pooling, "embed_dim": blocks["width"]}
    return {
        "image": ViT(patch=patch, size=pixels, blocks=Blocks(depth=depth, **blocks), **embedding),
        "text": TextTransformer(vocab=vocab, length=length, blocks=Blocks(depth=depth // 2, **blocks), **embedding),
        "audio": AudioTransformer(
            spectrogram=log_mel, samples=samples, patch=strip, blocks=Blocks(depth=depth, **blocks), **embedding
        ),
    }


@experiment
def objectives(vocab: int, **blocks: Any) -> Any:
    """`blocks`: of each decoder."""
    seen = {"image": Keep(0.5), "audio": Keep(0.5)}
    return {
        "image_text": Contrastive(("image", "text"), masking={"image": seen["image"]}),
        "text_audio": Contrastive(("text", "audio"), masking={"audio": seen["audio"]}),
        "image_audio": Contrastive(("image", "audio"), masking=seen),
        "masked_image": MaskedImage(decoder=Decoder(blocks=Blocks(**blocks)), keep=0.5),
        "masked_audio": MaskedAudio(decoder=Decoder(blocks=Blocks(**blocks)), keep=0.5),
        "masked_text": MaskedText(vocab=vocab),
    }


@experiment
def data(source: Any, name: str, kinds: Any, pixels: int, vocab: int, length: int, samples: int, **more: Any) -> Any:
    chains: dict[str, Any] = {
        "image": (Decode(), RandomResizedCrop(pixels, area=(0.5, 1.0))),
        "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(vocab, name=name), length)),
        "audio": (PickUtterance(), DecodeAudio(), CropOrPad(samples)),
    }
    return Mixture({name: 1.0}, {kind: chains[kind] for kind in kinds}, {name: source}, **more)


@experiment
def base() -> Experiment:
    return Experiment(
        towers=towers(224, 16, 32_000, 64, 160_000, (16, 16), BASE, depth=12, pooling="map"),
        objectives=objectives(32_000, width=512, depth=4, heads=16, remat="full", dtype="bfloat16"),
        weights=WEIGHTS,
        data=data(Folder("clips/clips.csv"), "clips", KINDS, 224, 32_000, 64, 160_000, workers=16),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=0.05, b2=0.95),
        batch_size=16_384,
        steps=300_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def small(source: Tfds, name: str, modalities: tuple[str, ...], steps: int) -> Experiment:
    parts = towers(64, 16, 512, 22, 54_400, (6, 64), SMALL, depth=4, pooling="mean")
    losses = objectives(512, width=64, depth=1, heads=2, remat="dots")
    kept = [n for n in losses if all(m in modalities for m in n.removeprefix("masked_").split("_"))]
    return Experiment(
        towers={modality: parts[modality] for modality in modalities},
        objectives={loss: losses[loss] for loss in kept},
        weights={loss: WEIGHTS[loss] for loss in kept if loss in WEIGHTS},
        data=data(source, name, modalities, 64, 512, 22, 54_400, cache=True),
        optimizer=AdamW(peak_lr=2e-3, warmup_steps=40, weight_decay=0.05, scale={"log_scale$": 5.0}),
        batch_size=256,
        steps=steps,
        evaluators=[Retrieval(same="text"), Retrieval(split="test", when="end", same="text")],
        evaluate_every=200,
        save_every=200,
    )


@experiment
def tiny() -> Experiment:
    return small(Tfds("spoken_emoji"), "spoken_emoji", KINDS, steps=400)


@experiment
def tiny_pair() -> Experiment:
    """Images and texts alone."""
    return small(Tfds("spoken_emoji"), "spoken_emoji", ("image", "text"), steps=400)


@experiment
def tiny_stamps() -> Experiment:
    """Spanish captions and speech; for another language `data.sources.stamps.name=stamps/fr`."""
    return small(Tfds("stamps/es"), "stamps", KINDS, steps=200)
