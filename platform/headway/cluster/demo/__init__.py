"""The demo: a history becomes a model, its later part becomes live traffic, and the contract is the scoreboard."""
