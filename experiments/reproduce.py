"""Each `tiny` run to its end, and what the papers claim tried at that size: runs, verdicts, and experiments/results.md.

    python -m experiments.reproduce                    # all; a run that is done is not repeated
    python -m experiments.reproduce --only tinies      # each `tiny` once
    python -m experiments.reproduce --only mae.py:tiny # one of them
    python -m experiments.reproduce --only fusions     # each way of fusing, over the seeds
    python -m experiments.reproduce --only flip_as_good --seeds 0 1 2
    python -m experiments.reproduce --jobs 6           # runs beside each other, on one GPU too
    python -m experiments.reproduce --write            # experiments/results.md out of the record, no runs

Each claim compares two arms over paired seeds (data order and initial parameters are the seed's), in as many steps of
as many examples; `*_in_as_much_compute` in as much compute, where a step of one arm costs more, by the FLOPs of a
step, recomputation included. The effect is the mean of the differences, with a 95 % interval by Student's t. What a
claim says was written down here before its runs: it *holds* where the interval lies above its threshold, *fails* where
it lies below, and is *undecided* otherwise. A claim without a second arm compares with a number (chance), or with other
metrics of the same run. A claim of time has runs of its own, which nothing runs beside. What an arm reads besides its
data is made first, once: PREPARED.
"""

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.experiment.record import RECORD as RUN_RECORD
from mmjax.runtime.metrics import read
from tests.benchmarks.machine import machine

