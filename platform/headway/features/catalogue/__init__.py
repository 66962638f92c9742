"""What there is: the registry of definitions, what people read of it, and the page that shows it."""
