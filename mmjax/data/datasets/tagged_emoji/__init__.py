"""The dataset `tagged_emoji`: sentences with tagged names, of which the picture beside them decides one."""
