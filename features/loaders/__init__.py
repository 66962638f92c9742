"""Readers of real data sets that ship in packages."""
