"""How models are fitted: one module per kind, each with a Ray Train worker and a local fit that share their code."""
