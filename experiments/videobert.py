"""VideoBERT: one BERT over words and visual words (Sun et al. 2019, arXiv:1904.01766).

    mmjax cluster experiments/videobert.py:tiny --branching 12 --depth 2 --out runs/videobert_words.safetensors
    mmjax train experiments/videobert.py:tiny --workdir runs/videobert_tiny    # minutes on a CPU, on the demo data
    mmjax train experiments/videobert.py:published --workdir /mnt/bucket/videobert    # after its own tree of words

A video's clips of 1.5 seconds are visual words: the leaves of a tree of k-means over a network's features. BERT reads
`[CLS] words [>] visual words [SEP]`, or the half that there is: pairs, texts alone and videos alone are the examples of
one batch. It predicts hidden words and visual words, each in its own vocabulary, and tells by [CLS] whether the words
of a pair belong to that video. Towers are tables of vectors; places, segments and all blocks are the fusion's. The
joint vocabulary of 51,258 is two tables here: BERT's 30,522 words, and the visual words with three vectors of their
own, for [>], [SEP] and a hidden one, which the paper has among BERT's. A text alone has no [SEP], a video alone no
[CLS]. Alignment reads pairs of which nothing is hidden, half of them with another video of the batch.
`cooking_videos` stands for a TFDS dataset of one's own: `video` is the features of a segment's clips, [T, 1024], `text`
what is said in it. Batch, rate, steps and the paces of videos are remembered, not checked; neighbouring sentences
aren't joined at random, and the lengths of segments are ours.
"""

from typing import Any

from mmjax.data import (
    Canonicalize,
    CutCells,
    DecodeVideo,
    DropWords,
    EachFrame,
    EverySentence,
    Mixture,
    PickCaption,
    PooledPixels,
    RandomPace,
    Renamed,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
    VisualSentence,
    VisualWords,
    WordTree,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, Merged, TextTransformer
from mmjax.objectives import Corrupt, MaskedText, Matching, View
from mmjax.optim import AdamW

BERT, VOCAB, MASK, LENGTH = "hf:google-bert/bert-large-uncased", 30_522, 103, 512
SPECIAL = 3  # ids below the visual words, as VisualSentence has them: [>], [SEP], and the one of a hidden word
WORDS, CLIPS, TINY_WORDS, TINY_VOCAB, TINY_MASK = 128, 64, 8, 64, 4
POST: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12}
POOLER: dict[str, Any] = {"pooling": "first", "projection_tanh": True}
TOLD: dict[str, Any] = {"batches": 8}
ALONE: dict[str, Any] = {"batches": 8, "without": ("video",), "name": "alone"}
END: dict[str, Any] = {"split": "test", "when": "end"}


@experiment
def parts(depth: int, vocab: int, clusters: int, **more: Any) -> dict[str, Any]:
    """Two tables, and a BERT over what both give."""
    table: dict[str, Any] = {"length": LENGTH, "positions": "none", "blocks": Blocks(depth=0, **POST, **more)}
    text = TextTransformer(vocab=vocab, pooling="mean", **table)
    video = TextTransformer(vocab=SPECIAL + clusters, pooling="mean", **table)
    placed: dict[str, Any] = {"positions": LENGTH, "pre_norm": True, "embed_dim": more["width"], **POOLER}
    stream = Merged(blocks=Blocks(depth=depth, **POST, **more), **placed)
    return {"towers": {"text": text, "video": video}, "fusions": {"stream": stream}}


@experiment
def objectives(vocab: int, mask_id: int, clusters: int, **hiding: Any) -> dict[str, Any]:
    """Both masked ones read one view, in which words and visual words are hidden at once. Each has the weight 1."""
    words: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1, **hiding}
    seen: dict[str, Any] = {"vocab": SPECIAL + clusters, "mask_id": SPECIAL - 1, "first_id": SPECIAL}
    hidden: Any = (View("text", Corrupt(**words)), View("video", Corrupt(**seen)))
    both: dict[str, Any] = {"fusion": "stream", "beside": hidden, "tied": True, "norm_eps": 1e-12}
    align = Matching("stream", pair=("text", "video"), negatives="random", half_right=True)
    return {"words": MaskedText(**words, **both), "seen": MaskedText(modality="video", **seen, **both), "align": align}


