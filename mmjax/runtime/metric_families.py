"""Defines the metrics of `metrics.jsonl` by family of names: the meaning of each, and the direction in which it is
better.

This is the only list of them. `mmjax train --help` and `mmjax evaluate --help` print it, a report has it below its
tables, and TensorBoard's groups follow it. In a name, `<part>` stands for the experiment's own name.
"""

from collections.abc import Iterable
from functools import cache

from mmjax.runtime.counts import EXAMPLES
from mmjax.runtime.metric_family import MetricFamily

HEALTH, SPEED = "health", "speed"  # TensorBoard's groups of names without a slash, or that are no scores


TRAINING = (
    MetricFamily(("loss",), "what is minimised: the objectives' losses, times their weights", "lower"),
    MetricFamily(
        ("<objective>/loss",),
        "the loss of one objective on the batch, in nats (of masked patches: their mean squared error)",
        "lower",
    ),
    MetricFamily(
        ("<objective>/loss_forward", "<objective>/loss_backward"),
        "the contrastive loss by direction: the first modality asks and the second answers, and back (at random about "
        "the logarithm of the batch size)",
        "lower",
    ),
    MetricFamily(
        ("<objective>/image_loss", "<objective>/text_loss"),
        "the two parts of a loss of pictures and texts that are masked together",
        "lower",
    ),
    MetricFamily(
        ("<objective>/accuracy", "<objective>/text_accuracy"),
        "the share that is answered right: partners that are nearer than all others of the batch (at random about one "
        "in the batch), words and codes of hidden patches, next sentences (at random a half), labels, pairs that match",
        "higher",
    ),
    MetricFamily(
        ("<objective>/loss/<target>",),
        "the parts of a loss of several targets, by their names: of regions that were hidden their `features`, "
        "and the classes that a detector gave; of videos what is found from what",
        "lower",
    ),
    MetricFamily(
        ("<objective>/accuracy/<target>",),
        "the share of hidden regions whose class is found, by target; of videos that of partners that are nearer than "
        "all others",
        "higher",
    ),
    MetricFamily(
        ("<objective>/candidates/<target>",),
        "how many of the batch a state chooses from, by target: at random the accuracy is one by this number",
    ),
    MetricFamily(
        ("<objective>/accuracy_right", "<objective>/accuracy_wrong"),
        "the same of the pairs that belong together, and of those that don't",
        "higher",
    ),
    MetricFamily(
        ("<objective>/mae", "<objective>/rmse"),
        "how far predicted numbers are from the labels, in their units: the mean absolute error, and the root of the "
        "mean squared one",
        "lower",
    ),
    MetricFamily(
        ("<objective>/r2",),
        "the share of the labels' variance that the predictions explain; 0 for one that says their mean",
        "higher",
    ),
    MetricFamily(
        ("<objective>/distance_positive", "<objective>/distance_negative"),
        "the mean squared distance of unit vectors that belong together, and of those that don't, from 0 to 4: the "
        "further apart the better",
    ),
    MetricFamily(("<objective>/active",), "the share of triplets that aren't satisfied, and have a gradient", "lower"),
    MetricFamily(
        ("<objective>/weight",), "by what an objective's loss is multiplied, where a balance decides that at each step"
    ),
    MetricFamily(
        ("<objective>/attention_penalty",),
        "the sum over a picture's tokens of (1 - how much all words of a text look at it)^2, the mean over texts",
        "lower",
    ),
    MetricFamily(
        ("<objective>/unlikelihood",),
        "the sum over a word's different predecessors of -ln(1 - their chance to come again), the mean over words",
        "lower",
    ),
    MetricFamily(
        ("<objective>/reward", "<objective>/baseline"),
        "the mean CIDEr-D, up to 10, of the texts that were drawn, and of what they are compared with",
        "higher",
    ),
    MetricFamily(
        ("<objective>/words", "<objective>/ended"),
        "the mean number of ids of texts that were drawn, and the share of them that end by themselves",
    ),
    MetricFamily(("<objective>/pairs",), "pairs of the batch that were matched, right ones and wrong ones"),
    MetricFamily(("<objective>/matching_loss",), "the loss of matching alone, without what is added to it", "lower"),
    MetricFamily(
        ("<objective>/distance_right", "<objective>/distance_wrong"),
        "the cost of moving words onto patches, in [0, 2], of pairs that belong together, and of those that don't",
    ),
    MetricFamily(
        ("<objective>/logit_scale", "<objective>/logit_scale/<target>"),
        "what cosines are multiplied by, 1 / temperature",
    ),
    MetricFamily(("<objective>/logit_bias",), "what a sigmoid loss adds to that"),
    MetricFamily(("<objective>/candidates",), "keys that a query is compared with, of the batch and of a queue"),
    MetricFamily(("<objective>/alpha",), "a teacher's part in the targets, the rest being the data's"),
    MetricFamily(
        ("<objective>/positive_logit", "<objective>/negative_logit"),
        "the mean logit of pairs that belong together, and of those that don't: the further apart the better",
    ),
    MetricFamily(
        ("<objective>/nonfinite/<modality>",),
        "embeddings of the batch that hold NaN or infinity; there should be none",
        "lower",
    ),
    MetricFamily(("lr",), "the learning rate of the step"),
    MetricFamily(
        ("grad_norm", "grad_norm/<part>"), "the norm of the gradient before it is clipped, of all and of each tower's"
    ),
    MetricFamily(("update_norm", "update_norm/<part>"), "the norm of the change that the step made"),
    MetricFamily(("param_norm", "param_norm/<part>"), "the norm of the parameters after the step"),
    MetricFamily(
        ("guard/skipped", "guard/in_a_row", "guard/spikes"),
        "steps so far whose update was skipped, how many of them now follow each other, and loss spikes among them",
        "lower",
        HEALTH,
    ),
    MetricFamily(("bad_share",), "the share of bad examples among about the last ten thousand", "lower", HEALTH),
    MetricFamily(
        ("bad/<modality>/<kind>",),
        "bad examples so far, by what is wrong with them; a kind of which there was none isn't written",
        "lower",
        HEALTH,
    ),
    MetricFamily(
        ("clipped/<modality>",),
        "the share of a batch's samples at full scale, where what is louder was cut off",
        "lower",
        HEALTH,
    ),
    MetricFamily(
        ("truncated/<source>", "truncated/<source>/<modality>"),
        "the share of a batch's texts and sounds that are longer than the model reads, and lose their rest; written "
        "where there are such",
        "lower",
        HEALTH,
    ),
    MetricFamily(
        ("batch_hash",),
        "a number for the examples of the batch and their order: the same in a run that went on as in one that never "
        "stopped",
        group=HEALTH,
    ),
    MetricFamily(
        ("examples_per_second",), "examples a second since the line before, without evaluations", "higher", SPEED
    ),
    MetricFamily(("data_wait",), "the share of that time in which the device waited for data", "lower", SPEED),
    MetricFamily(("seconds",), "the time of all runs in the workdir so far", group=SPEED),
    MetricFamily(("goodput",), "the share of that time which went to steps that are still there", "higher", SPEED),
)

