"""An RPC gateway: rate limits per endpoint, shared fetches, deadlines and retries."""