@experiment
def mixed(pairs: Any, alone: Any, weight: float = 1.0, **chains: Any) -> Mixture:
    """Pairs, `weight` times as often as of `alone` the texts by themselves, and the videos."""
    halves = {"texts": Renamed(alone, {"unseen": "video"}), "videos": Renamed(alone, {"unread": "text"})}
    return Mixture({"pairs": weight, "texts": 1.0, "videos": 1.0}, sources={"pairs": pairs, **halves}, **chains)


@experiment
def adam(peak_lr: float, warmup_steps: int) -> AdamW:
    rate: dict[str, Any] = {"peak_lr": peak_lr, "end_lr": 0.0, "warmup_steps": warmup_steps, "schedule": "linear"}
    return AdamW(**rate, weight_decay=0.01, b2=0.999, eps=1e-6, no_decay=(r"(^|/)(bias|scale)$",))


@experiment
def published() -> Experiment:
    """356,378,624 parameters, BERT-large's and 20,739 vectors, and 2,156,607 of the heads. It starts from BERT, but for
    visual words, the segments' vectors, and the pooler, which the file of a masked model lacks."""
    cut = Tokenize(Subwords(VOCAB, "bert-large-uncased/vocab.txt"), WORDS, bos=True, eos=False)
    cooking, tree = Tfds("cooking_videos"), WordTree("runs/cooking_words.safetensors", branching=12, depth=4)
    seen = (VisualWords(tree, CLIPS), RandomPace(5), VisualSentence())
    size: dict[str, Any] = {"width": 1_024, "heads": 16, "inits": "bert", "dropout": 0.1}
    return Experiment(
        **parts(24, VOCAB, 20_736, **size, remat="full", dtype="bfloat16"),
        objectives=objectives(VOCAB, MASK, 20_736),
        data=mixed(cooking, cooking, transforms={"text": (PickCaption(), cut), "video": seen}, workers=16),
        optimizer=adam(1e-5, warmup_steps=0),
        batch_size=128,
        steps=500_000,
        mesh=Mesh(fsdp=8),
        init={
            "towers.text": Load(BERT),
            "fusions.stream": Load(BERT, of="towers.text", skip=("^kind_", "^projection/")),
            "objectives.words": Load(BERT, of="objectives.masked", skip=("^bias$",)),
        },
    )


@experiment
def tiny() -> Experiment:
    """From scratch, on the sentences of stories about emoji that training knows; the stories judged are held out. Half
    of a sentence's words are hidden, and none of these stays as it is. Only words that a video can tell are read: not
    "the" and "to". A visual word is a third of 2.4 seconds of one of six cells of the picture, whose colours tell who
    is there. The metrics `alone` are of the same words, hidden alike, without the video."""
    pieces = SentencePiece(TINY_VOCAB, name="familiar", model_type="word")
    text = (Canonicalize(), DropWords(("the", "to")), Tokenize(pieces, TINY_WORDS, bos=True, eos=False))
    frames = (DecodeVideo(6, jitter=False), EachFrame((Resize(96),)), CutCells(rows=2, columns=3, frames=2))
    tree = WordTree("runs/videobert_words.safetensors", branching=12, depth=2)
    video = (*frames, PooledPixels(grid=4, frames=2), VisualWords(tree), VisualSentence())
    pairs = EverySentence(Tfds("emoji_stories/familiar"), 2.4)
    unjudged = Tfds("emoji_stories/familiar", splits={"validation": "-", "test": "-"})  # where pairs alone are judged
    return Experiment(
        **parts(2, TINY_VOCAB, 144, width=96, heads=4, remat="dots"),
        objectives=objectives(TINY_VOCAB, TINY_MASK, 144, rate=0.5, masked=1.0, random=0.0),
        data=mixed(pairs, EverySentence(unjudged, 2.4), 3.0, transforms={"text": text, "video": video}, cache=True),
        optimizer=adam(2e-3, warmup_steps=40),
        batch_size=64,
        steps=800,
        evaluators=[Losses(**TOLD), Losses(**ALONE), Losses(**END, **TOLD), Losses(**END, **ALONE)],
        evaluate_every=200,
        save_every=200,
    )
