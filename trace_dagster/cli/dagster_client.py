"""A client of a running Dagster web server: reload the code location, launch a job, wait for a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from dagster import DagsterRunStatus
from dagster_graphql import (
    DagsterGraphQLClient,
    DagsterGraphQLClientError,
    ReloadRepositoryLocationStatus,
)

from trace_dagster.config.web_password import authorization
from trace_dagster.errors import InvalidInput, Unavailable

LOCATION = "trace_dagster"
_POLL_SECONDS = 0.5

_JOBS_QUERY = """
query Jobs($location: String!) {
  repositoryOrError(repositorySelector: {repositoryLocationName: $location, repositoryName: "__repository__"}) {
    __typename
    ... on Repository { jobs { name } }
  }
}
"""


class DagsterWeb:
    """One Dagster web server; ``password`` is that of its door."""

    def __init__(self, url: str, password: str | None = None) -> None:
        parts = urlsplit(url)
        self._client = DagsterGraphQLClient(
            str(parts.hostname),
            port_number=parts.port,
            use_https=parts.scheme == "https",
            headers=authorization(password),
            path_prefix=parts.path.rstrip("/"),
        )

    def reload(self, expected_jobs: Iterable[str], *, timeout_seconds: float = 60.0) -> None:
        """Reload the definitions and wait until these jobs exist. Raises Unavailable after the timeout."""
        expected = set(expected_jobs)
        answer = _reached(lambda: self._client.reload_repository_location(LOCATION))
        if answer.status != ReloadRepositoryLocationStatus.SUCCESS:
            raise Unavailable("dagster could not reload its definitions: see the code location's error in the UI")
        deadline = time.monotonic() + timeout_seconds
        while not expected <= self._jobs():
            if time.monotonic() > deadline:
                raise Unavailable("dagster does not show the job after a reload", job=",".join(sorted(expected)))
            time.sleep(_POLL_SECONDS)

    def launch(self, job_name: str) -> str:
        """Launch a job; returns the id of its run."""
        return str(_reached(lambda: self._client.submit_job_execution(job_name, repository_location_name=LOCATION)))

    def wait(self, run_id: str, *, timeout_seconds: float = 600.0) -> bool:
        """Wait for a run to end; returns whether it succeeded. Raises Unavailable after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            status = _reached(lambda: self._client.get_run_status(run_id))
            if status in {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}:
                return bool(status == DagsterRunStatus.SUCCESS)
            time.sleep(_POLL_SECONDS)
        raise Unavailable("a Dagster run did not end in time", run_id=run_id, seconds=timeout_seconds)

    def _jobs(self) -> set[str]:
        answer: Any = _reached(lambda: self._client._execute(_JOBS_QUERY, {"location": LOCATION}))
        found = answer["repositoryOrError"]
        return {job["name"] for job in found.get("jobs", ())}


def _reached(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except DagsterGraphQLClientError as error:
        if getattr(error.__cause__, "code", None) == HTTPStatus.UNAUTHORIZED:
            raise InvalidInput("dagster's web server asks for a password: set TRACE_WEB_PASSWORD to it") from error
        raise Unavailable("dagster's web server refused a request", reason=str(error).splitlines()[0][:200]) from error
    except Exception as error:  # the client does not translate errors of requests and gql
        raise Unavailable("dagster's web server does not answer", reason=type(error).__name__) from error