FOLDER = Path(__file__).parent
RECORD, RESULTS, CURVES = FOLDER / "records" / "claims.json", FOLDER / "results.md", FOLDER / "records" / "claims.png"
EFFECTS = FOLDER / "records" / "effects.png"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # Student's t, by number of pairs
GROUP = ("accuracy/group/top1",)
BOTH_WAYS = ("retrieval/image->text/R@1", "retrieval/text->image/R@1")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and what decides it.

    says: the sentence, at this scale.  arm, other: experiment and overrides; without `other` the metric is compared
    with `chance`, or with `times` the mean of the metrics `against` of the same run.  metric: names in the evaluation
    of `split` at the last step, whose mean is taken; `seconds` is the time of an example, negated, so that more is
    better.  threshold: of the difference (arm minus other): -0.05 says "no more than five points worse".
    """

    name: str
    paper: str
    says: str
    arm: tuple[str, ...]
    other: tuple[str, ...] | None
    metric: tuple[str, ...]
    split: str
    threshold: float
    chance: float | None = None
    against: tuple[str, ...] = ()
    times: float = 1.0


SMALL_BATCH = ("batch_size=64", "steps=400", "evaluate_every=0")
SHORT = ("batch_size=64", "steps=200", "evaluate_every=0")
LONGER = ("batch_size=64", "steps=1200", "evaluate_every=0")  # as many examples as the `tiny` itself sees
TWICE = ("steps=800", "evaluate_every=0")
FLIP = ("steps=200", "evaluate_every=0")
MATCHED = ("steps=500", "evaluate_every=0")
TIMED = ("steps=60", "evaluate_every=0")
HALF = ("steps=400", "evaluate_every=0")
FRAMES_AND_SPANS = ("losses/reserve/accuracy/imgs_to_audio", "losses/reserve/accuracy/stuff_to_span")
SECONDS = ("seconds",)
LATER = ("dialogues/answers/later_accuracy",)
CLAIMS = (
    Claim(
        "sigmoid_at_small_batches",
        "SigLIP (arXiv:2303.15343)",
        "At a batch of 64 the sigmoid loss is no worse than the softmax by more than one point of R@1.",
        ("siglip.py:tiny", *SMALL_BATCH),
        ("siglip.py:tiny", "objectives.contrastive.loss=softmax", *SMALL_BATCH),
        BOTH_WAYS,
        "validation",
        threshold=-0.01,
    ),
    Claim(
        "sigmoid_at_small_batches_longer",
        "SigLIP (arXiv:2303.15343)",
        "The same, which failed, once more after three times the steps: no worse by more than one point of R@1.",
        ("siglip.py:tiny", *LONGER),
        ("siglip.py:tiny", "objectives.contrastive.loss=softmax", *LONGER),
        BOTH_WAYS,
        "validation",
        threshold=-0.01,
    ),
    Claim(
        "flip_as_good",
        "FLIP (arXiv:2212.00794)",
        "From half of the patches, in as many steps, R@1 is no more than five points worse.",
        ("flip.py:tiny", *FLIP),
        ("flip.py:tiny_whole", *FLIP),
        BOTH_WAYS,
        "test",
        threshold=-0.05,
    ),
    Claim(
        "flip_in_as_much_compute",
        "FLIP (arXiv:2212.00794)",
        "From half of the patches R@1 is better in as much compute: 200 steps, and 116 with all patches.",
        ("flip.py:tiny", *FLIP),
        ("flip.py:tiny_whole", "steps=116", "evaluate_every=0"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "flip_faster",
        "FLIP (arXiv:2212.00794)",
        "From half of the patches a step takes less time.",
        ("flip.py:tiny", *TIMED),
        ("flip.py:tiny_whole", *TIMED),
        SECONDS,
        "train",
        threshold=0.0,
    ),
    Claim(
        "emergent_text_audio",
        "ImageBind (arXiv:2305.05665)",
        "Names and sounds that never met in training find each other: R@10 is more than five points above chance.",
        ("imagebind.py:tiny", "steps=250", "evaluate_every=0"),
        None,
        ("retrieval/text->audio/R@10", "retrieval/audio->text/R@10"),
        "test",
        threshold=0.05,
        chance=10 / 398,
    ),
    Claim(
        "m3ae_over_images_alone",
        "M3AE (arXiv:2205.14204)",
        "Pretrained together with names, the encoder's pictures are told apart better by a linear probe.",
        ("m3ae.py:tiny", "batch_size=64", "steps=400"),
        ("m3ae.py:tiny_image_only", "batch_size=64", "steps=400"),
        ("probe/group/top1",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "m3ae_in_as_much_compute",
        "M3AE (arXiv:2205.14204)",
        "The same, better in as much compute: 400 steps, and 520 of pictures alone.",
        ("m3ae.py:tiny", "batch_size=64", "steps=400"),
        ("m3ae.py:tiny_image_only", "batch_size=64", "steps=520"),
        ("probe/group/top1",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "m3ae_longer_in_as_much_compute",
        "M3AE (arXiv:2205.14204)",
        "The same, which failed, once more after twice the steps: better in as much compute.",
        ("m3ae.py:tiny", "batch_size=64", "steps=800"),
        ("m3ae.py:tiny_image_only", "batch_size=64", "steps=1040"),
        ("probe/group/top1",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "third_modality_helps",
        "trimodal (this project)",
        "Images and names find each other better where sounds are trained with them, in as many steps.",
        ("trimodal.py:tiny", "evaluate_every=0"),
        ("trimodal.py:tiny_pair", "evaluate_every=0"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "third_modality_helps_longer",
        "trimodal (this project)",
        "The same, which failed, once more after twice the steps: images and names find each other better.",
        ("trimodal.py:tiny", *TWICE),
        ("trimodal.py:tiny_pair", *TWICE),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "third_modality_longer_in_as_much_compute",
        "trimodal (this project)",
        "The same in as much compute: 800 steps with sounds, and 1,446 of images and names alone.",
        ("trimodal.py:tiny", *TWICE),
        ("trimodal.py:tiny_pair", "steps=1446", "evaluate_every=0"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "locked_is_better_at_few_steps",
        "LiT (arXiv:2111.07991)",
        "After a hundred steps texts find pictures better where the image tower is locked than where it trains too.",
        ("lit.py:tiny",),
        ("lit.py:tiny_unlocked",),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "locked_in_as_much_compute",
        "LiT (arXiv:2111.07991)",
        "The same in as much compute: 100 steps with the tower locked, and 49 where it trains.",
        ("lit.py:tiny",),
        ("lit.py:tiny_unlocked", "steps=49"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "masking_three_quarters",
        "MAE (arXiv:2111.06377)",
        "A probe of the encoder is better after hiding three quarters of the patches than after hiding a quarter.",
        ("mae.py:tiny",),
        ("mae.py:tiny", "objectives.masked.keep=0.75"),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "masking_in_as_much_compute",
        "MAE (arXiv:2111.06377)",
        "The same, better in as much compute: 400 steps with three quarters hidden, and 177 with a quarter.",
        ("mae.py:tiny",),
        ("mae.py:tiny", "objectives.masked.keep=0.75", "steps=177"),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "masking_over_half_in_as_much_compute",
        "MAE (arXiv:2111.06377)",
        "A probe is better after hiding three quarters than a half, in as much compute: 400 and 248 steps.",
        ("mae.py:tiny",),
        ("mae.py:tiny", "objectives.masked.keep=0.5", "steps=248"),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "masking_over_nine_tenths_in_as_much_compute",
        "MAE (arXiv:2111.06377)",
        "A probe is better after hiding three quarters than nine tenths, in as much compute: 400 and 601 steps.",
        ("mae.py:tiny",),
        ("mae.py:tiny", "objectives.masked.keep=0.1", "steps=601"),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "masking_over_nine_tenths_longer_in_as_much_compute",
        "MAE (arXiv:2111.06377)",
        "The same, which failed, once more after twice the steps: better in as much compute.",
        ("mae.py:tiny", "steps=800"),
        ("mae.py:tiny", "objectives.masked.keep=0.1", "steps=1202"),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "attention_over_concatenation",
        "Fusion (this project)",
        "Attention between tokens tells an emoji's group better than concatenated embeddings do, in as many steps.",
        ("fusion.py:merged",),
        ("fusion.py:concatenated",),
        GROUP,
        "test",
        threshold=0.0,
    ),
    Claim(
        "attention_over_concatenation_in_as_much_compute",
        "Fusion (this project)",
        "The same in as much compute: 106 steps of attention, and 450 of concatenation.",
        ("fusion.py:merged", "steps=106", "evaluate_every=0"),
        ("fusion.py:concatenated", "steps=450", "evaluate_every=0"),
        GROUP,
        "test",
        threshold=0.0,
    ),
    Claim(
        "word_patch_alignment_in_as_much_compute",
        "ViLT (arXiv:2102.03334)",
        "Pairs are told from wrong ones better where words and patches are aligned (the distances cost no product).",
        ("vilt.py:tiny",),
        ("vilt.py:tiny", "objectives.matching.weight=0"),
        ("losses/matching/accuracy",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "hard_negatives_over_random_in_as_much_compute",
        "ALBEF (arXiv:2107.07651)",
        "Matching orders the towers' first 16 better where its wrong pairs were alike than where they were random.",
        ("albef.py:tiny_untaught", *MATCHED),
        ("albef.py:tiny_untaught", *MATCHED, "objectives.matching.negatives=random"),
        ("reranked/image->text/R@1", "reranked/text->image/R@1"),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "joint_over_contrast_alone",
        "FLAVA (arXiv:2112.04482)",
        "Names and pictures find each other better where words and patches are predicted too, in as many steps.",
        ("flava.py:tiny",),
        ("flava.py:tiny_contrastive",),
        BOTH_WAYS,
        "validation",
        threshold=0.0,
    ),
    Claim(
        "joint_over_contrast_in_as_much_compute",
        "FLAVA (arXiv:2112.04482)",
        "The same in as much compute: 300 steps of all objectives, and 961 of the contrast alone.",
        ("flava.py:tiny",),
        ("flava.py:tiny_contrastive", "steps=961", "evaluate_every=0"),
        BOTH_WAYS,
        "validation",
        threshold=0.0,
    ),
    Claim(
        "bfloat16_in_as_much_compute",
        "Mixed precision (arXiv:1710.03740)",
        "Towers that compute in bfloat16 are no worse than in float32 by more than two points of R@1.",
        ("clip.py:tiny", *SHORT, "towers.image.blocks.dtype=bfloat16", "towers.text.blocks.dtype=bfloat16"),
        ("clip.py:tiny", *SHORT),
        BOTH_WAYS,
        "validation",
        threshold=-0.02,
    ),
    Claim(
        "reserve_finds_frames",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Frames of unknown stories are found by what is said and heard, five times as often as by chance.",
        ("reserve.py:tiny",),
        None,
        ("losses/reserve/accuracy/imgs_to_audio",),
        "test",
        threshold=4 / 128,
        chance=1 / 128,
    ),
    Claim(
        "reserve_finds_sounds",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Sounds that were removed are found by words and frames, five times as often as by chance.",
        ("reserve.py:tiny",),
        None,
        ("losses/reserve/accuracy/text_to_audio",),
        "test",
        threshold=4 / 384,
        chance=1 / 384,
    ),
    Claim(
        "reserve_finds_spans",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Words that were removed are found, five times as often as by chance (which counts that some are said twice).",
        ("reserve.py:tiny",),
        None,
        ("losses/reserve/accuracy/stuff_to_span",),
        "test",
        threshold=4 * 0.033,
        chance=0.033,
    ),
    Claim(
        "sounds_as_targets_in_as_much_compute",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Frames and words are found better where removed sounds are to be found too.",
        ("reserve.py:tiny", *HALF),
        ("reserve.py:tiny", *HALF, "objectives.reserve.losses=('imgs_to_audio','stuff_to_span')"),
        FRAMES_AND_SPANS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "sounds_as_further_candidates_in_as_much_compute",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Frames and words are found better where the sounds that weren't removed are candidates too.",
        ("reserve.py:tiny", *HALF),
        ("reserve.py:tiny", *HALF, "objectives.reserve.extra=False"),
        FRAMES_AND_SPANS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "spans_over_masked_words_in_as_much_compute",
        "MERLOT Reserve (arXiv:2201.02639)",
        "Frames are found better where spans are found than where their words are predicted one by one (409 steps).",
        ("reserve.py:tiny", *HALF),
        (
            "reserve.py:tiny",
            "steps=409",
            "evaluate_every=0",
            "objectives.reserve.masked_words=True",
            "data.transforms.words.1.mask_each=True",
        ),
        ("losses/reserve/accuracy/imgs_to_audio",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "videobert_fills_words_by_the_video",
        "VideoBERT (arXiv:1904.01766)",
        "Of hidden words of unknown stories it tells more than twice as many with the video as without.",
        ("videobert.py:tiny",),
        None,
        ("losses/words/accuracy",),
        "test",
        threshold=0.0,
        against=("alone/words/accuracy",),
        times=2.0,
    ),
    Claim(
        "videobert_fills_words_by_the_video_longer",
        "VideoBERT (arXiv:1904.01766)",
        "The same after twice the steps.",
        ("videobert.py:tiny", "steps=1600"),
        None,
        ("losses/words/accuracy",),
        "test",
        threshold=0.0,
        against=("alone/words/accuracy",),
        times=2.0,
    ),
    Claim(
        "cappa_over_cap_in_as_much_compute",
        "CapPa (arXiv:2306.07915)",
        "Pictures are told apart better by a linear probe where most captions were predicted at once.",
        ("cap.py:tiny",),
        ("cap.py:tiny_cap",),
        ("probe/group/top1",),
        "validation",
        threshold=0.0,
    ),
    Claim(
        "scst_raises_cider",
        "SCST (arXiv:1612.00563)",
        "Captions have a higher CIDEr-D after steps that reward it than after as many further steps of cross-entropy.",
        ("scst.py:tiny",),
        ("scst.py:tiny_words",),
        ("captions/caption/cider_d",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "scst_raises_cider_in_as_much_compute",
        "SCST (arXiv:1612.00563)",
        "The same beside further cross-entropy in as much compute.",
        ("scst.py:tiny",),
        ("scst.py:tiny_words", "steps=712"),
        ("captions/caption/cider_d",),
        "test",
        threshold=0.0,
    ),
    Claim(
        "captions_help_retrieval",
        "CoCa (arXiv:2205.01917)",
        "Texts and pictures find each other better where the text's words are predicted too, in as many steps.",
        ("coca.py:tiny", "evaluate_every=0"),
        ("coca.py:tiny_contrastive", "evaluate_every=0"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "captions_help_retrieval_in_as_much_compute",
        "CoCa (arXiv:2205.01917)",
        "The same in as much compute: 600 steps, and 871 without captions.",
        ("coca.py:tiny", "evaluate_every=0"),
        ("coca.py:tiny_contrastive", "steps=871", "evaluate_every=0"),
        BOTH_WAYS,
        "test",
        threshold=0.0,
    ),
    Claim(
        "dialogue_by_history",
        "dialogue (this project)",
        "Answers that need an earlier turn are right thirty points more often where it is read, in as many steps.",
        ("dialogue.py:tiny",),
        ("dialogue.py:tiny_without_history",),
        LATER,
        "test",
        threshold=0.3,
    ),
    Claim(
        "dialogue_by_history_in_as_much_compute",
        "dialogue (this project)",
        "The same in as much compute: 1,000 steps of whole dialogues, and 1,426 of questions alone.",
        ("dialogue.py:tiny",),
        ("dialogue.py:tiny_without_history", "steps=1426"),
        LATER,
        "test",
        threshold=0.3,
    ),
    Claim(
        "dialogue_answers",
        "dialogue (this project)",
        "Four in five answers that need an earlier turn are right, about emoji that training never shows.",
        ("dialogue.py:tiny",),
        None,
        LATER,
        "test",
        threshold=0.8,
        chance=0.0,
    ),
)
FUSIONS = tuple(
    (f"fusion.py:{way}",) for way in ("concatenated", "gated", "tensor", "low_rank", "late", "late_learned", "merged")
)

TINIES = (
    ("clip.py:tiny",),
    ("clip_resnet.py:tiny",),
    ("siglip.py:tiny",),
    ("lit.py:tiny",),
    ("flip.py:tiny",),
    ("clap.py:tiny",),
    ("clap.py:tiny_stamps",),
    ("imagebind.py:tiny",),
    ("trimodal.py:tiny",),
    ("trimodal.py:tiny_stamps",),
    ("bert.py:tiny",),
    ("cap.py:tiny",),
    ("mae.py:tiny",),
    ("audiomae.py:tiny",),
    ("m3ae.py:tiny",),
    ("albef.py:tiny",),
    ("albef.py:tiny_untaught",),
    ("blip_itm.py:tiny",),
    ("vilt.py:tiny",),
    ("vilbert.py:tiny",),
    ("lxmert.py:tiny",),
    ("flava.py:tiny",),
    ("vlmo.py:tiny",),
    ("beit3.py:tiny",),
    ("vqa.py:tiny",),
    ("vqa.py:tiny_spoken",),
    ("ner.py:tiny",),
    ("ner.py:tiny_seen",),
    ("clip4clip.py:tiny",),
    ("videomae.py:tiny",),
    ("reserve.py:tiny",),
    ("videobert.py:tiny",),
    ("cav_mae.py:tiny",),
    ("videoclip.py:tiny",),
    ("show_and_tell.py:tiny",),
    ("show_and_tell.py:tiny_attention",),
    ("scst.py:tiny",),
    ("gpt.py:tiny",),
    ("coca.py:tiny",),
    ("dialogue.py:tiny",),
    ("git_base.py:tiny",),
    ("blip_caption.py:tiny",),
    ("blip_vqa.py:tiny",),
    ("llava.py:tiny",),
    ("paligemma.py:tiny",),
)

# By experiment: what a run of it reads, a file or the workdir of another run, and the command that makes it, as
# arguments of `mmjax`.
CAPTIONER = "runs/show_and_tell_tiny", ("train", str(FOLDER / "show_and_tell.py:tiny"))
PREPARED = {
    "scst.py:tiny": CAPTIONER,
    "scst.py:tiny_words": CAPTIONER,
    "videobert.py:tiny": (
        "runs/videobert_words.safetensors",
        ("cluster", str(FOLDER / "videobert.py:tiny"), "--branching", "12", "--depth", "2", "--entry", "video"),
    ),
}


@dataclass(frozen=True)
class Verdict:
    """The mean difference, the half width of its 95 % interval, the number of pairs, and what that means."""

    effect: float
    half: float
    pairs: int
    word: str


def verdict(differences: list[float], threshold: float) -> Verdict:
    """Of paired differences: `holds`, `fails` or `undecided`; with fewer than three pairs always the last."""
    count = len(differences)
    effect = float(np.mean(differences)) if differences else math.nan
    if count < 2:
        return Verdict(effect, math.inf, count, "undecided")
    factor = T95.get(count) or T95[max(known for known in T95 if known <= count)]
    half = factor * float(np.std(differences, ddof=1)) / math.sqrt(count)
    if count < 3:
        return Verdict(effect, half, count, "undecided")
    word = "holds" if effect - half > threshold else "fails" if effect + half < threshold else "undecided"
    return Verdict(effect, half, count, word)


def prepare(arm: tuple[str, ...]) -> None:
    """Makes what an arm reads, where it isn't there. Raises SystemExit where its command fails."""
    path, command = PREPARED.get(arm[0], ("", ()))
    trained = (
        bool(command) and command[0] == "train"
    )  # a run that has ended ends again at once, one that hasn't goes on
    if not path or (Path(path).exists() and not trained):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    whole = (*command, "--workdir" if trained else "--out", path)
    print(f"{time.strftime('%H:%M:%S')} {' '.join(whole)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "mmjax", *whole])
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}, and {arm[0]} reads {path}")


