"""Open Inference Protocol v2 over gRPC: the decisions, checks and limits of HTTP under another wire format."""
