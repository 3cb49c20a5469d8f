"""Objectives: a batch to a loss, by the names that an experiment imports.

    from mmjax.objectives import Contrastive, MaskedImage

The names are imported when they are first asked for. Those that are classes of fields may be in an experiment's
record: constructing one with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.objectives.caption import Caption
    from mmjax.objectives.contract import Context, Fused, Objective, RowPairs, Together, TwoRounds, View
    from mmjax.objectives.contrastive.metric_learning import MetricLearning
    from mmjax.objectives.contrastive.momentum import MomentumContrastive
    from mmjax.objectives.contrastive.objective import Contrastive
    from mmjax.objectives.demands import Counting, Demanding
    from mmjax.objectives.encoded import (
        Encoded,
        EncodedCorrupted,
        EncodedCorruptedPatches,
        EncodedFused,
        EncodedKept,
        EncodedRegions,
        EncodedTogether,
    )
    from mmjax.objectives.labels.arcface import ArcFace
    from mmjax.objectives.labels.classify import Classify
    from mmjax.objectives.labels.regress import Regress
    from mmjax.objectives.labels.span import Span
    from mmjax.objectives.labels.tag_tokens import TagTokens
    from mmjax.objectives.masked import MaskedAudio, MaskedImage, MaskedText, MaskedVideo
    from mmjax.objectives.masked_codes import MaskedCodes
    from mmjax.objectives.masked_patches_together import MaskedPatchesTogether
    from mmjax.objectives.masked_regions import MaskedRegions
    from mmjax.objectives.masked_together import MaskedTogether
    from mmjax.objectives.masking import Corrupt, CorruptPatches, Keep, KeepOutsideBands, KeepOutsideBlocks
    from mmjax.objectives.masking_regions import CorruptRegions
    from mmjax.objectives.masking_tubes import KeepTubes
    from mmjax.objectives.matching import Matching
    from mmjax.objectives.next_sentence import NextSentence
    from mmjax.objectives.pretrainer import Pretrainer
    from mmjax.objectives.reserve.objective import Reserve
    from mmjax.objectives.self_critical import SelfCritical
    from mmjax.objectives.word_patch import WordPatchAlignment
