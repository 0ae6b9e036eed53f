"""Proves the rows of one piece of a block range against the chain's commitments.

Nothing here asks a node, the registry or the store: callers pass in rows and evidence. Only ``fast_path.py`` has state:
it loads compiled code in a thread, and waits for it for a few seconds at most.
"""
