"""Features: definitions, the kernel that evaluates them, and the stores on both sides of it (lake and online)."""
