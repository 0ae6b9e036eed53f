"""Nodes that imitate other chains, with an encoder of their own.

Blocks come from a seed. Hashes, roots and blooms are computed here from the public descriptions of each chain, without
any code of the product, so that product and node cannot share a mistake. `tests/unit/test_imitated.py` holds the
encoder against real blocks.
"""
