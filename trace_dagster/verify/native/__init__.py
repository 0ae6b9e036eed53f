"""The compiled proof: reads whole blocks from their JSON text and recomputes their commitments.

It only accepts blocks. Anything it does not accept is checked again by ``verify/commitments/prove.py``, which produces
the error. The text comes from an endpoint, so every index is checked or follows from one that was checked.
"""

from threading import Event

ENDING = Event()
"""Set when the process ends: what is not compiled yet is left."""
