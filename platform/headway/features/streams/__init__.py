"""Events that arrive as a stream: the port and its drivers, and the processor that feeds lake and online store."""
