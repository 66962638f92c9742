"""The command line: parses, calls a use-case function, prints; heavy libraries load inside commands."""
