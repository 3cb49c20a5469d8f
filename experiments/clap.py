"""CLAP: contrastive language-audio pretraining (Elizalde et al. 2022, arXiv:2206.04769; Wu et al. 2022,
arXiv:2211.06687).

    mmjax train experiments/clap.py:ast_b --workdir /mnt/bucket/clap        # on captioned sounds of one's own
    mmjax train experiments/clap.py:tiny --workdir runs/clap_tiny           # minutes on a CPU, on the demo data
    mmjax train experiments/clap.py:tiny_stamps --workdir runs/clap_stamps  # people speak, in many languages

The papers' sound towers (a CNN, and a Swin transformer) are not here. An audio spectrogram transformer (Gong et al.
2021, arXiv:2104.01778) of the usual width stands in for them, and BERT reads the captions; both may start from
checkpoints of Hugging Face. AudioCaps, Clotho and their kin can't be had as a whole: `captioned_sounds/clips.csv` is a
table with columns `audio` and `text`.
"""

from mmjax.data import (
    CropOrPad,
    DecodeAudio,
    Folder,
    Lowercase,
    Mixture,
    PickCaption,
    PickUtterance,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import AudioTransformer, Blocks, KaldiFbank, LogMel, TextTransformer
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

SAMPLES = 163_920  # 1,024 frames at 16 kHz, 10 s


@experiment
def ast_b() -> Experiment:
    """195.9 million parameters."""
    shape = {"width": 768, "depth": 12, "heads": 12, "norm_eps": 1e-12, "dtype": "bfloat16", "remat": "dots"}
    bert = {"pre_norm": True, "types": 2, "pooling": "cls"}
    return Experiment(
        towers={
            "audio": AudioTransformer(
                spectrogram=KaldiFbank(mean=-4.2677393, std=2 * 4.5689974),
                samples=SAMPLES,
                patch=(16, 16),
                stride=(10, 10),
                attend_padding=True,
                cls=True,
                distill=True,
                pooling="pair",
                embed_dim=512,
                blocks=Blocks(**shape),
            ),
            "text": TextTransformer(
                vocab=30_522, length=512, embed_dim=512, blocks=Blocks(norm="post", **shape), **bert
            ),
        },
        objectives={"contrastive": Contrastive(("audio", "text"))},
        data=Mixture(
            {"captioned_sounds": 1.0},
            sources={"captioned_sounds": Folder("captioned_sounds/clips.csv")},
            transforms={
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES)),
                "text": (PickCaption(), Lowercase(), Tokenize(Subwords(30_522), 77, bos=True)),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-4, warmup_steps=3_200, weight_decay=0.0, b2=0.99),
        batch_size=2_304,
        steps=50_000,
        mesh=Mesh(fsdp=8),
        init={
            "towers.audio": Load("hf:MIT/ast-finetuned-audioset-10-10-0.4593", skip=("^projection/",)),
            "towers.text": Load("hf:google-bert/bert-base-uncased", skip=("^projection/",)),
        },
    )


@experiment
def blocks() -> Blocks:
    return Blocks(width=128, depth=4, heads=4, remat="dots")


@experiment
def small(source: Tfds, name: str, steps: int) -> Experiment:
    """Speech and what is said, both small and from nothing."""
    embedding = {"pooling": "mean", "embed_dim": 128}
    log_mel = LogMel(hop=250, mean=-4.0, std=4.75)
    return Experiment(
        towers={
            "audio": AudioTransformer(spectrogram=log_mel, samples=54_400, patch=(6, 64), blocks=blocks(), **embedding),
            "text": TextTransformer(vocab=512, length=22, blocks=blocks(), **embedding),
        },
        objectives={"contrastive": Contrastive(("audio", "text"))},
        data=Mixture(
            {name: 1.0},
            sources={name: source},
            transforms={
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(54_400)),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(512, name=name), 22)),
            },
            cache=True,
        ),
        optimizer=AdamW(peak_lr=2e-3, warmup_steps=40, weight_decay=0.05, scale={"log_scale$": 5.0}),
        batch_size=256,
        steps=steps,
        evaluators=[Retrieval(same="text"), Retrieval(split="test", when="end", same="text")],
        evaluate_every=100,
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    return small(Tfds("spoken_emoji"), "spoken_emoji", steps=300)


@experiment
def tiny_stamps() -> Experiment:
    """Spanish captions and speech; for another language `data.sources.stamps.name=stamps/fr`."""
    return small(Tfds("stamps/es"), "stamps", steps=200)
