"""The queue between the outbox and the dispatcher. A message only wakes; the registry decides what is done."""
