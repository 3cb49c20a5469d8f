"""The one rule for the scale of a waveform's numbers, for files and arrays, wherever they come from.

int16 is unchanged. int32 has its full scale at 2^31, as files of 24 and 32 bits have. Floats have theirs at 1.0:
up to `LOUDEST` they are clipped, and the train step counts samples at full scale (`clipped/audio`); louder ones have an
unknown scale, and are refused. So are int32 arrays whose numbers all fit into 16 bits: taken by their type they would
be silence.
"""

import numpy as np
from jaxtyping import Int16

from mmjax.data.bad_example import BadExample

Waveform = Int16[np.ndarray, " samples"]

LARGEST = 32_767
# Resampling overshoots a little, lossy coding of noise (Opus, at its lowest rates) up to five times the full scale;
# integers that became floats without a division lie far above.
LOUDEST = 8.0
_SIXTEEN_BITS = 2**15


def in_scale(samples: np.ndarray) -> np.ndarray:
    """Scales samples of any shape by their type's full scale: to int16, or to floats with full scale 1.0.

    Raises:
        BadExample: their type has no full scale, or their values have another one ("undecodable"); or they aren't
            finite ("not_finite").
    """
    if samples.dtype == np.int16:
        return samples
    if samples.dtype == np.int32:
        largest = int(np.abs(samples.astype(np.int64)).max(initial=0))
        if 0 < largest <= _SIXTEEN_BITS:
            raise BadExample(
                f"the int32 array holds values up to {largest:,}, which are 16 bits by their looks, and int32 has its "
                "full scale at 2^31: give them as int16 (x.astype(np.int16))",
                "undecodable",
            )
        return samples / np.float32(2**31)
    if not np.issubdtype(samples.dtype, np.floating):
        raise BadExample(
            f"a waveform holds int16 (or int32, full scale 2^31) or floats in [-1, 1], not {samples.dtype}",
            "undecodable",
        )
    loudest = max(float(samples.max(initial=0)), -float(samples.min(initial=0)))
    if not np.isfinite(loudest):
        raise BadExample("the sound holds samples that aren't finite", "not_finite")
    if loudest > LOUDEST:
        raise BadExample(
            f"the sound holds floats up to {loudest:g}; a waveform of floats lies in [-1, 1] (up to {LOUDEST:g} is "
            "clipped): divide it by its full scale (32768 for 16 bits), or give int16",
            "undecodable",
        )
    return samples


def to_int16(samples: np.ndarray) -> Waveform:
    """Converts the output of `in_scale` to int16; values beyond full scale are clipped."""
    if samples.dtype == np.int16:
        return samples
    return np.rint(np.clip(samples, -1, 1) * LARGEST).astype(np.int16)
