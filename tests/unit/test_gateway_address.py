"""Where a gateway listens."""

from click.testing import CliRunner

from trace_dagster.gateway.__main__ import main
from trace_dagster.loopback import HOST, bound


def test_a_gateway_listens_on_loopback_unless_it_is_given_an_address(monkeypatch):
    with bound(0) as own, bound(0, "0.0.0.0") as open_to_all:
        assert (own.getsockname()[0], open_to_all.getsockname()[0]) == (HOST, "0.0.0.0")
    monkeypatch.setattr("os.environ", {"TRACE_RPC_POOL_DEV_URL": "http://127.0.0.1:9"})
    for host in ("203.0.113.1", "not a host"):
        done = CliRunner().invoke(main, ["--host", host])
        assert done.exit_code == 1
        assert "this machine has no such IPv4 address" in done.output
