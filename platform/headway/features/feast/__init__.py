"""Feast's plug-ins, and the copies that Feast reads. Everything else of the platform's features is beside this room."""
