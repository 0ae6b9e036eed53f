"""A JSON-RPC proxy that answers a seeded share of the requests incorrectly, to test what detects it."""
