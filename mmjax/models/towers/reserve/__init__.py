"""The towers of MERLOT Reserve (Zellers et al. 2022, arXiv:2201.02639), which read several parts of an example."""
