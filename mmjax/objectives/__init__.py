"""Objectives: a batch to a loss, by the names that an experiment imports.

    from mmjax.objectives import Contrastive, MaskedImage

The names are imported when they are first asked for. Those that are classes of fields may be in an experiment's
record: constructing one with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.objectives.classify import Classify
    from mmjax.objectives.contract import Context, Fused, Objective, RowPairs, Together, TwoRounds, View
    from mmjax.objectives.contrastive.objective import Contrastive
    from mmjax.objectives.demands import Demanding
    from mmjax.objectives.encoded import Encoded, EncodedCorrupted, EncodedFused, EncodedKept, EncodedTogether
    from mmjax.objectives.masked import MaskedAudio, MaskedImage, MaskedText
    from mmjax.objectives.masked_together import MaskedTogether
    from mmjax.objectives.masking import Corrupt, Keep, KeepOutsideBands, KeepOutsideBlocks
    from mmjax.objectives.matching import Matching
    from mmjax.objectives.next_sentence import NextSentence
    from mmjax.objectives.pretrainer import Pretrainer
    from mmjax.objectives.tag_tokens import TagTokens
