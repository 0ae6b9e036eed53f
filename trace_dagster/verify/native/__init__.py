"""The proof of whole blocks out of their JSON text, compiled: a block that is plainly right is proven here.

It says nothing of a block but that: whatever is wrong, unusual or unknown is left to ``verify/prove.py``, which says
the same of every block this proves, and names what is wrong with the others. Every index is checked or follows from
one that was: the text is an endpoint's.
"""

from threading import Event

ENDING = Event()
"""Set when the process ends: what is not compiled yet is left."""
