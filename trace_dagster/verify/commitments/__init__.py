"""Recomputes a chain's commitments: header hashes, transactions and receipts roots, blooms."""
