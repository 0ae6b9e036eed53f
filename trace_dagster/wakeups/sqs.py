"""The queue on Amazon SQS or a server with the same protocol. Two standard queues: messages, and dead messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.loopback import on_loopback
from trace_dagster.store.credentials import CredentialSource, credential_error
from trace_dagster.wakeups.driver import MAX_DELIVERIES, Delivery

_BATCH_ENTRIES = 10
_BATCH_BYTES = 256 * 1024
_MAX_HIDDEN_SECONDS = 43_200

_NO_QUEUE = {"NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"}
_BUSY = {"RequestThrottled", "Throttling", "ThrottlingException", "KmsThrottled", "OverLimit"}
_REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignatureException",
    "KmsAccessDenied",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_OUTDATED = {"ReceiptHandleIsInvalid", "InvalidParameterValue", "InvalidIdFormat", "MessageNotInflight"}
"""SQS's error codes for a receipt that is not of the last delivery, or for a time beyond its limit of 12 hours."""

_Entry = dict[str, Any]
_Call = Callable[..., Any]


class SqsQueueDriver:
    """:class:`~trace_dagster.wakeups.driver.QueueDriver` over two standard queues. Thread-safe.

    Every method raises Unavailable if the server does not answer or is too busy, and InvalidInput if it refuses the
    credentials or has no such queue.
    """

    def __init__(
        self,
        queue_url: str,
        dead_queue_url: str,
        *,
        endpoint: str | None,
        region: str,
        credentials: CredentialSource,
    ) -> None:
        """Check the settings; send nothing yet. ``endpoint`` is a URL, or None for AWS. Raises InvalidInput."""
        _require_two_queues(queue_url, dead_queue_url)
        self._queue_url = queue_url
        self._dead_queue_url = dead_queue_url
        self._client = _client(endpoint, region, credentials)

    def publish(self, bodies: Sequence[str]) -> None:
        """Enqueue in batches. Raises InvalidInput if SQS refuses a body: too long, or with control characters."""
        for entries in _batches(bodies):
            _raise_failed(_send(self._client.send_message_batch, self._queue_url, entries))

    def receive(self, limit: int, *, visibility_seconds: float) -> list[Delivery]:
        """Return up to ``limit`` messages and hide them for whole seconds, from 0 to 12 hours.

        Exhausted messages are moved to the dead queue. The call waits a second if there are no messages. After an
        error, messages that were already received are returned, because SQS counts them as delivered; the next call
        raises the error.
        """
        found: list[Delivery] = []
        moved = 0
        while len(found) < limit and moved < max(limit, _BATCH_ENTRIES):
            try:
                received = self._received(limit - len(found), visibility_seconds, wait=not found and not moved)
                if not received:
                    break
                found += [_delivery(message) for message in received if not _is_exhausted(message)]
                moved += self._move_to_dead([message for message in received if _is_exhausted(message)])
            except TraceError:
                if not found:
                    raise
                break
        return found

    def ack(self, receipts: Sequence[str]) -> None:
        """Delete the messages of these deliveries."""
        self._change(self._client.delete_message_batch, receipts)

    def nack(self, receipts: Sequence[str], *, delay_seconds: float) -> None:
        """Make messages visible again after the delay, in whole seconds.

        SQS refuses a time that ends more than 12 hours after the delivery. Such a message keeps its present timeout.
        """
        self.extend(receipts, visibility_seconds=delay_seconds)

    def extend(self, receipts: Sequence[str], *, visibility_seconds: float) -> None:
        """Hide messages for the given time from now, in whole seconds, at most 12 hours (a limit of SQS)."""
        self._change(
            self._client.change_message_visibility_batch,
            receipts,
            VisibilityTimeout=_hidden_seconds(visibility_seconds),
        )

    def dead(self) -> int:
        """Return the approximate number of dead messages: SQS takes up to a minute to count new ones."""
        with _mapped():
            answer = self._client.get_queue_attributes(
                QueueUrl=self._dead_queue_url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _received(self, wanted: int, visibility_seconds: float, *, wait: bool) -> list[_Entry]:
        with _mapped():
            answer = self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(wanted, _BATCH_ENTRIES),
                VisibilityTimeout=_hidden_seconds(visibility_seconds),
                # Without a wait SQS asks only some of its servers, so an empty answer would not mean an empty queue.
                WaitTimeSeconds=1 if wait else 0,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        return list(answer.get("Messages", ()))

    def _move_to_dead(self, messages: Sequence[_Entry]) -> int:
        """Copy messages to the dead queue, then delete them. A crash in between duplicates some and loses none."""
        for entries in _batches([message["Body"] for message in messages]):
            answer = _send(self._client.send_message_batch, self._dead_queue_url, entries)
            self.ack([messages[int(copied["Id"])]["ReceiptHandle"] for copied in answer.get("Successful", ())])
            _raise_failed(answer)
        return len(messages)

    def _change(self, call: _Call, receipts: Sequence[str], **fields: object) -> None:
        # A server may refuse the whole batch because of an empty or repeated receipt; moto does for a repeated one.
        known = [receipt for receipt in dict.fromkeys(receipts) if receipt]
        for start in range(0, len(known), _BATCH_ENTRIES):
            batch = known[start : start + _BATCH_ENTRIES]
            entries = [{"Id": str(number), "ReceiptHandle": receipt, **fields} for number, receipt in enumerate(batch)]
            _raise_failed(_send(call, self._queue_url, entries), ignored=_OUTDATED)


def _client(endpoint: str | None, region: str, credentials: CredentialSource) -> Any:
    if endpoint is not None and not _is_http_url(endpoint):
        raise InvalidInput("TRACE_SQS_ENDPOINT must look like http://127.0.0.1:9324 (value not shown)")
    try:
        return credentials.client(
            "sqs",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 4},
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=32,
                proxies={} if on_loopback(endpoint) else None,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(
            "the queue's client cannot be created: check the region and TRACE_SQS_ENDPOINT", reason=type(error).__name__
        ) from None


def _require_two_queues(queue_url: str, dead_queue_url: str) -> None:
    if not (_is_http_url(queue_url) and _is_http_url(dead_queue_url)):
        raise InvalidInput(
            "TRACE_SQS_QUEUE_URL and TRACE_SQS_DEAD_QUEUE_URL must look like "
            "https://sqs.eu-west-1.amazonaws.com/123456789012/name (values not shown)"
        )
    if queue_url == dead_queue_url:
        raise InvalidInput(
            "dead messages need a queue of their own: TRACE_SQS_DEAD_QUEUE_URL and TRACE_SQS_QUEUE_URL are the same"
        )
    if queue_url.endswith(".fifo") or dead_queue_url.endswith(".fifo"):
        raise InvalidInput(
            "FIFO queues are not supported: name standard queues in TRACE_SQS_QUEUE_URL and TRACE_SQS_DEAD_QUEUE_URL"
        )


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.username
    except ValueError:
        return False


def _batches(bodies: Sequence[str]) -> Iterator[list[_Entry]]:
    """Entries within the limits of one request; the Id is the body's index."""
    entries: list[_Entry] = []
    size = 0
    for index, body in enumerate(bodies):
        length = len(body.encode(errors="replace"))
        if entries and (len(entries) == _BATCH_ENTRIES or size + length > _BATCH_BYTES):
            yield entries
            entries, size = [], 0
        entries.append({"Id": str(index), "MessageBody": body})
        size += length
    if entries:
        yield entries


def _is_exhausted(message: _Entry) -> bool:
    return int(message["Attributes"]["ApproximateReceiveCount"]) > MAX_DELIVERIES


def _delivery(message: _Entry) -> Delivery:
    return Delivery(message["Body"], message["ReceiptHandle"], int(message["Attributes"]["ApproximateReceiveCount"]))


def _hidden_seconds(seconds: float) -> int:
    """Round up to whole seconds, so that a message is never visible too early."""
    return math.ceil(min(max(seconds, 0.0), _MAX_HIDDEN_SECONDS))


def _send(call: _Call, queue_url: str, entries: Sequence[_Entry]) -> _Entry:
    with _mapped():
        answer: _Entry = call(QueueUrl=queue_url, Entries=entries)
    return answer


def _raise_failed(answer: _Entry, *, ignored: Collection[str] = ()) -> None:
    """Raise the first error of a batch. SQS answers a batch with 200 even if entries failed."""
    for failed in answer.get("Failed", ()):
        code = _bare(failed.get("Code"))
        if code in ignored:
            continue
        error = _meaning(code, None)
        if failed.get("SenderFault") and isinstance(error, Unavailable) and code not in _BUSY:
            raise InvalidInput("the queue refuses a message: look up the code in Amazon SQS's documentation", code=code)
        raise error


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _bare(error.response.get("Error", {}).get("Code"))
        # Not chained, here and below: botocore's texts quote URLs and request headers.
        raise _meaning(code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")) from None
    except BotoCoreError as error:
        raise credential_error(error) or Unavailable(
            "the queue does not answer: check TRACE_SQS_ENDPOINT and the region, or that its server is running",
            reason=type(error).__name__,
        ) from None


def _bare(code: object) -> str:
    """Return an error code without its namespace, such as ``com.amazonaws.sqs#`` or ``AWS.SimpleQueueService.``."""
    return str(code or "").rpartition("#")[2].rpartition(".")[2]


def _meaning(code: str, status: int | None) -> TraceError:
    if code in _BUSY:
        return Unavailable("the queue is too busy: try again later", code=code)
    if code in _NO_QUEUE:
        return InvalidInput(
            "the queue does not exist: create it, or check TRACE_SQS_QUEUE_URL and TRACE_SQS_DEAD_QUEUE_URL"
        )
    if code in _REFUSED or status in {401, 403}:
        return InvalidInput(
            "the queue refuses these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and their rights",
            code=code,
        )
    return Unavailable("the queue failed a request", code=code or status)
