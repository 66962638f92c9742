"""Window views: events by key, the scan that makes features of them, hop tiles, and the value that is stored."""
