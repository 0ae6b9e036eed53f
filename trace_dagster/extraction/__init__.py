"""One block range, piece by piece: endpoint choice, piece size, retries, quorum."""
