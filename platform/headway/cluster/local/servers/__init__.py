"""Programs of our own that run as embedded services, each started as `python -m`."""
