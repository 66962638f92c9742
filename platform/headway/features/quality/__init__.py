"""Quality of ingested data: what a source promises, what becomes of batches that break it, and how values shift."""
