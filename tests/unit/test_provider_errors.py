"""What providers' errors mean, and what of their words is shown."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.messages import redaction
from trace_dagster.messages.provider_words import MOST_WORDS, cut_at_word, provider_words
from trace_dagster.messages.redaction import HIDDEN, protect
from trace_dagster.rpc.decompression import CompressionError, Decompressor
from trace_dagster.rpc.endpoint_memory import REMEMBERED_SECONDS, EndpointMemory
from trace_dagster.rpc.provider_errors import (
    code_and_text,
    is_about_the_batch,
    is_about_the_plan,
    is_oversized,
    is_refusal,
    lacks_method,
    largest_batch,
    names_the_batch,
    words_in,
)

METHOD, PLAN, BATCH, RATE, SIZE, OTHER = "method", "plan", "batch", "rate", "size", "other"

ERRORS = [
    (METHOD, -32601, "Method not found"),
    (METHOD, -32601, ""),
    (METHOD, -32000, "the method eth_getBlockReceipts does not exist/is not available"),
    (METHOD, -32001, "rpc method is not whitelisted"),
    (METHOD, -32004, "Method not supported"),
    (METHOD, -32600, "Unsupported method: eth_getBlockReceipts on MATIC_MAINNET"),
    (METHOD, -32600, "debug_traceBlockByNumber is not available on the Free tier - upgrade to Pay As You Go"),
    (METHOD, -32000, "trace_block is disabled"),
    (METHOD, -32000, "method disabled"),
    (METHOD, -32603, "method debug_traceBlockByNumber is not supported"),
    (METHOD, None, "this method is only available on paid plans"),
    (METHOD, -32052, "API key is not allowed to access method on this subscription: not in your plan"),
    (PLAN, -32000, "archive data requires a paid plan"),
    (PLAN, -32600, "Historical state is not available on your current plan"),
    (BATCH, -32014, "maximum 10 calls in 1 batch"),
    (BATCH, -32005, "Batched requests are not supported by this server"),
    (BATCH, -32600, "batch too large"),
    (BATCH, -32000, "batch size limit exceeded"),
    (RATE, -32005, "daily request count exceeded, request rate limited"),
    (RATE, 429, "Your app has exceeded its compute units per second capacity. Upgrade your plan"),
    (RATE, -32000, "rate limit reached: upgrade your plan"),
    (SIZE, -32008, "Response is too big"),
    (SIZE, -32003, "response too large"),
    (SIZE, -32000, "response size limit exceeded"),
    (OTHER, -32000, "header not found"),
    (OTHER, -32602, "block range is too wide"),
    (OTHER, -32000, "missing trie node 12ab (path ) state is not available"),
    (OTHER, -32000, "execution reverted: plan not found in range"),
    (OTHER, -32005, "query returned more than 10000 results"),
    (OTHER, -32001, "Receipt not available for 'To' block '30865797'."),
    (OTHER, None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "code", "text"), ERRORS)
def test_errors_mean_what_their_words_say(kind, code, text):
    assert lacks_method(code, text) == (kind == METHOD)
    if kind in {RATE, BATCH, SIZE, OTHER} and "plan not found" not in text:
        assert not is_about_the_plan(text)
    if kind == PLAN:
        assert is_about_the_plan(text)
    assert is_refusal(code, text) == (kind == RATE)
    assert is_oversized(code, text) == (kind == SIZE or text.startswith("batch "))
    assert names_the_batch(code, text) == (kind == BATCH)
    if kind in {BATCH, SIZE}:
        assert is_about_the_batch(code, text)
    if kind in {METHOD, RATE, OTHER} and code != 429:
        assert not is_about_the_batch(code, text)


@pytest.mark.parametrize(
    ("text", "calls", "most"),
    [
        ("maximum 10 calls in 1 batch", 50, 10),
        ("batch of 50 exceeds 20", 50, 20),
        ("batches may hold 100 calls", 50, 25),
        ("at most 10 of them", 50, 25),  # what the number counts is not said
        ("batch", 3, 1),
        ("batch", 2, 1),
        ("batch 0x10 of v1.2", 8, 4),
    ],
)
def test_the_next_batch_is_what_was_said_or_half(text, calls, most):
    assert largest_batch(text, calls) == most


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("a text", (None, "a text")),
        ({"code": -1, "message": "m"}, (-1, "m")),
        ({"code": "-1", "message": None, "error": "e"}, (None, "e")),
        ({"code": True}, (None, "")),
        (["x"], (None, "")),
        (None, (None, "")),
        (7, (None, "")),
    ],
)
def test_an_error_of_any_shape_has_a_code_and_words(error, found):
    assert code_and_text(error) == found


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"code":1,"message":"no such key"}}', "no such key"),
        (b'[{"error":{"message":"first"}},{"error":{"message":"second"}}]', "first"),
        (b'{"message":"Forbidden"}', "Forbidden"),
        (b'\xef\xbb\xbf{"error":"a text."}', "a text"),
        (b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>",
         "502 Bad Gateway nginx"),
        (b"<script>alert(1)</script>  Blocked\r\n\tby a firewall", "Blocked by a firewall"),
        (b"<script>alert(1)", ""),
        (b"{}", ""), (b"[]", ""), (b"7", ""), (b"", ""), (b"a < b and c > d", "a < b and c > d"),
        (b"\x00\xff\x1b[31mred", "\\x00\ufffd\\x1b[31mred"),
        (b"[" * 100_000, "[" * (MOST_WORDS - 3) + "..."),
    ],
)  # fmt: skip
def test_the_words_of_a_body(body, words):
    assert words_in(body) == words


def test_words_are_cut_at_a_word():
    assert cut_at_word("one two three", 13) == "one two three"
    assert cut_at_word("one two three", 12) == "one two..."
    assert cut_at_word("one two three", 10) == "one two..."
    assert cut_at_word("x" * 50, 10) == "xxxxxxx..."
    assert cut_at_word("x " + "y" * 50, 20) == "x " + "y" * 15 + "...", "a text of one word is still shown"


@given(st.text(max_size=600))
def test_any_text_becomes_one_short_line(text):
    words = provider_words(text)
    assert len(words) <= MOST_WORDS
    assert words.isprintable()


def test_a_secret_is_hidden_before_the_words_are_cut(monkeypatch):
    monkeypatch.setattr(redaction, "_known", redaction._KnownSecrets())
    protect(["https://node.example/v2/KEY0123456789abcdef"])
    for before in range(150, 200):
        words = provider_words("w" * before + " https://node.example/v2/KEY0123456789abcdef is wrong")
        assert "KEY0" not in words
        assert "node.example" not in words
    assert provider_words("see https://node.example/v2/KEY0123456789abcdef now") == f"see {HIDDEN} now"


def test_what_was_learned_is_forgotten_after_an_hour():
    now = [0.0]
    memory = EndpointMemory(lambda: now[0])
    memory.note_lacked("one", "eth_getBlockReceipts")
    memory.note_batch("one", 10)
    memory.note_batch("one", 25)
    assert memory.is_lacked("one", "eth_getBlockReceipts")
    assert not memory.is_lacked("one", "eth_getLogs")
    assert not memory.is_lacked("two", "eth_getBlockReceipts")
    assert (memory.batch("one", 50), memory.batch("one", 5), memory.batch("two", 50)) == (10, 5, 50)
    now[0] = REMEMBERED_SECONDS
    assert not memory.is_lacked("one", "eth_getBlockReceipts")
    assert memory.batch("one", 50) == 50


def raw(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@given(
    st.binary(max_size=3000),
    st.sampled_from([("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw)]),
    st.integers(1, 50),
)
def test_what_is_packed_comes_out_whole_in_any_parts(data, way, step):
    name, pack = way
    packed = pack(data)
    unpacker = Decompressor(name, 10_000)
    found = b"".join(unpacker.feed(packed[start : start + step]) for start in range(0, len(packed), step))
    unpacker.end()
    assert found == data


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.integers(1, 50))
def test_any_bytes_are_unpacked_within_the_limit_or_refused(data, name, step):
    unpacker = Decompressor(name, 1000)
    try:
        found = [unpacker.feed(data[start : start + step]) for start in range(0, len(data), step)]
        unpacker.end()
    except CompressionError:
        return
    assert sum(map(len, found)) <= 1001


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw])
def test_a_bomb_gives_one_byte_more_than_the_limit(pack):
    unpacker = Decompressor("deflate", 1000)
    packed = pack(bytes(10_000_000))
    found = [unpacker.feed(packed[start : start + 500]) for start in range(0, len(packed), 500)]
    assert unpacker.size == sum(map(len, found)) == 1001