def run(arm: tuple[str, ...], seed: int, folder: Path, jobs: int = 1) -> dict[str, Any]:
    """One run of an arm, or what is left of it: what it reached, its curve, and the seconds of a step.

    Its output stands beside its workdir, and is shown where the run fails.
    """
    name, *overrides = arm
    workdir = folder / "+".join([name.replace(".py:", "-"), *overrides, f"seed={seed}"])
    command = [sys.executable, "-m", "mmjax", "train", str(FOLDER / name), *overrides, f"seed={seed}"]
    print(f"{time.strftime('%H:%M:%S')} {' '.join(command[4:])}", flush=True)
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / jobs:.3f}"}  # of a GPU's, which runs share
    folder.mkdir(parents=True, exist_ok=True)
    log = workdir.with_name(workdir.name + ".log")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*command, "--workdir", str(workdir)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    if done.returncode:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise SystemExit(f"{' '.join(command[2:])} ended with {done.returncode}:\n{last}\nMore in {log}")
    return reached(finished(workdir))


def finished(workdir: Path) -> list[dict[str, Any]]:
    """The metrics of a run that has made all its steps; SystemExit for one that was stopped, which ends with 0, too."""
    steps = json.loads((workdir / RUN_RECORD).read_text(encoding="utf-8"))["experiment"]["steps"]
    lines = read(workdir)
    if (last := max((line["step"] for line in lines), default=0)) < steps:
        raise SystemExit(f"{workdir} was stopped after step {last} of {steps}: the same command again goes on with it")
    return lines


