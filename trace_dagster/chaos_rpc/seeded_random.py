"""Seeded random numbers that do not depend on the order in which concurrent requests arrive."""

from __future__ import annotations

import json
from hashlib import blake2b
from random import Random

from trace_dagster.chaos_rpc.shapes import Request

REMEMBERED_REQUESTS = 1_000_000


class RequestRandom:
    """A random generator per request, from the seed, the request, and the number of earlier equal requests.

    Therefore a run is repeatable with any timing, and a client that repeats a request gets another draw.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: dict[bytes, int] = {}

    def of_request(self, request: Request) -> Random:
        """Return the generator of a request."""
        question = json.dumps([request.get("method"), request.get("params")], sort_keys=True)
        key = blake2b(question.encode(), digest_size=8).digest()
        if len(self._asked) >= REMEMBERED_REQUESTS and key not in self._asked:
            self._asked.clear()  # some 150 MB; after this the first draws are repeated
        times = self._asked[key] = self._asked.get(key, 0) + 1
        drawn = blake2b(f"chaos-rpc/{self._seed}/{times}/{question}".encode(), digest_size=8).digest()
        return Random(int.from_bytes(drawn))  # noqa: S311  (determinism is the point)
