"""One example of `emoji_stories`: a story's file, with its words, subtitles, text and labels."""

import json
from itertools import chain
from typing import Any

import numpy as np

from mmjax.data.datasets.emoji_stories.drawing import painted_frames
from mmjax.data.datasets.emoji_stories.narration import FRAME_RATE, SOUND_RATE, narrated, shifted_narration
from mmjax.data.datasets.emoji_stories.stories import Story
from mmjax.data.datasets.emoji_stories.telling import event_label, sentence, story_text, webvtt
from mmjax.data.video_files import video_file


def story_example(story: Story, shifted: bool) -> dict[str, Any]:
    """The example as TFDS takes it. It depends on the arguments alone, not on earlier calls in this process.

    shifted: the sound of a story that is `late` is shifted; `words` and `subtitles` are timed by the sound.

    Raises:
        UserError: PyAV lacks an encoder, or a sentence doesn't fit its event.
        ImportError: a package of the extra `demo` is missing.
    """
    events, names = story.plot.events, story.names
    narration = narrated([sentence(event, names) for event in events], story.lengths, story.voice)
    if shifted and story.late:
        narration = shifted_narration(narration, story.id)
    frames = painted_frames(story.plot, story.emoji, story.lengths, story.tone)
    cues = [(" ".join(w.text for w in words), words[0].start, words[-1].end) for words in narration.sentences]
    return {
        "id": story.id,
        "video": video_file(frames, FRAME_RATE, narration.sound, SOUND_RATE, story.container),
        "words": json.dumps([{"word": w.text, "start": w.start, "end": w.end} for w in chain(*narration.sentences)]),
        "subtitles": webvtt(cues),
        "text": story_text(events, names),
        "events": [event_label(event, names) for event in events],
        "emoji": story.emoji,
        "shift": np.float32(narration.shift),
        "voice": story.voice.voice,
        "novel": np.bool_(story.novel),
    }
