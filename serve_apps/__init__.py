"""Serve applications, one package per use case: contract, fallback rules, and the application itself."""
