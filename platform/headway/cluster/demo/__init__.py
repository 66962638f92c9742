"""The demo: a use case's history becomes a model, its later part becomes live traffic, and the contract is the scoreboard."""
