"""The decoders that write texts, and their memories, for what takes any of them."""

from mmjax.models.decoders.recurrent import RecurrentCache, RecurrentDecoder
from mmjax.models.decoders.text import Cache, TextDecoder

AnyDecoder = TextDecoder | RecurrentDecoder
AnyCache = Cache | RecurrentCache
