"""Proofs of one piece of a block range against the chain's own commitments: pure, no I/O, no clock."""
