"""What scripts branch on: one exit code for each class of ends, with the answer on stdout and the reason on stderr."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest
from cli_canned import DECISION_ID
from conftest import Run

from federation.cli.connection import Connection, failure_of
from federation.cli.failure import ExitCode
from federation.edge.errors import FieldViolation, RouteError


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed_port() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("models get llama-8b", ExitCode.OK, ""),
        ("route -m broken", ExitCode.UNEXPECTED, "(INTERNAL)"),
        ("nodes register eu-west-1/x", ExitCode.USAGE, "(INVALID_FIELD)"),
        ("models get nobody", ExitCode.NOT_FOUND, "(MODEL_UNKNOWN)"),
        ("nodes get eu-west-1/nobody", ExitCode.NOT_FOUND, "(NODE_UNKNOWN)"),
        ("explain nothing", ExitCode.NOT_FOUND, "(DECISION_UNKNOWN)"),
        ("outcome nothing --result ok", ExitCode.NOT_FOUND, ""),
        ("--timeout 200ms route -m slow", ExitCode.UNREACHABLE, "(DEADLINE_EXCEEDED)"),
        ("route -m forbidden", ExitCode.DENIED, "(ROLE_MISSING)"),
        ("nodes register eu-west-1/taken --endpoint http://a:1 --engine vllm", ExitCode.CONFLICT, "(NODE_CONFLICT)"),
        ("nodes register mars-1/a --endpoint http://a:1 --engine vllm", ExitCode.CONFLICT, "(NOT_OWNER)"),
        ("models deregister llama-8b", ExitCode.CONFLICT, "(MODEL_IN_USE)"),
        ("route -m full", ExitCode.NOTHING_ELIGIBLE, "(NO_CAPACITY)"),
        ("route -m sick", ExitCode.NOTHING_ELIGIBLE, "(ALL_NODES_UNHEALTHY)"),
        ("route -m late", ExitCode.NOTHING_ELIGIBLE, "(QOS_VIOLATION)"),
        ("route -m secret", ExitCode.NOTHING_ELIGIBLE, "(PRIVACY_VIOLATION)"),
    ],
)
def test_each_end_has_its_exit_code(run: Run, command: str, code: ExitCode, reason: str):
    result = run(command)

    assert result.exit_code == code, result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.output
    if code:
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "command",
    [
        "route",
        "route -m x --max-ttft 2",
        "route -m x --max-ttft -1s",
        "route -m x --privacy top-secret",
        "route -m x --label broken",
        "route -m x --alternatives 17",
        "route --request nowhere.json",
        "nodes get eu-west-1",
        "nodes drain a/b/c",
        "nodes register",
        "nodes register eu-west-1/a --engine cuda",
        "deployments drain eu-west-1/gpu-7",
        "circuits reset eu-west-1",
        "models list -o csv",
        "models list --limit -1",
        "--timeout 0 models list",
        "watch fleet -o yaml",
        "outcome d",
        "unheard-of",
        "db current --database mysql://x",
        "doctor --server nowhere",
        "agent --engine-url ftp://x --region r",
    ],
)
def test_what_cannot_be_meant_is_a_matter_of_usage(run: Run, command: str):
    result = run(command)

    assert result.exit_code == ExitCode.USAGE, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_closed_port_is_unreachable_and_says_how_to_start_a_server(run: Run, closed_port: str):
    result = run("--server", closed_port, "models", "list")

    assert result.exit_code == ExitCode.UNREACHABLE
    assert f"no control plane answers at {closed_port}: " in result.stderr
    assert "refused" in result.stderr
    assert "fairway serve" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_silent_server_is_unreachable_after_the_timeout(run: Run, black_hole: str):
    result = run("--server", black_hole, "--timeout", "300ms", "models", "list")

    assert result.exit_code == ExitCode.UNREACHABLE
    assert f"{black_hole} did not answer within 300 ms" in result.stderr


def test_field_violations_stand_under_the_error_one_a_line(run: Run):
    result = run("nodes", "register", "eu-west-1/x")

    assert result.stderr.splitlines() == [
        "error: the request breaks its rules (INVALID_FIELD)",
        "  node.endpoint: must have a length of 1 at least",
        "  node.engine: must not be 0",
    ]


@pytest.mark.parametrize(
    ("fields", "message", "details"),
    [
        (("weights.cost",), "weights.cost: is wrong", []),
        (("weights.cost", "picker"), "2 fields cannot be used", ["weights.cost: is wrong", "picker: is wrong"]),
    ],
)
def test_violations_that_the_message_tells_too_are_told_once(fields: tuple[str, ...], message: str, details: list[str]):
    violations = tuple(FieldViolation(field, "is wrong") for field in fields)
    told = "; ".join(f"{field}: is wrong" for field in fields)
    problem = RouteError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", told, violations=violations)

    with grpc.insecure_channel("127.0.0.1:1") as channel:
        failure = failure_of(problem, Connection("127.0.0.1:1", 1.0, channel, None, None, None, None))

    assert (str(failure), list(failure.details)) == (message, details)


def test_a_refusal_counts_the_rejections_and_says_where_to_look(run: Run):
    result = run("route", "--model", "late")

    assert result.stderr.splitlines() == [
        "error: no place for late (QOS_VIOLATION)",
        "  rejected: TTFT_BOUND 3",
        "next: `fairway candidates` with the same flags shows each bound beside what was found",
    ]


def test_a_flag_goes_before_the_environment(run: Run, closed_port: str):
    assert run("models", "list", "--server", closed_port).exit_code == ExitCode.UNREACHABLE
    assert run("--server", closed_port, "models", "list").exit_code == ExitCode.UNREACHABLE


def test_an_outcome_that_counted_says_so(run: Run):
    result = run("outcome", DECISION_ID, "--result", "ok", "--latency", "2s", "--ttft", "200ms")

    assert (result.exit_code, result.stdout) == (0, f"taken  {DECISION_ID}\n")
