"""Measures on sounds, by their samples alone."""

import numpy as np

from mmjax.data.datasets.emoji_stories.narration import SOUND_RATE


def quiet(sound, rate=SOUND_RATE, share=0.03):
    """The silences of a sound, begin and end in seconds: 15 ms and more, in windows of 5 ms, below a share of the
    loudest sample."""
    window = rate // 200
    loud = np.abs(sound.astype(float))
    peaks = loud[: len(loud) // window * window].reshape(-1, window).max(1)
    silent = np.concatenate([[False], peaks < share * loud.max(), [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]).reshape(-1, 2)
    return [(begin * window / rate, end * window / rate) for begin, end in edges if end - begin >= 3]
