"""Other projects' preprocessing of images and texts."""
