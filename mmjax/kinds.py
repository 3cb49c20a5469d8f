"""What can be wrong with an example: the kinds that data marks it with, and that the train step counts."""

from typing import Literal, get_args

Kind = Literal["undecodable", "too_large", "empty", "not_finite", "unfit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
