"""Files, written whole and read within bounds. Like `mmjax.errors`, for every folder's use."""
