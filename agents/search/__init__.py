"""Search strategies, and searches as plans."""
