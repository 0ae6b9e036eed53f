"""Transactions beyond types 0 to 4, one module per family of chains."""
