"""The exception that says that an example can't be used, and the kinds that it is counted as.

Readers and transforms raise it and nothing else; the train step counts its kinds.
"""

from typing import Literal, get_args

Kind = Literal["undecodable", "too_large", "empty", "not_finite", "unfit"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class BadExample(Exception):  # noqa: N818 (it is no error of the program's)
    """An example can't be used: its rows become zeros with valid=False, and the run goes on.

    kind: the kind that it is counted as. "undecodable": no picture or sound, or one that is broken, cut off or gone, or
    whose numbers have no known white or full scale; "too_large": more than a machine should be made to unpack; "empty";
    "not_finite": NaN or infinity; "unfit": sound, but not for this chain, such as a picture smaller than its crop.
    """

    reason: str
    kind: Kind

    def __init__(self, reason: str, kind: Kind):
        super().__init__(reason, kind)  # both arguments, so that it can be pickled
        self.reason, self.kind = reason, kind

    def __str__(self) -> str:
        return self.reason

    @property
    def code(self) -> int:
        """The number of the kind in a batch's `<modality>_bad`: its place in `KINDS`, from 1 on; 0 is not bad."""
        return KINDS.index(self.kind) + 1
