"""The dataset `emoji_stories`: videos in which emoji act, and a voice says what they do."""
