"""The data of MERLOT Reserve (Zellers et al. 2022, arXiv:2201.02639): a window of a video to streams of tokens."""
