"""The benchmark suite: data sets with exact neighbours, cases, raw results on disk, and what is computed from them."""
