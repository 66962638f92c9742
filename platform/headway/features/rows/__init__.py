"""Row views online: the newest row of each view, all views of an entity packed into one value per key."""
