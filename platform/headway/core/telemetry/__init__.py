"""What the platform tells about itself: instruments and their values, and traces in W3C context."""
