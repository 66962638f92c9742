"""Joining label rows with their features, point-in-time: how the work is cut, where it runs, and the rules."""
