"""Optimisers and learning-rate schedules, by the names that an experiment imports.

    from mmjax.optim import AdamW

The names are imported when they are first asked for. Those that are classes of fields may be in an experiment's
record: constructing one with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.optim.balance import Alternate, GradNorm, PCGrad, Uncertainty
    from mmjax.optim.base import Optimizer
    from mmjax.optim.optimizers import Adafactor, AdamW, Lamb, Muon, Sgd
