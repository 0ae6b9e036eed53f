"""An RPC gateway on loopback: one budget per endpoint, shared fetches, deadlines and retries."""