LOSSES = MetricFamily(
    ("<losses>/loss", "<losses>/<objective>/<number>", "<losses>/examples"),
    "the validation loss: what training calls so, on batches of a split that doesn't train; and of how many examples",
)
EVALUATION = (
    MetricFamily(
        ("<evaluator>/<from>-><to>/R@<k>",),
        "recall at k, the share of queries with a right answer among the first k",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<from>-><to>/median_rank",),
        "the place, 1 for the first, by which half of the queries have found a right answer",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<from>-><to>/queries", "<evaluator>/<from>-><to>/candidates"),
        "how many were asked, and among how many answers each was found",
    ),
    MetricFamily(
        ("<evaluator>/<label>/top1", "<evaluator>/<label>/top5"),
        "the share of examples whose class is the first found, or among the first five",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<label>/recall",),
        "mean recall: the share found at the first place in each class, averaged over classes, so that big ones don't "
        "dominate",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<from>-><to>/gain_R@<k>",),
        "recall at k of the second order, less that of the towers alone",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<from>-><to>/auc",),
        "the probability that, of the candidates that were put in order, a right one scores above a wrong one",
        "higher",
    ),
    MetricFamily(
        tuple(f"<evaluator>/<objective>/{name}" for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")),
        "how much written captions share with their references: runs of 1 to 4 words, the longest common sequence",
        "higher",
    ),
    MetricFamily(("<evaluator>/<objective>/cider_d",), "CIDEr-D, to 10: shared words, rare ones weigh more", "higher"),
    MetricFamily(
        tuple(
            f"<evaluator>/<objective>/{n}" for n in ("distinct_1", "distinct_2", "different", "repetition", "length")
        ),
        "of written texts: the share of different words, pairs and texts; of runs that a text repeats; mean words",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/meteor", "<evaluator>/<objective>/spice"),
        "METEOR and SPICE of written captions, by their authors' Java programs",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/R@<k>", "<evaluator>/<objective>/R@1/<turn>"),
        "the share of questions whose right option is among the first k by probability, of all or of one turn",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/mrr", "<evaluator>/<objective>/ndcg"),
        "the mean of 1 / the right option's rank; the gain of all options' relevances, of the most that can be had",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/exact_match", "<evaluator>/<objective>/exact_match/<kind>=<value>"),
        "the share of written answers that are a right one, normalised as VQA does, of all or of one kind",
        "higher",
    ),
    MetricFamily(("<evaluator>/<objective>/mean_rank",), "the mean rank of the right option, from 1", "lower"),
    MetricFamily(
        ("<evaluator>/<objective>/answer_accuracy", "<evaluator>/<objective>/answer_accuracy/<turn>"),
        "the share of written answers that are those of the conversation, of all or of one turn",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/later_accuracy", "<evaluator>/<objective>/spoken_accuracy"),
        "the same of answers that need an earlier turn, and of questions that are sounds",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/majority_answer_accuracy", "<evaluator>/<objective>/majority_later_accuracy"),
        "what these are for one who always gives the most frequent answer",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/clip_score", "<evaluator>/<objective>/ref_clip_score"),
        "how near written captions are to their pictures by the towers of a model, and to references as well",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/perplexity",),
        "e to the mean loss of a word, in nats, over all words of the split; vocab for one that knows nothing",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/bits_per_token", "<evaluator>/<objective>/bits_per_byte"),
        "the loss in bits, by token of the model's own tokenizer or by byte of the text, which compares models",
        "lower",
    ),
    MetricFamily(("<evaluator>/<objective>/word_accuracy",), "the share of words that were the likeliest", "higher"),
    MetricFamily(("<evaluator>/<objective>/words",), "the number of words that were predicted"),
    MetricFamily(
        ("<evaluator>/<objective>/vqa_accuracy", "<evaluator>/<objective>/vqa_accuracy/<kind>=<value>"),
        "the mean accuracy of answers as VQA counts it, by how many people gave the same, of all or of one kind",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/mae", "<evaluator>/<objective>/rmse"),
        "how far predicted numbers are from the labels, in their units: the mean absolute error, and the root of the "
        "mean squared one",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/r2",),
        "the share of the labels' variance that the predictions explain; 0 for one that says their mean",
        "higher",
    ),
    MetricFamily(("<evaluator>/<objective>/exact",), "the share of answers that are right to the token", "higher"),
    MetricFamily(
        ("<evaluator>/<objective>/precision",),
        "the share of the entities that were found which are right",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<label>/f1", "<evaluator>/<label>/f1_micro"),
        "F1, the harmonic mean of precision and recall: the mean over classes, and of all decisions together",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<label>/calibration",),
        "expected calibration error: how far the probability of the answer is from how often it is right",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<objective>/without <input>/<score>",), "the score where every example lacks that input", "higher"
    ),
    MetricFamily(
        ("<evaluator>/<row>/disturbed <input> <unit>=<amount>/<score>",),
        "the score where that input of every example is disturbed: pictures by noise (std, in parts of the range of "
        "pixels), sounds by noise (snr, in dB), texts by other tokens (replaced, a share)",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<row>/where <column>=<value>/<score>",),
        "the score of the examples whose column has that value",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<row>/gap over <column>/<score>",),
        "the best such group's score, less the worst's",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<label>/mAP",),
        "mean average precision, for examples of several classes: how far each class's own examples stand before all "
        "others, averaged over classes",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<label>/<n>shot/top1", "<evaluator>/<label>/<n>shot/mAP"),
        "top1 or mAP of a probe that learnt from n examples a class, the mean over draws of them",
        "higher",
    ),
    MetricFamily(
        ("<evaluator>/<label>/<n>shot/top1_std", "<evaluator>/<label>/<n>shot/mAP_std"),
        "the standard deviation of that over the draws",
    ),
    MetricFamily(
        ("<evaluator>/<label>/log10_strength",),
        "how strongly the probe is regularised, as held-out examples chose",
    ),
    MetricFamily(
        ("<evaluator>/<label>/<score>/fold=<value>",), "the score on one fold; the score itself is their mean", "higher"
    ),
    MetricFamily(
        ("<evaluator>/<label>/examples", "<evaluator>/<label>/classes", "<evaluator>/<label>/left_out"),
        "how many were judged, in how many classes, and how many weren't for want of a label",
    ),
    MetricFamily(
        ("<evaluator>/<row>/not_finite",),
        "of those that were judged, embeddings that hold NaN or infinity, which count as wrong",
        "lower",
    ),
    MetricFamily(
        ("<evaluator>/<row>/chance", "<evaluator>/<row>/chance_<score>"),
        "what answers at random would get: of R@1, top 1 or mAP, and of each other score by its name",
    ),
    LOSSES,
)


@cache
def family(name: str, evaluation: bool = False) -> MetricFamily | None:
    """The family of a name in a line of training, or of an evaluation. None: the name isn't documented, as those of
    one's own objectives and evaluators.

    A name of the validation loss (`losses/image_text/accuracy`) has the family of the same name in training.
    """
    listed = [each for each in (EVALUATION if evaluation else TRAINING) if each is not LOSSES]
    found = max(listed, key=lambda each: each.fits(name))
    if found.fits(name):
        return found
    if not evaluation:
        return None
    rest = name.partition("/")[2]
    if rest == EXAMPLES:
        return LOSSES
    found = family(rest)
    return found if found is not None and found.names[0].startswith(("loss", "<objective>/")) else None


def tensorboard_tag(name: str) -> str:
    """The tag of a training metric on TensorBoard: its name, within the group of its family.

    TensorBoard puts the cards of one first part together, in the order of the alphabet. By their flat names `bad_share`
    and `batch_hash`, each alone, would come first.
    """
    found = family(name)
    return f"{found.group}/{name}" if found is not None and found.group else name


def families(names: Iterable[str], evaluation: bool = False) -> list[tuple[MetricFamily, list[str]]]:
    """The families of these names, in the order of the list, each with its names."""
    known = list(names)
    found = [(each, [name for name in known if family(name, evaluation) is each]) for each in (*EVALUATION, *TRAINING)]
    return [(each, mine) for each, mine in found if mine]
