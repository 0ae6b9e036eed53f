"""The query service: SQL over the lake by HTTP, for people, notebooks and programs."""
