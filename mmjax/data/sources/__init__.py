"""Sources: records of a dataset by number, wherever they are stored."""
