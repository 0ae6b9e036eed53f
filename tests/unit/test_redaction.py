"""The redactor: secrets in every form in which a node, an engine or a library may give them back."""

from __future__ import annotations

import base64
import html
import json
import string
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.errors import InvalidInput, NoAnswer, Unavailable
from trace_dagster.messages import redaction
from trace_dagster.messages.redaction import HIDDEN, protect, redact, redact_error
from trace_dagster.rpc.pools import Endpoint

KEY = "Kf3a2B1c9dE8x7Zq"
PASSWORD = "p@ss/w0rd+Zz"
HOST = "eth-mainnet.g.node.example"
URL = f"https://alice:{quote(PASSWORD, safe='')}@{HOST}/v2/{KEY}?token=T0kenOfTheQuery"


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """Start with no secrets, then protect those of one endpoint of the pool ``mainnet``."""
    monkeypatch.setattr(redaction, "_known", redaction._KnownSecrets())
    protect([URL], public=["mainnet"])


def _base64_in(text: str) -> list[str]:
    return [
        base64.b64encode((lead + text + tail).encode()).decode() for lead in ("", "a", "ab") for tail in ("", "xyz")
    ]


FORMS = {
    "as it is": URL,
    "without its scheme": URL.partition("://")[2],
    "without its user": f"https://{HOST}/v2/{KEY}",
    "another provider's": "wss://other.example/v3/0123456789abcdef",
    "only its key": KEY,
    "only its query value": "T0kenOfTheQuery",
    "only its password": PASSWORD,
    "only its host": HOST,
    "in upper case": URL.upper(),
    "percent-encoded": quote(URL, safe=""),
    "percent-encoded twice": quote(quote(URL, safe=""), safe=""),
    "every character percent-encoded": "".join(f"%{ord(each):02X}" for each in KEY),
    "in json, slashes escaped": json.dumps({"url": URL}).replace("/", "\\/"),
    "in json in json": json.dumps(json.dumps({"url": URL})),
    "in json, unicode escapes": "".join(f"\\u{ord(each):04x}" for each in KEY),
    "as rust prints it": "".join(f"\\u{{{ord(each):x}}}" for each in KEY),
    "in html": html.escape(f'<a href="{URL}&x=1">').replace("/", "&#x2F;"),
    "in html, every character": "".join(f"&#{ord(each)};" for each in KEY),
    "in hex": KEY.encode().hex(),
    "in hex, whole": "0x" + URL.encode().hex(),
    "cut in front": URL[-24:],
    "cut at the end": f"/v2/{KEY}"[:-4],
    "cut on both sides": KEY[2:-2],
    **{f"in base64, {number}": text for number, text in enumerate(_base64_in(URL))},
    **{f"its key in base64, {number}": text for number, text in enumerate(_base64_in(KEY))},
    "in base64 for urls": base64.urlsafe_b64encode(URL.encode()).decode(),
    "as an Authorization header": "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "around", ["{}", 'invalid request "{}"', "a:{} b", "key={}&x", "({})", "error({}): no", "[{}]"]
)
def test_no_form_of_a_secret_passes(form, around):
    text = around.format(FORMS[form])
    safe = redact(text)
    assert HIDDEN in safe
    shown = safe.replace(HIDDEN, "").lower()
    for secret in (KEY, PASSWORD, HOST, "T0kenOfTheQuery", "0123456789abcdef"):
        assert _longest_common(secret.lower(), shown) < 8, safe
    assert redact(safe) == safe


def _longest_common(first: str, second: str) -> int:
    return max(
        (
            end - start
            for start in range(len(first))
            for end in range(start, len(first) + 1)
            if first[start:end] in second
        ),
        default=0,
    )


@pytest.mark.parametrize(
    "text",
    [
        "rpc endpoint mainnet#1 does not answer: check TRACE_RPC_POOL_MAINNET_URL and the node reason=TimeoutError",
        "dataset=transactions range=[0, 10) block=12 expected=0x12ab got=null",
        "the engine failed a request to rpc endpoint standard#2: header not found",
        "100% of 50%; a \\n b \\ c & d; %zz \\u{110000} \\u12",
        "",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert redact(text) == text


def test_a_pools_name_never_cuts_a_url():
    protect(["http://127.0.0.1:8546/t0ken-of-the-gateway/mainnet/1"], public=["mainnet"])
    said = f"mainnet#1: error sending request for url (https://eth-mainnet.g.alchemy.com/v2/{KEY})"
    assert redact(said) == f"mainnet#1: error sending request for url ({HIDDEN})"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("alchemy", "https://eth.g.alchemy.com/v2/KEYabcdef12345"),
        ("alchemy_mainnet", "https://alchemy-mainnet.example.com/alchemy_mainnet0123"),
        ("polygon_archive", "https://polygon-archive.example.com/polygon_archive/key0123456"),
        ("polygon_archive", "http://127.0.0.1:8546/t0ken-of-the-gateway/polygon_archive/1#0123456789abcdef"),
        ("rpcpool", "https://u:rpcpool99@h.rpcpool.com/rpcpool"),
        ("infura", "https://mainnet.infura.io/v3/infura0123456789"),
    ],
)
@pytest.mark.parametrize(
    "text", ["rpc endpoint {}#1 failed", "pool={} range=[0, 1)", "ask at {}/1: no", '{{"pool":"{}"}}', "{}"]
)
def test_a_pools_name_is_readable_whatever_url_holds_it(name, url, text):
    protect([url], public=[name])
    assert redact(text.format(name)) == text.format(name)
    key = url.rpartition("/")[2].rpartition("#")[2]
    assert redact(f"{name}: {url} {key}").count(HIDDEN) >= (1 if key == name else 2)


