"""What a job will cost before it runs: RPC calls, bytes, hours."""
