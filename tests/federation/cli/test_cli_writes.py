"""What commands send: flags and files become the API's messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_canned import DECISION_ID, LLAMA, NODES, seconds
from cli_server import Served
from conftest import Run

from federation.cli.failure import ExitCode
from federation.cli.output import plain, plain_set
from federation.v1 import catalog_pb2, fleet_pb2, policy_pb2, routing_pb2, types_pb2


def only(server: Served, kind: type) -> Any:
    """The one request of a kind that was sent."""
    found = server.asked.of(kind)
    assert len(found) == 1, found
    return found[0]


def test_a_node_is_registered_from_flags(run: Run, server: Served):
    result = run(
        "nodes register eu-west-1/gpu-9 --endpoint http://10.0.0.9:8000 --engine sglang --zone eu-west-1b "
        "--accelerator H100 --accelerator-count 4 --privacy-level confidential --price-per-hour 12.5 "
        "--label tier=gold --label team=search --lease 0 --model llama --model qwen --capability generate "
        "--price-input 0.2 --price-output 0.6 --max-concurrency 32 --tenant acme"
    )

    assert result.stdout == "registered eu-west-1/gpu-9  (revision 58, etag n58)\n"
    request = only(server, catalog_pb2.RegisterNodeRequest)
    assert request.node.engine == types_pb2.ENGINE_SGLANG
    assert request.node.privacy_level == types_pb2.PRIVACY_LEVEL_CONFIDENTIAL
    assert request.node.labels == {"tier": "gold", "team": "search"}
    assert request.node.HasField("lease_duration")
    assert request.node.lease_duration == seconds(0)
    assert [each.model_id for each in request.deployments] == ["llama", "qwen"]
    assert request.deployments[1].price_usd_per_million_output_tokens == 0.6
    assert not request.deployments[1].HasField("price_usd_per_million_cached_tokens")
    assert request.deployments[0].tenant_ids == ["acme"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "n.toml",
            'region_id = "eu-west-1"\nnode_id = "gpu-9"\nendpoint = "http://a:1"\nengine = "vllm"\n'
            '[[deployments]]\nmodel_id = "llama"\n',
        ),
        (
            "n.yaml",
            "{region_id: eu-west-1, node_id: gpu-9, endpoint: 'http://a:1', engine: vllm,"
            " deployments: [{model_id: llama}]}",
        ),
        (
            "n.json",
            '{"node": {"region_id": "eu-west-1", "node_id": "gpu-9", "endpoint": "http://a:1", "engine": "TGI"},'
            ' "deployments": [{"model_id": "llama"}]}',
        ),
    ],
)
def test_a_node_is_registered_from_a_file_and_flags_go_first(
    run: Run, server: Served, tmp_path: Path, name: str, text: str
):
    (tmp_path / name).write_text(text)

    result = run("nodes", "register", "-f", str(tmp_path / name), "--zone", "b")

    assert result.exit_code == 0, result.stderr
    request = only(server, catalog_pb2.RegisterNodeRequest)
    assert (request.node.node_id, request.node.zone) == ("gpu-9", "b")
    assert request.node.engine in (types_pb2.ENGINE_VLLM, types_pb2.ENGINE_TGI)
    assert [each.model_id for each in request.deployments] == ["llama"]


def test_a_node_comes_from_stdin(run: Run, server: Served):
    document = json.dumps({"region_id": "eu-west-1", "node_id": "gpu-9", "endpoint": "http://a:1", "engine": "vllm"})

    result = run("nodes", "register", "-f", "-", input=document)

    assert result.exit_code == 0, result.stderr
    assert only(server, catalog_pb2.RegisterNodeRequest).node.node_id == "gpu-9"


def test_replace_takes_the_place_of_the_version_that_stands_there(run: Run, server: Served):
    result = run("nodes register eu-west-1/taken --endpoint http://a:1 --engine vllm --replace")

    assert result.exit_code == 0, result.stderr
    assert [request.node.etag for request in server.asked.of(catalog_pb2.RegisterNodeRequest)] == ["", "n11"]


def nodes_file(path: Path, count: int, *others: dict[str, Any]) -> Path:
    nodes = [
        {"region_id": "eu-west-1", "node_id": f"n{i}", "endpoint": "http://a:1", "engine": "vllm"} for i in range(count)
    ]
    path.write_text("".join(json.dumps(node) + "\n" for node in [*nodes, *others]))
    return path


def test_an_import_sends_five_hundred_in_a_transaction(run: Run, server: Served, tmp_path: Path):
    result = run("nodes", "import", str(nodes_file(tmp_path / "n.jsonl", 1201)))

    assert (result.exit_code, result.stdout) == (0, "registered 1201 of 1201 nodes\n")
    assert [len(request.nodes) for request in server.asked.of(catalog_pb2.RegisterNodesRequest)] == [500, 500, 201]


def test_what_a_list_printed_can_be_imported(run: Run, server: Served, tmp_path: Path):
    (tmp_path / "n.json").write_text(run("nodes", "list", "-o", "json").stdout)

    result = run("nodes", "import", str(tmp_path / "n.json"), "--without-etags")

    assert result.exit_code == 0, result.stderr
    sent = only(server, catalog_pb2.RegisterNodesRequest).nodes
    assert [list(each.deployments) for each in sent] == [list(node.deployments) for node in NODES]
    assert {each.node.etag for each in sent} == {""}


def test_an_import_ends_at_the_first_failure(run: Run, server: Served, tmp_path: Path):
    mars = {"region_id": "mars-1", "node_id": "a", "endpoint": "http://a:1", "engine": "vllm"}

    result = run("nodes", "import", str(nodes_file(tmp_path / "n.jsonl", 501, mars)))

    assert result.exit_code == ExitCode.CONFLICT
    assert "500 nodes were registered before this" in result.stderr
    assert "(NOT_OWNER)" in result.stderr
    assert result.stdout == ""


def test_an_import_that_goes_on_leaves_out_only_what_is_bad(run: Run, server: Served, tmp_path: Path):
    mars = {"region_id": "mars-1", "node_id": "a", "endpoint": "http://a:1", "engine": "vllm"}
    wrong = {"region_id": "eu-west-1", "node_id": "b", "engine": "cuda"}

    result = run(
        "nodes", "import", "--continue-on-error", str(nodes_file(tmp_path / "n.jsonl", 3, mars, wrong)), "-o", "json"
    )

    assert result.exit_code in (ExitCode.USAGE, ExitCode.CONFLICT)
    assert json.loads(result.stdout) == {"registered": 3, "failed": 2}
    assert "left out mars-1/a: 'mars-1/a' is owned by control plane 'mars'" in result.stderr
    assert "left out node 5: " in result.stderr
    assert "engine: 'cuda' is not one of vllm" in result.stderr
    assert "2 nodes were left out" in result.stderr


def test_an_empty_import_is_a_mistake(run: Run, tmp_path: Path):
    (tmp_path / "n.jsonl").write_text("\n")

    assert run("nodes", "import", str(tmp_path / "n.jsonl")).exit_code == ExitCode.USAGE


def test_several_nodes_are_drained_at_once(run: Run, server: Served):
    result = run("nodes", "drain", "eu-west-1/gpu-7", "eu-west-1/gpu-8")

    assert result.stdout.splitlines() == [
        "draining eu-west-1/gpu-7  (revision 11, etag n11)",
        "draining eu-west-1/gpu-8  (revision 11, etag n11)",
    ]
    assert [request.node_id for request in server.asked.of(catalog_pb2.DrainNodeRequest)] == ["gpu-7", "gpu-8"]


def test_a_drain_waits_until_nothing_runs_and_not_longer_than_it_was_told(run: Run):
    idle = run("nodes", "drain", "eu-west-1/gpu-8", "--wait", "10s")
    busy = run("nodes", "drain", "eu-west-1/gpu-7", "--wait", "0")

    assert (idle.exit_code, idle.stderr) == (0, "idle: no routed request is left\n")
    assert busy.exit_code == ExitCode.UNREACHABLE
    assert "requests are still running: eu-west-1/gpu-7 8" in busy.stderr


@pytest.mark.parametrize(
    ("command", "kind", "printed"),
    [
        (
            "nodes undrain eu-west-1/gpu-7",
            catalog_pb2.UndrainNodeRequest,
            "undrained eu-west-1/gpu-7  (revision 11, etag n11)",
        ),
        (
            "nodes deregister eu-west-1/gpu-7",
            catalog_pb2.DeregisterNodeRequest,
            "deregistered eu-west-1/gpu-7  (revision 59)",
        ),
        ("nodes eject eu-west-1/gpu-7 --for 90s", fleet_pb2.EjectNodeRequest, "ejected eu-west-1/gpu-7  (healthy)"),
        ("nodes restore eu-west-1/gpu-7", fleet_pb2.RestoreNodeRequest, "restored eu-west-1/gpu-7  (healthy)"),
        (
            f"deployments drain eu-west-1/gpu-7/{LLAMA}",
            catalog_pb2.DrainDeploymentRequest,
            f"draining eu-west-1/gpu-7/{LLAMA}",
        ),
        (
            f"deployments undrain eu-west-1/gpu-7/{LLAMA}",
            catalog_pb2.UndrainDeploymentRequest,
            f"undrained eu-west-1/gpu-7/{LLAMA}",
        ),
        (f"circuits reset eu-west-1/gpu-7/{LLAMA}", fleet_pb2.ResetCircuitRequest, f"reset eu-west-1/gpu-7/{LLAMA}"),
    ],
)
def test_each_action_says_what_it_did(run: Run, server: Served, command: str, kind: type, printed: str):
    result = run(command)

    assert (result.exit_code, result.stdout) == (0, printed + "\n")
    request = only(server, kind)
    assert (request.region_id, request.node_id) == ("eu-west-1", "gpu-7")
    assert getattr(request, "model_id", LLAMA) == LLAMA


def test_an_ejection_lasts_as_long_as_was_typed(run: Run, server: Served):
    run("nodes", "eject", "eu-west-1/gpu-7", "--for", "1.5m")

    assert only(server, fleet_pb2.EjectNodeRequest).duration == seconds(90)


def test_a_model_is_registered_from_flags(run: Run, server: Served):
    run("models register org/m --family f --context-window 4096 --capability generate --alias m1 --alias m2")

    model = only(server, catalog_pb2.RegisterModelRequest).model
    assert (model.model_id, model.family, model.context_window_tokens) == ("org/m", "f", 4096)
    assert (model.capabilities, model.aliases) == (["generate"], ["m1", "m2"])


def test_a_region_is_put_from_a_file_that_flags_change(run: Run, server: Served, tmp_path: Path):
    (tmp_path / "r.toml").write_text('region_id = "eu-west-1"\nreach = "gateway"\n[round_trips]\nus-east-1 = "82ms"\n')

    run(
        f"regions put -f {tmp_path / 'r.toml'} --ingress https://eu.example:443 --jurisdiction IE --jurisdiction EU "
        "--round-trip ap-1=200ms --latitude 53.3 --status draining"
    )

    region = only(server, catalog_pb2.PutRegionRequest).region
    assert region.reach == types_pb2.REACH_GATEWAY
    assert region.status == types_pb2.REGION_STATUS_DRAINING
    assert region.jurisdictions == ["IE", "EU"]
    assert dict(region.round_trips) == {"us-east-1": seconds(0.082), "ap-1": seconds(0.2)}
    assert region.HasField("latitude")
    assert not region.HasField("longitude")


def test_a_request_is_built_from_flags(run: Run, server: Served):
    run(
        "route -m llama --capability generate --origin eu-west-1/eu-west-1a --tenant acme --session s1 "
        "--privacy confidential --max-ttft 2s --max-latency 1m --max-price 1.5 --min-throughput 20 "
        "--cost-tolerance 80 --input-tokens 900 --output-tokens 0 --only-region eu-west-1 --only-region eu-north-1 "
        "--exclude-region us-east-1 --jurisdiction EU --label app=chat --node-label tier=gold "
        "--allow-substitutes --policy eu-only --alternatives 0 --explain none --exclude-node eu-west-1/gpu-8"
    )

    assert plain_set(only(server, routing_pb2.RouteRequest)) == {
        "model_id": "llama",
        "capability": "generate",
        "origin": {"region_id": "eu-west-1", "zone": "eu-west-1a"},
        "tenant_id": "acme",
        "session_id": "s1",
        "labels": {"app": "chat"},
        "qos": {
            "max_latency": "60s",
            "max_time_to_first_token": "2s",
            "min_throughput": 20.0,
            "privacy_level": "PRIVACY_LEVEL_CONFIDENTIAL",
            "cost_tolerance": 80.0,
            "max_price_usd_per_million_tokens": 1.5,
        },
        "prompt": {"input_tokens": "900", "max_output_tokens": "0"},
        "placement": {
            "only_regions": ["eu-west-1", "eu-north-1"],
            "exclude_regions": ["us-east-1"],
            "jurisdictions": ["EU"],
            "exclude_nodes": ["eu-west-1/gpu-8"],
            "node_labels": {"tier": "gold"},
            "allow_substitutes": True,
        },
        "policy_id": "eu-only",
        "max_alternatives": 0,
        "explain": "EXPLAIN_NONE",
    }


def test_a_request_comes_from_a_file_and_flags_change_it(run: Run, server: Served, tmp_path: Path):
    (tmp_path / "r.yaml").write_text("model_id: llama\nqos: {max_time_to_first_token: 800ms, privacy_level: public}\n")

    run("candidates", "--request", str(tmp_path / "r.yaml"), "--privacy", "restricted")

    request = server.asked.of(routing_pb2.GetCandidatesRequest)[0].request
    assert request.qos.max_time_to_first_token == seconds(0.8)
    assert request.qos.privacy_level == types_pb2.PRIVACY_LEVEL_RESTRICTED
    assert not request.HasField("max_alternatives")


def test_an_outcome_holds_what_was_typed(run: Run, server: Served):
    run(f"outcome {DECISION_ID} --result timeout --attempt 1 --latency 30s --input-tokens 10")

    (told,) = only(server, routing_pb2.ReportOutcomesRequest).outcomes
    assert (told.attempt, told.result) == (1, routing_pb2.OUTCOME_RESULT_TIMEOUT)
    assert told.phase == routing_pb2.OUTCOME_PHASE_FINISHED
    assert told.latency == seconds(30)
    assert not told.HasField("time_to_first_token")
    assert not told.HasField("output_tokens")


def test_a_policy_is_put_as_canonical_json(run: Run, server: Served, tmp_path: Path):
    (tmp_path / "p.toml").write_text('picker = "best"\nmin_score = 0.2\n[weights]\nhealth = 2.0\n')

    result = run("policies", "put", "eu-only", "-f", str(tmp_path / "p.toml"), "--etag", "p9")

    assert result.stdout == "stored eu-only  (revision 10, etag p9)\n"
    request = only(server, policy_pb2.PutPolicyRequest)
    assert request.policy.document_json == '{"min_score":0.2,"picker":"best","weights":{"health":2.0}}'
    assert not request.validate_only


def test_a_dry_run_only_lets_the_server_check(run: Run, server: Served, tmp_path: Path):
    (tmp_path / "p.json").write_text("{}")

    run("policies", "put", "eu-only", "-f", str(tmp_path / "p.json"), "--dry-run")

    assert only(server, policy_pb2.PutPolicyRequest).validate_only


def test_a_document_may_not_hold_what_json_does_not_know(run: Run, tmp_path: Path):
    (tmp_path / "p.toml").write_text("since = 2024-01-01\n")

    result = run("policies", "put", "p", "-f", str(tmp_path / "p.toml"))

    assert result.exit_code == ExitCode.USAGE
    assert "JSON does not know" in result.stderr


def test_a_rollback_stores_the_past_over_what_is_current_now(run: Run, server: Served):
    result = run("policies", "rollback", "eu-only", "4")

    assert result.stdout.startswith("rolled back to revision 4: eu-only  (revision 10")
    policy = only(server, policy_pb2.PutPolicyRequest).policy
    assert (policy.document_json, policy.etag) == ('{"picker":"round_robin"}', "p9")


def test_a_document_can_be_taken_edited_and_put(run: Run, server: Served):
    document = run("policies", "get", "eu-only", "--document").stdout

    result = run("policies", "put", "eu-only", "-f", "-", input=document.replace("best", "hot_cold"))

    assert result.exit_code == 0, result.stderr
    assert json.loads(only(server, policy_pb2.PutPolicyRequest).policy.document_json)["picker"] == "hot_cold"


def test_a_preview_asks_with_the_stored_policy_where_no_file_is_given(run: Run, server: Served):
    run("policies", "preview", "eu-only", "--decisions", "200", "--without-region", "us-east-1")

    request = only(server, policy_pb2.PreviewPolicyRequest)
    assert (request.policy.policy_id, request.max_decisions) == ("eu-only", 200)
    assert request.without_regions == ["us-east-1"]


def test_the_stored_resource_comes_back_as_json(run: Run):
    result = run("nodes register eu-west-1/gpu-9 --endpoint http://a:1 --engine vllm -o json")

    assert json.loads(result.stdout)["etag"] == "n58"
    assert json.loads(result.stdout).keys() == plain(NODES[0]).keys() - {"price_usd_per_hour", "lease_duration"}


def test_watches_print_one_object_a_line_and_end_after_the_count(run: Run):
    catalog = run("watch", "catalog", "--count", "2")
    fleet = run("watch", "fleet", "--count", "2", "-o", "name")

    assert [json.loads(line).get("snapshot_complete_revision") for line in catalog.stdout.splitlines()] == [None, "57"]
    assert fleet.stdout.splitlines()[-2:] == ["ap-northeast-1/gpu-1", "us-east-1/cpu-1"]
