"""One block range from claim to commit."""
