"""What users configure: `chain_sync` YAML, environment variables, and the running stack that completes them."""
