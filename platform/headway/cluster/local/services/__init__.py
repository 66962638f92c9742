"""One module per embedded service: how it starts and how it says that it is healthy."""
