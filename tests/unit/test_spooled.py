"""Answers that lie on disk until their client has taken them."""

import asyncio

from trace_dagster.service import connections, spooled
from trace_dagster.service.spooled import SpooledAnswer


def test_a_client_that_takes_a_little_now_and_then_is_broken_off(monkeypatch):
    monkeypatch.setattr(spooled, "SEND_SECONDS", 0.3)
    answer, ended, taken = SpooledAnswer([b"x" * (8 << 20)]), [], []

    async def send(message):
        await asyncio.sleep(0.05)
        taken.append(len(message.get("body", b"")))

    scope = {"type": "http", connections._SCOPE_KEY: lambda: ended.append("broken off")}
    asyncio.run(answer(scope, None, send))
    assert ended == ["broken off"]
    assert 0 < sum(taken) < 8 << 20
    assert answer._file.closed


def test_a_client_that_takes_all_gets_all():
    answer, taken = SpooledAnswer([b"x" * (3 << 20), b"end"]), []

    async def send(message):
        taken.append(message.get("body", b""))

    asyncio.run(answer({"type": "http"}, None, send))
    assert b"".join(map(bytes, taken)) == b"x" * (3 << 20) + b"end"
    assert answer._file.closed
