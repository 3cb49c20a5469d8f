"""The dataset `described_emoji`: pictures of emoji with descriptions, and dialogues that refer back."""
