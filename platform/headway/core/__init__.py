"""The leaf vocabulary: errors, time, identity types, settings and ports that every floor above imports."""
