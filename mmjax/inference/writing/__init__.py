"""The methods of a loaded model that write, and captions of a folder."""
