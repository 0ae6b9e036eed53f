"""The compiled proof: reads whole blocks from their JSON text and recomputes their commitments.

It only accepts blocks. Anything it does not accept is checked again by ``verify/commitments/prove.py``, which produces
the error. The text comes from an endpoint, so every index is checked or follows from one that was checked.

This is our own compiled code because no library goes from JSON text to proven columns: with libraries for JSON, Keccak
and bytes, Python took 0.2 CPU ms per block of five transactions, under one lock for all threads. Compiling only hashes
and tries would have left the larger half of that time, reading members and making objects (ADR 0010).
"""

from threading import Event

ENDING = Event()
"""Set when the process ends. Functions not compiled by then are not compiled any more."""
