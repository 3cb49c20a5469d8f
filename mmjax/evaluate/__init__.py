"""Evaluation: evaluators, by the names that an experiment imports, and the evaluation of checkpoints and embeddings.

    from mmjax.evaluate import KNN, Retrieval, ZeroShot

The names are imported when they are first asked for. Those that are classes of fields may be in an experiment's
record: constructing one with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.evaluate.contract import Embedded, Evaluator
    from mmjax.evaluate.evaluators.accuracy import Accuracy
    from mmjax.evaluate.evaluators.answers import Answers
    from mmjax.evaluate.evaluators.captions import Captions
    from mmjax.evaluate.evaluators.clip_score import ClipScore
    from mmjax.evaluate.evaluators.dialogues import Dialogues
    from mmjax.evaluate.evaluators.gallery import Gallery
    from mmjax.evaluate.evaluators.knn import KNN
    from mmjax.evaluate.evaluators.losses import Losses
    from mmjax.evaluate.evaluators.perplexity import Perplexity
    from mmjax.evaluate.evaluators.probe import Probe
    from mmjax.evaluate.evaluators.ranked_answers import RankedAnswers
    from mmjax.evaluate.evaluators.regression import RegressionErrors
    from mmjax.evaluate.evaluators.reranked import Reranked
    from mmjax.evaluate.evaluators.retrieval import Retrieval
    from mmjax.evaluate.evaluators.span_f1 import SpanF1
    from mmjax.evaluate.evaluators.tag_f1 import TagF1
    from mmjax.evaluate.evaluators.vqa import VqaAccuracy
    from mmjax.evaluate.evaluators.zeroshot import ZeroShot
    from mmjax.evaluate.model import evaluate_model
