"""The command line ``trace-lite``. Results go to stdout, messages and progress to stderr.

Each command imports what it needs, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trace_dagster import __version__
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import InvalidInput, TraceError
from trace_dagster.messages.printable import printable_lines
from trace_dagster.messages.redaction import redact

if TYPE_CHECKING:
    from trace_dagster.config.running_stack import StackState
    from trace_dagster.config.settings import Settings

_INTERRUPTED = 130


class _Commands(click.Group):
    """A group that prints an error as one line on stderr and sets the exit code, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.Abort:
            code = _INTERRUPTED
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except click.ClickException as error:
            say(f"{_usage_of(error)}Error: {error.format_message()}")
            code = error.exit_code
        except TraceError as error:
            say(f"error: {error}")
            code = error.exit_code
        except Exception as error:  # a traceback might contain secrets
            code = _unexpected(error)
        sys.exit(code if isinstance(code, int) else 0)


def _usage_of(error: click.ClickException) -> str:
    """Return the lines that click prints above an error in the arguments; click itself would print them unescaped."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n\n" if context else ""


def _unexpected(error: Exception) -> int:
    if os.environ.get("TRACE_DEBUG"):  # read here, because settings may be what failed
        say(redact(traceback.format_exc()))
    say(f"error: unexpected {type(error).__name__}: this is a bug; TRACE_DEBUG=1 shows where")
    return 70


def say(text: str) -> None:
    """Print a message to stderr; control characters from a server's text are escaped."""
    click.echo(printable_lines(text), err=True)


def _settings(*, with_stack: bool = True, level: str = "warning") -> Settings:
    """Read the settings, a single time per command. ``with_stack`` adds the running stack's variables; the process log
    begins at ``level``.
    """
    from trace_dagster.config.process import start_process

    def warn(variable: str, close: str | None) -> None:
        say(f"warning: {variable} is not a known variable" + (f"; did you mean {close}?" if close else ""))

    return start_process(os.environ, level=level, warn=warn, with_stack=with_stack)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="trace-lite")
def main() -> None:
    """Sync an EVM chain into Parquet on your own object store, and query it.

    State lives under TRACE_HOME (default .trace). Start with `trace-lite demo`.
    """


@main.command()
@click.option("--detach", is_flag=True, help="Return when everything is healthy. Stop it with `trace-lite down`.")
def up(detach: bool) -> None:
    """Start Postgres, S3, the devchain, the gateway, the tip follower, the query service and Dagster.

    Ctrl-C stops everything.
    """
    from trace_dagster.lite.stack import Stack, login_link_of

    def announce(state: StackState) -> None:
        say(f"{state.summary()}\nlog in       {login_link_of(state)}   (once, within 10 minutes)")

    stack = Stack(_settings(with_stack=False))
    if detach:
        announce(stack.start_detached(say))
    else:
        stack.run_foreground(say, announce)


@main.command()
def down() -> None:
    """Stop the stack that runs under TRACE_HOME."""
    from trace_dagster.lite.stack import down as end

    say("stopped" if end(_settings().home) else "nothing is running here")


@main.command()
@click.option("--file", "-f", "path", required=True, type=click.Path(path_type=Path), help="A chain_sync YAML.")
@click.option("--wait", is_flag=True, help="Show progress until every range is committed; exit 1 if any failed.")
@click.option("--rebuild", is_flag=True, help="Fetch ranges with other columns or of an older form again.")
def apply(path: Path, wait: bool, rebuild: bool) -> None:
    """Register a chain_sync job. Its ranges are planned and run from then on.

    With --rebuild, columns may change, and rows that an earlier version stored in an older form are replaced: these
    ranges are left out of queries until they are fetched again. Sweep removes the old objects after its grace period.
    """
    from trace_dagster.cli.commands import apply_file, watch

    settings = _settings()
    applied = apply_file(path, settings, say, rebuild=rebuild)
    if wait:
        sys.exit(watch(applied.name, settings, say))


