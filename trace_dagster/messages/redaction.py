"""Removes secrets from text: every URL, and the keys, passwords and hosts that this process knows.

Text that others may have written (an engine's output, a node's error) passes :func:`redact` before it leaves the
process: each error of ``errors.py``, each log line and each error that the gateway passes on does so by itself.

A secret is found as it was written, in any letter case, behind any escapes (``%2F``, ``\\u002f``, ``\\/``, ``&#x2f;``),
in base64 and in hex, and also if only a part of it is there because the text was cut.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "[redacted]"
_URL = re.compile(
    r"[a-z][a-z0-9+.-]{1,15}://(?:[^\s\"'<>()\[\]{}/@]*@)?(?:\[[0-9a-f:.]+(?:%[^\s\"'\[\]]+)?\])?[^\s\"'<>)\]}]*", re.I
)
_ESCAPE = re.compile(r"%[0-9a-f]{2}|\\u\{?[0-9a-f]{2,6}\}?|\\x[0-9a-f]{2}|\\[\\/\"']|&#?[0-9a-z]{2,8};", re.I)
_MOST_UNESCAPING = 3
"""Times that a text is unescaped: a URL in JSON in a query string is escaped twice."""

_MIN_SECRET = 6
"""Shorter parts of a URL are words like ``v1``: hiding them would make text unreadable."""

_WORDS = re.compile(r"[a-z]{1,11}(?:\+[a-z]{1,11})*")

_SEED = 8
_STRIDE = 4
"""A piece of a secret is found if it has at least ``_SEED + _STRIDE - 1`` characters."""

_PLAIN_WORDS = frozenset(
    {"arbitrum", "archive", "avalanche", "endpoint", "ethereum", "gateway", "holesky", "mainnet", "network", "optimism"}
    | {"polygon", "premium", "public", "sepolia", "testnet", "transactions"}
)
"""Parts of many providers' URLs that are no secrets, and that our messages contain."""


def protect(secrets: Iterable[str], public: Iterable[str] = ()) -> None:
    """Hide these values, and the parts of those that are URLs, in every text that is redacted from now on.

    ``public`` are names that stay readable even if a secret contains them: the names of RPC pools.
    """
    _known.add(secrets, public)


def redact(text: str) -> str:
    """Return ``text`` with every URL and every known secret replaced."""
    return _replaced(text, _known.index, _URL)


def hide_secrets(text: str) -> str:
    """Return ``text`` with every known secret replaced. Other URLs stay: the text is ours."""
    return _replaced(text, _known.index, None)


def redact_error(error: BaseException) -> None:
    """Redact the texts of an error of another library, and of the errors that led to it, before Dagster stores them."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.args = tuple(redact(value) if isinstance(value, str) else value for value in each.args)
            left += [each.__cause__, each.__context__]


class _View(NamedTuple):
    """A text with its escapes resolved, in lower case, and the span that each character has in the original."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


@dataclass(frozen=True)
class _Index:
    """The known secrets in every form, prepared for the search."""

    short: re.Pattern[str] | None
    seeds: dict[str, list[tuple[str, int]]]
    """Pieces of ``_SEED`` characters, with the forms that contain them and their positions there."""
    names: Sequence[str]
    """The public names, in lower case."""

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of ``text`` that are a secret or a long piece of one."""
        if self.short is not None:
            yield from (found.span() for found in self.short.finditer(text))
        if not self.seeds:
            return
        for start in range(len(text) - _SEED + 1):
            for form, position in self.seeds.get(text[start : start + _SEED], ()):
                first, last = _extended(text, start, form, position)
                if last - first == len(form) or not self._is_a_name(text, first, last):
                    yield first, last

    def _is_a_name(self, text: str, start: int, end: int) -> bool:
        """Return whether a piece of a secret is a public name that stands as a word, and little around it."""
        for name in self.names:
            at = text.find(name, start, end)
            before, after = text[at - 1 : at], text[at + len(name) : at + len(name) + 1]
            is_word = at >= 0 and not before.isalnum() and not after.isalnum()
            if is_word and end - start - len(name) < _SEED:
                return True
        return False


class _KnownSecrets:
    """The secrets of this process. Thread-safe; the index is made again when a secret is added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._public: set[str] = set()
        self._index: _Index | None = None

    @property
    def index(self) -> _Index:
        """The secrets known so far, prepared for the search."""
        with self._lock:
            if self._index is None:
                self._index = _index(self._secrets, self._public)
            return self._index

    def add(self, secrets: Iterable[str], public: Iterable[str]) -> None:
        """Add secrets and public names."""
        wanted, names = set(secrets), set(public)
        with self._lock:
            if not (wanted <= self._secrets and names <= self._public):
                self._secrets |= wanted
                self._public |= names
                self._index = None


_known = _KnownSecrets()


