"""Search by meaning, by words or by both, and what is done with its results."""