@main.command()
@click.option("--file", "-f", "path", required=True, type=click.Path(path_type=Path), help="A chain_sync YAML.")
@click.option(
    "--sample",
    "sample_blocks",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Blocks to extract per stream, at the start, middle and end of its span.",
)
@click.option("--rebuild", is_flag=True, help="Count also the ranges that `apply --rebuild` would fetch again.")
@click.option("--no-sample", is_flag=True, help="Only count ranges and calls; no rows, bytes and measured hours.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def plan(path: Path, sample_blocks: int, rebuild: bool, no_sample: bool, as_json: bool) -> None:
    """Estimate a chain_sync job: ranges, runs, RPC calls, rows, bytes, hours. Changes nothing.

    Needs the pools' variables, but no running stack. If a stack is running, committed ranges are left out. "as sampled"
    is the time without parallel calls, "at the limit" the time that TRACE_RPC_POOL_<NAME>_RPS allows.
    """
    from trace_dagster.cli.render import print_plan
    from trace_dagster.estimate.estimator import estimate

    found = estimate(path, _settings(), say, sample_blocks=0 if no_sample else sample_blocks, rebuild=rebuild)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_plan(found)


@main.command()
@click.option(
    "--chain",
    "chains",
    type=click.IntRange(min=1),
    multiple=True,
    help="Only this chain id; repeatable. Default: every chain that a job follows.",
)
@click.option(
    "--heartbeat",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Touch this file once a second while the follower works: a health check looks at its age.",
)
def follow(chains: tuple[int, ...], heartbeat: Path | None) -> None:
    """Follow the head of the chains whose jobs say so, until Ctrl-C: `up` runs this as a service.

    Stores each new block that it proves as hot rows, within a fraction of a second. Needs Postgres and the pools, not
    the object store. One process follows a chain at a time; a second one waits until the first one's lease lapses.
    """
    from trace_dagster.cli.follow import run_follower

    run_follower(_settings(level="info"), say, chains, heartbeat)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8480, show_default=True, help="0 picks a free port.")
def serve(host: str, port: int) -> None:
    """Serve SQL queries over HTTP until Ctrl-C. `trace-lite up` runs this as one of its services.

    Needs the registry and a key that may list and read the bucket: TRACE_POSTGRES_URL, TRACE_S3_ENDPOINT,
    TRACE_S3_BUCKET, TRACE_S3_QUERY_ACCESS_KEY_ID and TRACE_S3_QUERY_SECRET_ACCESS_KEY. Callers need a token:
    `trace-lite token new`.
    """
    from trace_dagster.cli.serve import run_service

    run_service(_settings(level="info"), say, host, port)


@main.group()
def token() -> None:
    """Make, list and revoke tokens of the query service, and make login links of its page.

    A token is valid until it expires or is revoked; both act on the next request, and revoking ends its queries. The
    registry keeps only their hashes: a token that is lost cannot be shown again. Needs TRACE_POSTGRES_URL, or the
    running stack.
    """


_dataset_option = click.option(
    "--dataset",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="May read chain_143.*, chain_1.logs or chain_1.erc20_*; repeatable. Default: everything.",
)


@token.command("new")
@click.argument("name")
@_dataset_option
@click.option("--expires", default="90d", show_default=True, help="30d, 12h, 15m, or never.")
@click.option("--queries", "max_queries", type=click.IntRange(min=1), help="Queries that run or wait at a time.")
@click.option("--per-minute", type=click.IntRange(min=1), help="Queries that begin in a minute.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def token_new(
    name: str, patterns: tuple[str, ...], expires: str, max_queries: int | None, per_minute: int | None, as_json: bool
) -> None:
    """Make a token and print it. Datasets that it may not read do not exist for it."""
    from trace_dagster.cli.token import make_token

    make_token(_settings(), say, name, patterns, expires, max_queries, per_minute, as_json=as_json)


@token.command("link")
@click.argument("name", default="page")
@_dataset_option
def token_link(name: str, patterns: tuple[str, ...]) -> None:
    """Make a link that logs a browser in to the page, once. NAME is that of its session (page)."""
    from trace_dagster.cli.token import make_link

    make_link(_settings(), say, name, patterns)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def token_list(as_json: bool) -> None:
    """List tokens, links and sessions, without secrets."""
    from trace_dagster.cli.token import list_tokens

    list_tokens(_settings(), say, as_json=as_json)


@token.command("revoke")
@click.argument("name")
def token_revoke(name: str) -> None:
    """Revoke the token of a name, its links and the sessions that these began."""
    from trace_dagster.cli.token import revoke_token

    revoke_token(_settings(), say, name)