def _index(secrets: Iterable[str], public: Iterable[str]) -> _Index:
    names = [_lower(each) for each in public]
    parts = set(chain.from_iterable(map(_parts, secrets)))
    forms = {form for part in parts for form in _forms(part) if not any(form in name for name in names)}
    short = sorted((re.escape(form) for form in forms if len(form) < _SEED), key=len, reverse=True)
    seeds: dict[str, list[tuple[str, int]]] = {}
    for form in (form for form in forms if len(form) >= _SEED):
        for position in {*range(0, len(form) - _SEED + 1, _STRIDE), len(form) - _SEED}:
            seed = form[position : position + _SEED]
            if not any(seed in name for name in names):
                seeds.setdefault(seed, []).append((form, position))
    return _Index(re.compile("|".join(short)) if short else None, seeds, names)


def _parts(secret: str) -> Iterator[str]:
    """Yield a secret, or if it is a URL the URL and every part of it that may be a secret."""
    if len(secret) < _MIN_SECRET:
        return
    try:
        url = urlsplit(secret) if "://" in secret else None
        hostname = (url.hostname or "") if url else ""
    except ValueError:
        url, hostname = None, ""
    if url is None:
        yield secret
        return
    user, password = url.username or "", url.password or ""
    path = (piece for piece in url.path.split("/") if not _is_plain(piece))
    pieces = [user, password, *path, url.query, url.fragment, *chain.from_iterable(parse_qsl(url.query))]
    if len(unquote(password)) >= _MIN_SECRET:
        pieces.append(f"{unquote(user)}:{unquote(password)}")  # what an Authorization header holds in base64
    if not hostname.startswith("127.") and hostname != "localhost":
        whole = secret
        while not url.query and _is_plain(whole.rpartition("/")[2]) and whole.count("/") > 2:
            whole = whole.rpartition("/")[0]  # its last word alone is no piece of a secret
        pieces += [whole, url.netloc, hostname, *(each for each in hostname.split(".")[:-2] if not each.isalpha())]
    yield from (piece for piece in pieces if len(piece) >= _MIN_SECRET and piece.lower() not in _PLAIN_WORDS)


def _is_plain(piece: str) -> bool:
    """Return whether a part of a path is only short lower-case words, such as ``blocks+receipts``: no key looks so."""
    return _WORDS.fullmatch(piece) is not None


def _forms(part: str) -> Iterator[str]:
    """Yield every form in which a part is searched for: plain, unescaped, base64 at each alignment, hex."""
    for text in {part, unquote(part)}:
        data = text.encode(errors="replace")
        yield _lower(text)
        yield _lower(data.decode("latin-1"))
        yield data.hex()
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
            # the first characters depend on what stands before the secret, the last on what follows it
            stable = encoded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
            if len(stable) >= _MIN_SECRET:
                yield _lower(stable)
                yield _lower(stable.translate(_URLSAFE))


_URLSAFE = str.maketrans("+/", "-_")
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def _lower(text: str) -> str:
    """Return the text in lower case. Only ASCII changes, so that positions stay the same."""
    return text.translate(_LOWER)


def _extended(text: str, start: int, form: str, position: int) -> tuple[int, int]:
    """Return the longest span of ``text`` around a seed that agrees with ``form``."""
    end, form_end = start + _SEED, position + _SEED
    while start and position and text[start - 1] == form[position - 1]:
        start, position = start - 1, position - 1
    while end < len(text) and form_end < len(form) and text[end] == form[form_end]:
        end, form_end = end + 1, form_end + 1
    return start, end


def _replaced(text: str, index: _Index, pattern: re.Pattern[str] | None) -> str:
    spans: list[tuple[int, int]] = []
    for view in _views(text):
        found = index.spans(view.text)
        urls = (each.span() for each in pattern.finditer(view.text)) if pattern else ()
        spans += ((view.starts[start], view.ends[end - 1]) for start, end in chain(found, urls))
    pieces, done = [], 0
    for start, end in _merged(spans):
        pieces += [text[done:start], HIDDEN]
        done = end
    return "".join([*pieces, text[done:]])


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the spans in order, overlapping and touching ones as one."""
    start, end = -1, -1
    for first, last in sorted(spans):
        if first > end:
            if end > start:
                yield start, end
            start, end = first, last
        end = max(end, last)
    if end > start:
        yield start, end


def _views(text: str) -> Iterator[_View]:
    """Yield the text as it is, then with its escapes resolved, as often as there are some."""
    positions = range(len(text) + 1)
    view = _View(_lower(text), positions[:-1], positions[1:])
    yield view
    for _ in range(_MOST_UNESCAPING):
        if not _ESCAPE.search(view.text):
            return
        view = _unescaped(view)
        yield view


def _unescaped(view: _View) -> _View:
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    done = 0
    for found in _ESCAPE.finditer(view.text):
        meant = _lower(_meaning(found[0]))
        pieces += [view.text[done : found.start()], meant]
        starts += [*view.starts[done : found.start()], *[view.starts[found.start()]] * len(meant)]
        ends += [*view.ends[done : found.start()], *[view.ends[found.end() - 1]] * len(meant)]
        done = found.end()
    return _View("".join([*pieces, view.text[done:]]), [*starts, *view.starts[done:]], [*ends, *view.ends[done:]])


def _meaning(escape: str) -> str:
    """Return the text that one escape stands for."""
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    if escape[1] in "ux":
        number = int(escape[2:].strip("{}"), 16)
        return chr(number) if number <= 0x10FFFF else escape
    return escape[1]
