"""An RPC gateway on loopback: rate limits per endpoint, shared fetches, deadlines and retries."""
