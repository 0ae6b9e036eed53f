"""A JSON-RPC proxy that answers a seeded share of the requests wrongly, to see what notices."""
