"""The objective of MERLOT Reserve (Zellers et al. 2022, arXiv:2201.02639), and the sequences that it reads."""
