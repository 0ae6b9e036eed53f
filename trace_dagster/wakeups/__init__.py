"""The queue between the outbox and the runs: it only wakes, Postgres decides."""