def device() -> dict[str, str]:
    """What runs, and with what, as a process of its own sees it: a GPU's memory belongs to the runs."""
    program = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    platform, kind = said.stdout.strip().splitlines()[-1].split("|")
    known = machine()
    return {
        "device": kind if platform != "cpu" else f"CPU, {known['cores']} cores of {known['processor']}",
        "python": str(known["python"]),
        **{package: metadata.version(package) for package in PACKAGES},
    }


def reached(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a run's metrics: the last evaluation of each split, the curve of the loss, the median seconds of a step."""
    last = max(line["step"] for line in lines)
    splits = {line["split"]: line for line in lines if line["step"] == last and line.get("split", "train") != "train"}
    found = {
        split: {metric: round(value, 5) for metric, value in line.items() if "/" in metric and isinstance(value, float)}
        for split, line in splits.items()
    }
    train = [line for line in lines if "loss" in line]
    speeds = [line["examples_per_second"] for line in train if line.get("examples_per_second")]
    return {
        "splits": found,
        "curve": [[line["step"], round(line["loss"], 4)] for line in train],
        "examples_per_second": round(float(np.median(speeds)), 2) if speeds else None,
    }


def key(arm: tuple[str, ...], seed: int) -> str:
    """What a run is called in the record."""
    return " ".join([*arm, f"seed={seed}"])


def value(claim: Claim, entry: dict[str, Any]) -> float:
    """What decides, of one run."""
    if claim.metric == SECONDS:
        return -1.0 / entry["examples_per_second"]
    return mean_of(claim.metric, claim, entry)


def compared(claim: Claim, mine: dict[str, Any], other: dict[str, Any] | None) -> float:
    """What a run's value is compared with: that of the other arm's run, another one of its own, or chance."""
    if other is not None:
        return value(claim, other)
    return claim.times * mean_of(claim.against, claim, mine) if claim.against else claim.chance or 0.0


def mean_of(metrics: tuple[str, ...], claim: Claim, entry: dict[str, Any]) -> float:
    """The mean of some metrics of a run, on the claim's split."""
    return float(np.mean([entry["splits"][claim.split][metric] for metric in metrics]))


def judged(claim: Claim, runs: dict[str, Any], seeds: list[int]) -> tuple[Verdict, list[tuple[float, float]]]:
    """The verdict over the seeds that both arms have, and their values."""
    pairs = []
    for seed in seeds:
        mine, other = runs.get(key(claim.arm, seed)), runs.get(key(claim.other, seed)) if claim.other else None
        if mine is None or (claim.other and other is None):
            continue
        if other is not None and mine["made"]["device"] != other["made"]["device"]:
            continue  # no pair
        pairs.append((value(claim, mine), compared(claim, mine, other)))
    return verdict([mine - other for mine, other in pairs], claim.threshold), pairs


def opposite(claim: Claim) -> str:
    """What a claim without a second arm compares with, in words."""
    return f"{claim.times:g} × `{', '.join(claim.against)}`" if claim.against else "chance"


SPLITS = (
    "R@k is the share of queries with a right answer among the first k. Of the emoji one in 205 is right in the "
    "validation split, and one in 398 in the test split: at random R@1 is 0.005 and 0.003, R@10 0.049 and 0.025, and "
    "`top1` of the nine groups 0.111."
)


def page(record: dict[str, Any]) -> str:
    """The text of results.md."""
    runs = record["runs"]
    seeds = sorted({int(name.rpartition("=")[2]) for name in runs})
    lines = [
        "# What the papers claim, at the size of a `tiny`",
        "",
        "Made by `python -m experiments.reproduce`. What each verdict needs was fixed before the runs, in "
        "`experiments/reproduce.py`; every number is in [the record](records/claims.json), with dates and versions. "
        "Effects are means of paired differences with 95 % intervals.",
        "",
        *(f"- {count} runs on {where}" for where, count in sorted(Counter(map(machine_of, runs.values())).items())),
        "",
        "![effects of the claims, with their intervals](records/effects.png)",
        "",
        "| claim | arms | values by seed | effect | must be above | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        found, pairs = judged(claim, runs, seeds)
        arms = f"`{' '.join(claim.arm)}`" + (
            f" / `{' '.join(claim.other)}`" if claim.other else f" / {opposite(claim)}"
        )
        if not pairs:
            lines.append(f"| **{claim.paper}** {claim.says} | {arms} | – | – | {claim.threshold:g} | not run yet |")
            continue
        shown, effect = ", ".join(f"{mine:.4g} / {other:.4g}" for mine, other in pairs), f"{found.effect:+.4f}"
        if claim.metric == SECONDS:
            shown = ", ".join(f"{-1e3 * mine:.3g} / {-1e3 * other:.3g} ms an example" for mine, other in pairs)
        effect += f" ± {found.half:.4f}" + (" s saved" if claim.metric == SECONDS else "")
        lines.append(
            f"| **{claim.paper}** {claim.says} | {arms} | {shown} | {effect} | {claim.threshold:g} | **{found.word}** |"
        )
    lines += ["", "![loss curves of the claims](records/claims.png)", "", *ways(runs, seeds)]
    lines += ["## Each `tiny`, to its end", ""]
    lines += [f"{SPLITS}\n", "| run | steps | loss at first, at last | what it reached |", "|---|---|---|---|"]
    for arm in TINIES:
        entry = runs.get(key(arm, 0))
        if entry is None:
            lines.append(f"| `{arm[0]}` | – | – | not run yet |")
            continue
        first, (step, last) = entry["curve"][0][1], entry["curve"][-1]
        lines.append(f"| `{arm[0]}` | {step} | {first:.4g}, {last:.4g} | {reached_by(entry)} |")
    return "\n".join([*lines, "", "![loss curves of each tiny](records/tinies.png)", ""])


def ways(runs: dict[str, Any], seeds: list[int]) -> list[str]:
    """The table of the ways of fusing, all of one task, of the runs that there are."""
    columns = ("top1", "without image/top1", "without text/top1", "without audio/top1")
    lines = [
        "## Each way of fusing",
        "",
        "`experiments/fusion.py`: to which of nine groups an emoji of the test split belongs, by its picture, name and "
        "spoken name; the mean of the seeds' accuracies, each seed's, and the means where an input is taken away.",
        "",
        "| fusion | accuracy | by seed | without picture | without name | without speech |",
        "|---|---|---|---|---|---|",
    ]
    for arm in FUSIONS:
        entries = [runs[key(arm, seed)]["splits"]["test"] for seed in seeds if key(arm, seed) in runs]
        way = arm[0].rpartition(":")[2]
        if not entries:
            lines.append(f"| `{way}` | – | not run yet | – | – | – |")
            continue
        values = [[entry[f"accuracy/group/{column}"] for entry in entries] for column in columns]
        means = [f"{np.mean(column):.3f}" for column in values]
        lines.append(f"| `{way}` | {means[0]} | {', '.join(f'{x:.3f}' for x in values[0])} | {' | '.join(means[1:])} |")
    return [*lines, ""]


def reached_by(entry: dict[str, Any]) -> str:
    """The numbers of the last evaluations that say most: R@1, R@10 and accuracies; all where there are no such."""
    lines = []
    for split, values in entry["splits"].items():
        known = {name: x for name, x in values.items() if name.endswith(("/R@1", "/R@10", "/top1"))} or values
        lines.append(f"{split}: " + ", ".join(f"{name} {x:.3f}" for name, x in known.items()))
    return "; ".join(lines) or "–"


def machine_of(entry: dict[str, Any]) -> str:
    """What an entry's run ran on, in a line."""
    made = entry["made"]
    versions = ", ".join(f"{package} {made[package]}" for package in PACKAGES)
    return f"{made['device']}: Python {made['python']}, {versions}"


def draw(record: dict[str, Any]) -> None:
    """The effects; and the loss curves of all runs: a panel for each claim, the arm blue and the other orange; and one
    for each tiny.
    """
    effects(record, EFFECTS)
    arms = [
        (claim.name, {claim.arm: "tab:blue"} | ({claim.other: "tab:orange"} if claim.other else {})) for claim in CLAIMS
    ]
    panels(record, arms, CURVES)
    panels(record, [(arm[0], {arm: "tab:blue"}) for arm in TINIES], FOLDER / "records" / "tinies.png")


def effects(record: dict[str, Any], path: Path) -> None:
    """A picture of what was found, a line a claim, beside what it must be above; a claim of time has no place there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seeds = sorted({int(name.rpartition("=")[2]) for name in record["runs"]})
    found = [(c, judged(c, record["runs"], seeds)[0]) for c in CLAIMS if c.metric != SECONDS]
    found = [(claim, this) for claim, this in found if this.pairs]
    colours = {"holds": "tab:green", "fails": "tab:red", "undecided": "tab:gray"}
    figure, axis = pyplot.subplots(figsize=(10, 1 + 0.3 * len(found)))
    for row, (claim, this) in enumerate(found):
        half = 100 * this.half  # of one pair infinite: matplotlib leaves that out
        axis.errorbar(100 * this.effect, row, xerr=half, color=colours[this.word], fmt="o", capsize=3, markersize=4)
        axis.plot(100 * claim.threshold, row, "k|", markersize=12)
    axis.set_yticks(range(len(found)), [f"{claim.name}: {this.word}" for claim, this in found], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.5)
    axis.set_xlabel("effect in points, with its 95 % interval; a black stroke is what it must be above")
    figure.savefig(path, dpi=80, bbox_inches="tight")
    pyplot.close(figure)


def panels(record: dict[str, Any], wanted: list[tuple[str, dict[tuple[str, ...], str]]], path: Path) -> None:
    """A picture of four panels a row: each has a title, and arms by colour. What hasn't run is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = {}
    for title, arms in wanted:
        names = [
            (name, arms[arm]) for name in record["runs"] for arm in arms if name.rpartition(" ")[0] == " ".join(arm)
        ]
        if names:
            found[title] = names
    rows = max(1, math.ceil(len(found) / 4))
    figure, axes = pyplot.subplots(rows, 4, figsize=(16, 3 * rows), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    for (title, names), axis in zip(found.items(), axes.flat, strict=False):
        for name, colour in names:
            axis.plot(*zip(*record["runs"][name]["curve"], strict=True), color=colour, alpha=0.6, linewidth=1)
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("step", fontsize=8)
    for row in axes:
        row[0].set_ylabel("loss")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    names = ["tinies", "fusions", *(claim.name for claim in CLAIMS), *(name for (name,) in TINIES)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CLAIM", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="so many runs beside each other (default: 1)")
    parser.add_argument("--workdir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--write", action="store_true", help="only write results.md out of the record")
    arguments = parser.parse_args()
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"runs": {}}
    if not arguments.write:
        fill(record, arguments)
    RECORD.write_text(json.dumps(record | {"claims": [asdict(claim) for claim in CLAIMS]}) + "\n", encoding="utf-8")
    RESULTS.write_text(page(record), encoding="utf-8")
    draw(record)
    print(f"written: {RESULTS}")


def fill(record: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Runs what the record lacks, all claims of a seed before the next seed; each run is kept as soon as it is done."""
    made, lock = device(), threading.Lock()

    def one(arm: tuple[str, ...], seed: int, jobs: int) -> None:
        entry = run(arm, seed, arguments.workdir, jobs)
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        with lock:
            record["runs"][key(arm, seed)] = entry | {"made": made | {"date": day}}
            record["claims"] = [asdict(claim) for claim in CLAIMS]
            RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")

    for alone in (False, True):
        chosen = [c for c in CLAIMS if c.name in arguments.only and (c.metric == SECONDS) == alone]
        arms = [(arm, seed) for seed in arguments.seeds for claim in chosen for arm in (claim.arm, claim.other) if arm]
        arms += [
            (arm, seed) for seed in arguments.seeds for arm in FUSIONS if "fusions" in arguments.only and not alone
        ]
        arms += [(arm, 0) for arm in TINIES if {"tinies", *arm} & {*arguments.only} and not alone]
        missing = [(arm, seed) for arm, seed in dict.fromkeys(arms) if key(arm, seed) not in record["runs"]]
        jobs = 1 if alone else arguments.jobs
        for arm in dict.fromkeys(arm for arm, _ in missing):
            prepare(arm)
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(one, arm, seed, jobs) for arm, seed in missing]:
                done.result()


if __name__ == "__main__":
    main()
