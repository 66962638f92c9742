"""Feeds: rows of files, of a database's query, or of its change events, brought into the topic of a source."""
