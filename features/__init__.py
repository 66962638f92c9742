"""Feature definitions shared by use cases, with the simulators and loaders of their histories."""