def test_a_secret_that_begins_with_a_pools_name_is_hidden():
    protect(["https://node.example/v2/alchemy-KEY01"], public=["alchemy"])
    assert redact("alchemy#1 refuses alchemy-KEY01") == f"alchemy#1 refuses {HIDDEN}"


def test_a_pools_name_is_readable_though_it_is_a_part_of_its_url():
    protect(["https://node.example/standard/abcdef0123456789"], public=["standard"])
    assert redact("rpc endpoint standard#1 failed") == "rpc endpoint standard#1 failed"
    assert "abcdef0123456789" not in redact("standard/abcdef0123456789")


def test_an_address_on_loopback_is_no_secret_but_its_url_is_hidden():
    protect(["http://127.0.0.1:8545"])
    assert redact("port 127.0.0.1:8545 of http://127.0.0.1:8545") == f"port 127.0.0.1:8545 of {HIDDEN}"


def test_a_secret_in_a_path_on_loopback_hides_no_other_address_there():
    protect(["http://127.0.0.1:8545/t0ken-of-the-gateway/mainnet/1"])
    assert redact("nothing answers at 127.0.0.1:8480") == "nothing answers at 127.0.0.1:8480"


def test_a_url_with_an_ipv6_host_is_hidden_whole():
    assert redact("to http://[::1]:8545/Key4f3a2b1c, no") == f"to {HIDDEN} no"
    assert redact("to http://bob:x@[fe80::1%25eth0]:8545/Key4f3a2b1c no") == f"to {HIDDEN} no"


@given(
    st.text(string.ascii_letters + string.digits + "-_.~", min_size=12, max_size=40),
    st.text(max_size=30),
    st.text(max_size=30),
    st.sampled_from([str, str.upper, lambda key: quote(key, safe=""), lambda key: key.encode().hex()]),
)
def test_any_key_is_found_anywhere(key, before, after, form):
    redaction._known = redaction._KnownSecrets()
    protect([f"https://node.example/v2/{key}"])
    text = before + form(key) + after
    assert form(key) not in redact(text) or form(key) in before or form(key) in after


def test_an_endpoint_protects_its_url_as_soon_as_it_exists():
    Endpoint("fresh", 1, "https://fresh.example/v1/FreshKey0123456789")
    assert redact("FreshKey0123456789 of fresh#1") == f"{HIDDEN} of fresh#1"


def test_an_error_redacts_its_message_and_facts_and_keeps_the_others():
    error = Unavailable(f"the node said: bad key {KEY}", reason=f"at https://x.example/{KEY}", range=(0, 10), code=5)
    assert str(error) == f"the node said: bad key {HIDDEN} reason=at {HIDDEN} range=(0, 10) code=5"
    assert (error.message, error.facts["range"]) == (f"the node said: bad key {HIDDEN}", (0, 10))
    again = NoAnswer(error.message, **error.facts)
    assert str(again) == str(error)


def test_an_error_about_the_users_input_may_show_a_url_but_no_secret():
    assert "http://127.0.0.1:8545" in str(InvalidInput("X must look like http://127.0.0.1:8545"))
    assert KEY not in str(InvalidInput(f"no pool {KEY}"))


def test_errors_of_other_libraries_are_redacted_with_their_causes():
    def reach():
        try:
            raise KeyError(KEY)
        except KeyError as cause:
            raise ValueError(f"cannot reach {URL}") from cause

    with pytest.raises(ValueError, match="cannot reach") as caught:
        reach()
    redact_error(caught.value)
    assert KEY not in repr(caught.value) + repr(caught.value.__cause__)


def test_long_text_is_redacted_in_little_time():
    text = ("%41&amp;" + KEY[:7] + " ") * 8000
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 5


def test_words_of_a_path_are_no_secrets():
    """The gateway's local URL names what is fetched of each block: errors about receipts must stay readable."""
    gateway = "http://127.0.0.1:8545/tOk3n0123456789/pool/0/blocks+receipts"
    redaction.protect([gateway, "https://node.example/second/rpc-key-9f8e7d"])
    text = "the receipts root of the second block does not come out"
    assert redaction.redact(text) == text
    assert redaction.redact("tOk3n0123456789 rpc-key-9f8e7d") == "[redacted] [redacted]"
