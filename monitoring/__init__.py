"""Monitors of the use cases: what is compared, in windows of how many decisions."""
