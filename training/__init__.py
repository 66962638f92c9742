"""Training jobs: spine, ranges, recipe and gates per use case."""
