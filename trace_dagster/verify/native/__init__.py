"""The compiled proof: reads whole blocks from their JSON text and recomputes their commitments.

It only accepts blocks. Anything it does not accept is checked again by ``verify/commitments/prove.py``, which produces
the error. The text comes from an endpoint, so every index is checked or follows from one that was checked.

This is code of our own because no library proves blocks: in Python, over native keccak and JSON, a block of five
transactions took 0.2 CPU ms under one lock for all threads of a run (docs/adr/0010-compiled-proof.md).
"""

from threading import Event

ENDING = Event()
"""Set when the process ends: functions that are not compiled yet are skipped."""
