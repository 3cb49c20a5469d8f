"""CAV-MAE: sounds and frames that rebuild each other, and find each other (Gong et al. 2022, arXiv:2210.07839).

    mmjax train experiments/cav_mae.py:base --workdir /mnt/bucket/cav_mae               # batch 48, 25 epochs
    mmjax train experiments/cav_mae.py:scale_plus_plus --workdir /mnt/bucket/cav_mae    # batch 256, the best one
    mmjax train experiments/cav_mae.py:tiny --workdir runs/cav_mae_tiny                 # minutes on a CPU, demo data

A quarter of the patches of a sound and of a frame is read, by eleven layers of its own and then by one for both, which
goes over both together, and over each alone by norms of its own. A decoder rebuilds both from what came of both; the
means of what came of each are contrasted: for a frame its sound is found. AudioSet isn't downloadable: `audioset` is a
folder of videos of ten seconds, of each of which a frame is drawn.
The released code has three sets of norms in every block, of which most read one: it counts 163,956,480 parameters of
the encoder and 190,129,920 of all, 135,168 and 32,768 of them unread. It has one mask token for both, contrasts within
a device, starts from an MAE of pictures, adds noise to spectrograms and rolls them, and has an L2 of 5e-7 in Adam. All
its joint layers are given the same tokens, which shows with more than one alone.
"""

from typing import Any

from mmjax.data import (
    CenterCrop,
    CopyInput,
    CropOrPad,
    CutWindow,
    Decode,
    DecodeAudio,
    DecodeFrame,
    Mixture,
    PickUtterance,
    RandomResizedCrop,
    ResizeShorter,
    VideoFolder,
)
from mmjax.evaluate import Losses, Retrieval
from mmjax.experiment import Experiment, experiment
from mmjax.models import AudioTransformer, Blocks, JointDecoder, KaldiFbank, MultiwayTrunk, ThroughTrunk, ViT
from mmjax.objectives import Contrastive, Keep, MaskedPatchesTogether
from mmjax.optim import AdamW

CLIPS, EPOCHS, DROPS = 2_000_000, 25, (10, 15, 20)  # about two million; the rate is halved after so many epochs
SAMPLES = 164_080  # 1,024 frames of 25 ms, 10 ms apart, at 16 kHz: longer than a clip, and the rest is heard as silence
SPOKEN = 54_400  # 3.4 s: the longest of 95 % of the demo's utterances
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALIKE: dict[str, Any] = {"norm_eps": 1e-5, "remat": "dots"}
BIG: dict[str, Any] = {"width": 768, "heads": 12, "dtype": "bfloat16", **ALIKE}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, **ALIKE}
FIXED: dict[str, Any] = {"schedule": "steps", "frozen": (r"/log_scale$",)}  # a temperature of 0.05


@experiment
def parts(early: Blocks, joint: Blocks, sound: Any, picture: Any) -> dict[str, Any]:
    """Towers and fusion. early: of each tower; joint: the last layer, of all three."""
    trunk = MultiwayTrunk(blocks=joint, ways=("audio", "image"), apart="norms", joint=1)
    shared: dict[str, Any] = {"trunk": trunk, "early": early, "positions": "sincos", "pooling": "mean"}
    audio = AudioTransformer(way="audio", patch=(16, 16), **sound, **shared)
    image = ViT(way="image", **picture, **shared)
    return {"towers": {"audio": audio, "image": image}, "fusions": {"together": ThroughTrunk(trunk=trunk)}}


@experiment
def objectives(decoder: Blocks) -> dict[str, Any]:
    """Both read the same patches."""
    seen = {"audio": Keep(0.25), "image": Keep(0.25)}
    rebuilt = MaskedPatchesTogether("together", ("audio", "image"), seen, JointDecoder(blocks=decoder))
    found = Contrastive(("image", "audio"), masking=seen, scale_init=20.0, direction="forward")
    return {"contrast": found, "masked": rebuilt}


@experiment
def published(batch: int, lr: float) -> Experiment:
    heard = KaldiFbank(mels=128, shape="hann", mean=-5.081, std=4.4849)
    sound = {"spectrogram": heard, "samples": SAMPLES, "attend_padding": True}
    picture = {"patch": 16, "size": 224, "mean": MEAN, "std": STD}
    epoch = CLIPS // batch
    drops = (DROPS[0] * epoch, DROPS[1] * epoch, DROPS[2] * epoch)
    return Experiment(
        **parts(Blocks(depth=11, **BIG), Blocks(depth=1, **BIG), sound, picture),
        objectives=objectives(Blocks(width=512, depth=8, heads=16, dtype="bfloat16", **ALIKE)),
        weights={"contrast": 0.01},
        data=Mixture(
            {"audioset": 1.0},
            sources={"audioset": VideoFolder("audioset", shares={"train": 1.0})},
            record_transforms=(CutWindow(10.0), CopyInput("video", "image")),
            transforms={
                "audio": (DecodeAudio(), CropOrPad(SAMPLES)),
                "image": (DecodeFrame(short_side=224), ResizeShorter(224), CenterCrop(224)),
            },
            workers=32,
        ),
        optimizer=AdamW(peak_lr=lr, drops=drops, b1=0.95, b2=0.999, clip_norm=None, **FIXED),
        batch_size=batch,
        steps=EPOCHS * epoch,
    )


@experiment
def base() -> Experiment:
    """189,962,497 parameters, 163,821,312 of them the encoder's; one is the fixed scale."""
    return published(48, 5e-5)


@experiment
def scale_plus_plus() -> Experiment:
    return published(256, 2e-4)


@experiment
def tiny() -> Experiment:
    """Emoji and their spoken names; padding isn't heard, and contrast weighs a hundred times as much."""
    sound = {"spectrogram": KaldiFbank(mean=-6.05, std=4.49), "samples": SPOKEN}  # measured on the training split
    return Experiment(
        **parts(Blocks(depth=3, **SMALL), Blocks(depth=1, **SMALL), sound, {"patch": 8, "size": 64}),
        objectives=objectives(Blocks(width=64, depth=2, heads=4, **ALIKE)),
        weights={"contrast": 1.0},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SPOKEN)),
                "image": (Decode(), RandomResizedCrop(64, area=(0.5, 1.0))),
            },
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05, b2=0.95, drops=(250, 325), **FIXED),
        batch_size=128,
        steps=400,
        evaluators=[Losses(batches=4), Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
