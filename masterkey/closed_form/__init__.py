"""Filter banks that are computed rather than trained: scale-space forms, Gaussian draws, random controls."""
