"""Worker processes that read ahead of the training process."""
