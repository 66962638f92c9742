"""From a pinned snapshot to a signed, registered version: recipe, evaluation, gates, pipeline."""
