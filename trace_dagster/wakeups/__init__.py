"""The queue between the outbox and the dispatcher.

A message only wakes the dispatcher. The registry decides which ranges run.
"""
