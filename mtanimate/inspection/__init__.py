"""The commands `inspect`, `attention` and `models`: what a network computes, as figures and numbers."""
