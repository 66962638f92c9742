"""The gates of a candidate: one module per kind, all of them brought together by `judge`."""
