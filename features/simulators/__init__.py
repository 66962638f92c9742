"""Seeded worlds for use cases without public data."""