@main.command()
@click.option("--job", help="Only this job: its name or id.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def status(job: str | None, as_json: bool) -> None:
    """Show the progress and the files of every job, and the tip of every chain that is followed.

    Below the tables are the reasons why streams wait or failed, and why windows were not compacted.
    """
    from trace_dagster.cli.commands import (
        read_endpoint_scores,
        read_files,
        read_gateway,
        read_status,
        read_unreliable_methods,
    )
    from trace_dagster.cli.render import (
        endpoint_scores_table,
        files_table,
        gateway_table,
        status_table,
        unreliable_methods_table,
    )
    from trace_dagster.cli.tip import read_tips, tip_table

    settings = _settings()
    found = read_status(settings, job)
    tips = read_tips(settings, found)
    files = read_files(settings, found)
    scores = read_endpoint_scores(settings)
    unreliable = read_unreliable_methods(settings)
    asked = read_gateway(settings, say)
    if as_json:
        endpoints = [asdict(score) for score in scores]
        jobs = [entry.to_json() for entry in found]
        methods = [asdict(each) for each in unreliable]
        lake = [each.to_json() for each in files]
        tip = [each.to_json() for each in tips]
        shown = {"jobs": jobs, "tip": tip, "files": lake, "endpoints": endpoints, "unreliable_methods": methods}
        click.echo(json.dumps({**shown, "gateway": asked}, indent=2))
    else:
        status_table(found)
        tip_table(tips)
        files_table(files)
        endpoint_scores_table(scores)
        unreliable_methods_table(unreliable)
        gateway_table(asked)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def jobs(as_json: bool) -> None:
    """List the applied jobs."""
    from trace_dagster.cli.commands import read_status
    from trace_dagster.cli.render import jobs_table

    found = read_status(_settings(), None)
    if as_json:
        click.echo(json.dumps({"jobs": [entry.headline() for entry in found]}, indent=2))
    else:
        jobs_table(found)


@main.command()
@click.option("--job", required=True, help="Its name or id.")
def pause(job: str) -> None:
    """Pause a job. Ranges under way are finished."""
    from trace_dagster.cli.commands import set_paused

    set_paused(job, _settings(), say, paused=True)


@main.command()
@click.option("--job", required=True, help="Its name or id.")
def resume(job: str) -> None:
    """Resume a paused job."""
    from trace_dagster.cli.commands import set_paused

    set_paused(job, _settings(), say, paused=False)


class _Blocks(click.ParamType[BlockRange]):
    """Parameter type that parses ``FIRST:END`` (end-exclusive) into a BlockRange."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BlockRange:
        start, _, end = str(value).partition(":")
        if not (start.isascii() and start.isdecimal() and end.isascii() and end.isdecimal()):
            self.fail("write two block numbers, FIRST:END, the end exclusive: 1000:2000", param, ctx)
        try:
            return BlockRange(int(start), int(end))
        except InvalidInput:
            self.fail("the end must lie after the first block, and within bigint", param, ctx)


@main.command()
@click.option("--job", required=True, help="Its name or id.")
@click.option("--stream", help="Only this dataset key.")
@click.option("--range", "blocks", type=_Blocks(), help="Only ranges that touch these blocks.")
def retry(job: str, stream: str | None, blocks: BlockRange | None) -> None:
    """Queue failed and dead ranges again, with the full number of attempts."""
    from trace_dagster.cli.commands import requeue

    count = requeue(job, stream, blocks, ("failed", "dead"), _settings())
    say(f"{count} ranges are queued again" if count else "no failed range matches")


@main.command()
@click.option("--job", required=True, help="Its name or id.")
@click.option("--stream", required=True, help="The dataset key.")
@click.option("--range", "blocks", required=True, type=_Blocks(), help="Ranges that touch these blocks.")
def refresh(job: str, stream: str, blocks: BlockRange) -> None:
    """Fetch committed ranges again. If rows or objects differ, a new generation replaces the old one."""
    from trace_dagster.cli.commands import requeue

    count = requeue(job, stream, blocks, ("committed",), _settings())
    say(f"{count} ranges are queued again" if count else "no committed range matches")


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option(
    "--grace-hours",
    type=click.FloatRange(min=0, max=100_000),
    default=24.0,
    show_default=True,
    help="Keep younger objects. Must be longer than the longest range. Running queries of the service keep theirs.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def sweep(dry_run: bool, grace_hours: float, as_json: bool) -> None:
    """Remove objects that no commit needs.

    These are objects of dead attempts and compactions, of replaced generations, and files that a compaction replaced.
    Also deletes entries of the change log that are older than TRACE_CHANGES_DAYS, and of the log of queries that are
    older than TRACE_QUERY_LOG_DAYS.
    """
    from trace_dagster.cli.commands import run_sweep

    swept = run_sweep(_settings(), grace_hours * 3600, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(swept.to_json(), indent=2))
    else:
        for line in swept.lines():
            say(line)


@main.command()
@click.option("--job", help="Its name or id.")
@click.option("--stream", help="Only this dataset key.")
@click.option("--all", "every_job", is_flag=True, help="The streams of every job that follows the head.")
def cold(job: str | None, stream: str | None, every_job: bool) -> None:
    """Commit hot blocks now: every whole range that is final, whatever the job's threshold or cron.

    Their rows stay visible meanwhile. Blocks that are not hot are committed without this.
    """
    from trace_dagster.cli.cold import commit_hot_blocks

    if (job is None) != every_job:
        raise InvalidInput("pass either --job J or --all")
    commit_hot_blocks(_settings(), job, stream, say)


class _WindowBlocks(_Blocks):
    """Parameter type that parses ``START-END``, as partition keys are written, or ``START:END``."""

    name = "START-END"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BlockRange:
        return super().convert(str(value).replace("-", ":", 1), param, ctx)


@main.command()
@click.option("--job", help="Only this job: its name or id.")
@click.option("--stream", help="Only this dataset key.")
@click.option(
    "--window", type=_WindowBlocks(), help="Only the window of these blocks, written as its partition key. Needs --job."
)
@click.option("--dry-run", is_flag=True, help="Show the windows that are due; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def compact(job: str | None, stream: str | None, window: BlockRange | None, dry_run: bool, as_json: bool) -> None:
    """Merge the files of committed ranges into few large ones.

    Compacts every window that is due, whatever its cron, also those that failed and wait. A window is due when all of
    its blocks are committed and a compaction is worth it. Queries give the same rows before and after.

    Exit code: 0 if no due window is left, 1 if one failed, 2 if the named window is not one or not committed wholly, 3
    if one was left because another process compacts it, or because the dataset's compactions have written as much as
    they may.
    """
    from trace_dagster.cli.compaction import compact_windows, exit_code
    from trace_dagster.cli.render import compacted_lines, counting

    with counting("ranges") as progress:
        found = compact_windows(_settings(), job, stream, window, dry_run=dry_run, progress=progress)
    if as_json:
        click.echo(json.dumps({"windows": [each.to_json() for each in found]}, indent=2))
    else:
        for line in compacted_lines(found):
            say(line)
    sys.exit(0 if dry_run else exit_code(found))


@main.command()
@click.option("--job", required=True, help="Its name or id.")
@click.option("--range", "blocks", type=_Blocks(), help="Only ranges that touch these blocks.")
@click.option("--deep", is_flag=True, help="Compare the rows with the chain's nodes too.")
@click.option("--repair", is_flag=True, help="Fetch broken ranges again, and forget damaged hash indexes.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on stdout.")
def verify(job: str, blocks: BlockRange | None, deep: bool, repair: bool, as_json: bool) -> None:
    """Check what is on the object store: objects, rows, coverage, and the hash chain across ranges.

    Exit code: 0 if everything is as committed, 1 if something is not, 3 if something could not be checked.
    """
    from trace_dagster.cli.render import counting, verified_lines
    from trace_dagster.cli.verification import verify_job

    with counting("ranges") as progress:
        verified = verify_job(job, _settings(), blocks, deep=deep, repair=repair, progress=progress)
    if as_json:
        click.echo(
            json.dumps(
                {**verified.report.to_json(), "repaired": verified.repaired, "forgotten": verified.forgotten}, indent=2
            )
        )
    else:
        for line in verified_lines(verified.report, verified.repaired, verified.forgotten):
            say(line)
    sys.exit(1 if verified.report.findings else 3 if verified.report.unchecked else 0)


class _Trusted(click.ParamType[tuple[int, bytes]]):
    """``N:0xHASH``."""

    name = "N:0xHASH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, bytes]:
        number, _, text = str(value).partition(":")
        try:
            found = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            found = b""
        if not (number.isascii() and number.isdecimal()) or len(found) != 32:
            self.fail("write a block number and its hash: 1234:0x followed by 64 hex digits", param, ctx)
        return int(number), found


@main.command()
@click.option("--job", help="Write a statement about this job: its name or id.")
@click.option("--range", "blocks", type=_Blocks(), help="Only these blocks.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the statement. Default: stdout.")
@click.option("--check", "statement", type=click.Path(path_type=Path), help="Check a statement instead of making one.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with the Parquet.")
@click.option("--trusted", type=_Trusted(), help="A block and its hash from a source you trust.")
def certify(
    job: str | None,
    blocks: BlockRange | None,
    out: Path | None,
    statement: Path | None,
    data: Path | None,
    trusted: tuple[int, bytes] | None,
) -> None:
    """Write a statement that a job is complete, or check such a statement against its Parquet.

    `certify --job J --out FILE` writes the statement; `certify --check FILE --data FOLDER --trusted N:0xHASH` needs
    no registry, no object store and no node.
    """
    if (job is None) == (statement is None):
        raise InvalidInput("pass either --job to write a statement, or --check FILE to check one")
    if statement is not None:
        sys.exit(_check_statement(statement, data, trusted))
    from trace_dagster.cli.verification import certify_job
    from trace_dagster.maintenance.certificate import limits

    made = certify_job(str(job), _settings(), blocks)
    text = made.model_dump_json(indent=1)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text + "\n")
        say(f"wrote {out}")
    for line in limits(made):
        say(f"note: {line}")


def _check_statement(path: Path, data: Path | None, trusted: tuple[int, bytes] | None) -> int:
    from trace_dagster.cli.render import counting
    from trace_dagster.maintenance.certificate import limits, read, unanchored
    from trace_dagster.maintenance.certificate_check import check_certificate

    if data is None:
        raise InvalidInput("pass the folder with the Parquet: --data FOLDER")
    found = read(path)
    with counting("ranges") as progress:
        wrong, checked = check_certificate(found, data, trusted, progress(len(found.ranges)))
    for line in wrong:
        say(f"wrong: {line}")
    if not wrong:
        counts = ", ".join(f"{count:,} blocks' {part}" for part, count in checked.items())
        say(f"{found.job} of chain {found.chain_id} is complete and as stated: {counts}")
        if trusted is None:
            say("note: without a trusted block (--trusted N:0xHASH) the rows are only shown to agree with one another")
        elif after := unanchored(found, trusted):
            say(f"note: {after:,} blocks come after the trusted one: its hash does not depend on them")
        for line in limits(found):
            say(f"note: {line}")
    return 1 if wrong else 0


@main.command()
@click.option(
    "--after",
    default="0",
    show_default=True,
    help="Cursor of the last change that you have; 0: from the oldest one kept.",
)
@click.option("--follow", is_flag=True, help="Wait for more changes, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of changes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, on stdout.")
@click.option("--now", is_flag=True, help="Print the cursor of this moment instead.")
def changes(after: str, follow: bool, limit: int | None, as_json: bool, now: bool) -> None:
    """Print what changed in the lake, in one order.

    There is one line for each range that was committed or invalidated, and for each window that was compacted. Each
    line has its cursor.

    To follow the lake, take the cursor of `changes --now`, read the lake, then run `changes --after CURSOR --follow`.
    Exit code 4: changes after the cursor were deleted, or it is of another database; begin again with --now.
    """
    from trace_dagster.cli.changes import cursor_of_now, print_changes

    if now:
        click.echo(cursor_of_now(_settings()))
    else:
        print_changes(_settings(), after, follow=follow, as_json=as_json, limit=limit)


@main.command()
@click.argument("sql")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='As --format json: {"columns": [...], "rows": [[...]], "truncated": false, "snapshot": {...}}.',
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "csv", "arrow", "parquet")),
    help="csv, arrow and parquet have all rows. Default: table, or by the end of --output's name.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file: .csv, .arrow or .parquet.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Maximum number of rows: 1000 without it, at most 10000; for csv, arrow and parquet all.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of $NAME in the SQL: JSON (5, 1.5, true, null, [1, 2]), else a text. The first ? is named 1.",
)
@click.option(
    "--as-of",
    "as_of",
    multiple=True,
    metavar="N|TIME|common",
    help="Rows up to a block, up to the last block not later than a time (2024-05-01T12:00:00Z, or a date), or up to"
    " the lowest last block of the query's relations. Once for each kind; the lowest block decides.",
)
@click.option("--finalized-only", is_flag=True, help="Rows up to the last final block of each chain.")
def query(
    sql: str,
    as_json: bool,
    form: str | None,
    output: Path | None,
    limit: int | None,
    parameters: tuple[str, ...],
    as_of: tuple[str, ...],
    finalized_only: bool,
) -> None:
    """Run one SELECT over everything that is committed, and over the newest blocks of followed chains.

    Tables are named `chain_<id>.<dataset>`, or by dataset alone (`blocks`) if only one chain has it. SHOW ALL TABLES
    lists them, SHOW TABLES only the short names; DESCRIBE shows a table's columns, EXPLAIN a query's plan. A hex text
    such as '0xddf2' means its bytes where it is compared with a binary column, also as the value of a --parameter. A
    query may use 2 GiB of memory. As a table or JSON it may take a minute and have 16 MiB of rows; as csv, arrow or
    parquet it may take an hour and have any number. Only files that can hold rows that the SQL needs are opened:
    conditions on block_number or block_timestamp make a query faster.

    The query service of TRACE_QUERY_URL runs the query, else that of the stack which runs here, else this command.

    For a followed chain, stderr shows its newest, safe and final block, which the relation `heads` has as well, and the
    blocks that a relation lacks. With --json this is the member `snapshot`.
    """
    from trace_dagster.cli.parameters import given
    from trace_dagster.cli.query import Question, form_of, run

    if as_json and form not in {None, "json"}:
        raise InvalidInput(f"--json and --format {form} exclude each other: give one of them")
    form = form_of("json" if as_json else form, output)
    question = Question(sql, form, limit, given(parameters), as_of, finalized_only, output)
    run(question, _settings(), say, is_own_url=bool(os.environ.get("TRACE_QUERY_URL", "").strip()))


@main.command()
def migrate() -> None:
    """Migrate the registry's schema to this version, create the bucket, and try what a sync does with it."""
    from trace_dagster.cli.commands import migrate_registry, prepare_store

    settings = _settings()
    migrate_registry(settings, say)
    prepare_store(settings, say)


@main.command()
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the results and times to this file.")
@click.option("--keep", is_flag=True, help="Keep everything running, for a look at the UI.")
def demo(report: Path | None, keep: bool) -> None:
    """Run everything on a local chain: the real engine, Parquet on S3, SQL, analytics."""
    from trace_dagster.cli.demo import run_demo

    sys.exit(run_demo(_settings(with_stack=False), say, report=report, keep=keep))


@main.command("chaos-rpc")
@click.option(
    "--upstream",
    help="The node's URL. The variable hides it from `ps`.",
)
@click.option("--fork-upstream", help="A node on a fork, for stale_fork.")
@click.option("--port", type=click.IntRange(0, 65535), default=8555, show_default=True, help="0 picks a free port.")
@click.option("--rate", type=float, default=0.01, show_default=True, help="Share of requests to disturb, 0 to 1.")
@click.option("--fault", "faults", multiple=True, help="Only this fault; repeatable. Default: all but stall.")
@click.option("--method", "methods", multiple=True, help="Only answers to this method; repeatable.")
@click.option("--seed", default=1, show_default=True, help="The same seed disturbs the same requests in the same way.")
@click.option("--stall-seconds", type=click.FloatRange(min=0), default=3600.0, show_default=True)
@click.option("--delay-seconds", type=click.FloatRange(min=0), default=2.0, show_default=True)
@click.option("--head", help="A scenario of the node's head, in addition to the faults; --list shows them.")
@click.option("--head-blocks", type=click.IntRange(1), default=3, show_default=True, help="Blocks of the scenario.")
@click.option("--list", "as_list", is_flag=True, help="List the faults and the head scenarios.")
def chaos_rpc(
    upstream: str | None, fork_upstream: str | None, port: int, faults: tuple[str, ...], as_list: bool, **options: Any
) -> None:
    """Run a proxy in front of a node that answers a seeded share of requests wrongly."""
    from trace_dagster.chaos_rpc.faults import FAULTS, USUAL
    from trace_dagster.chaos_rpc.heads import HEADS
    from trace_dagster.chaos_rpc.proxy import ChaosRpc, run_foreground

    if as_list:
        for fault in FAULTS.values():
            click.echo(f"{fault.name:<34}{fault.kind:<11}{fault.description}")
        for scenario in HEADS.values():
            click.echo(f"{scenario.name:<34}{'head':<11}{scenario.description}")
        return
    chaos = _settings().chaos
    upstream = upstream or (chaos.upstream.get_secret_value() if chaos.upstream else None)
    fork_upstream = fork_upstream or (chaos.fork_upstream.get_secret_value() if chaos.fork_upstream else None)
    if not upstream:
        raise InvalidInput("no node is given: pass --upstream URL, or set TRACE_CHAOS_UPSTREAM")
    proxy = ChaosRpc(upstream, faults or USUAL, fork_url=fork_upstream, **options)
    run_foreground(proxy, port, say)


if __name__ == "__main__":
    main()
