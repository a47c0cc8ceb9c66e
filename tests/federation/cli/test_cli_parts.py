"""The parts that turn what people type into values, and values into what people read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cli_canned import NODES, seconds

from federation.cli import figures
from federation.cli.documents import fill, load, node_documents, node_request
from federation.cli.failure import Failure
from federation.cli.options import Remote, pairs, split_deployment, split_node
from federation.cli.output import plain
from federation.cli.table import BAR_WIDTH, bar
from federation.v1 import types_pb2


@pytest.mark.parametrize(
    ("typed", "found"),
    [("250ms", 0.25), ("2s", 2.0), ("1.5m", 90.0), ("1h", 3600.0), ("2d", 172_800.0), ("0", 0.0), (" 5s ", 5.0)],
)
def test_a_duration_is_a_number_with_a_unit(typed: str, found: float):
    assert figures.seconds_of(typed) == pytest.approx(found)


@pytest.mark.parametrize("typed", ["", "5", "-1s", "1 s", "s", "1w", "nan", "1e3s", "१s٣"])
def test_anything_else_is_no_duration_and_says_how_to_write_one(typed: str):
    with pytest.raises(ValueError, match="250ms, 2s or 1m"):
        figures.seconds_of(typed)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.0213, "21 ms"),
        (0.18, "180 ms"),
        (0.9996, "1 s"),
        (4.21, "4.2 s"),
        (42.0, "42 s"),
        (150.0, "2 m"),
        (7200.0, "2 h"),
        (400_000.0, "5 d"),
        (-0.02, "-20 ms"),
    ],
)
def test_a_duration_reads_with_the_digits_that_matter(value: float | None, text: str):
    assert figures.duration(value) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [(None, "-"), (0, "$0"), (12.5, "$12.50"), (1234.5, "$1,234.50"), (0.0031, "$0.0031"), (0.00031, "$0.00031")],
)
def test_money_keeps_the_digits_of_a_cheap_request(usd: float | None, text: str):
    assert figures.money(usd) == text


def test_what_is_unknown_is_never_told_as_zero():
    health = types_pb2.Deployment()

    assert figures.optional(health, "max_concurrency") is None
    assert figures.count(None) == figures.share(None) == figures.duration(None) == figures.UNKNOWN
    assert figures.quantity(None, "s") == "unknown"


def test_json_tells_zeros_and_leaves_out_what_is_unknown():
    told = plain(types_pb2.Node(region_id="r", node_id="n"))

    assert told["accelerator_count"] == 0
    assert "price_usd_per_hour" not in told


@pytest.mark.parametrize(("value", "filled"), [(0.0, 0), (1.0, BAR_WIDTH), (-3.0, 0), (7.0, BAR_WIDTH)])
def test_a_bar_keeps_its_width_whatever_the_value(value: float, filled: int):
    assert len(bar(value)) == BAR_WIDTH
    assert bar(value).count("█") == filled


def test_names_are_split_at_the_first_slashes_since_models_have_some():
    assert split_node("eu-west-1/gpu-7") == ("eu-west-1", "gpu-7")
    assert split_deployment("eu-west-1/gpu-7/meta-llama/Llama-3") == ("eu-west-1", "gpu-7", "meta-llama/Llama-3")
    for wrong in ("eu-west-1", "a/", "/b", "a/b/c"):
        with pytest.raises(Failure, match="write region/node"):
            split_node(wrong)
    with pytest.raises(Failure, match="region/node/model"):
        split_deployment("a/b")


def test_pairs_need_an_equals_sign_and_may_hold_more_of_them():
    assert pairs(["a=1", "b=x=y", "c="], "--label") == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(Failure, match="--label 'tier': write key=value"):
        pairs(["tier"], "--label")


def test_a_scheme_or_a_certificate_asks_for_tls():
    assert not Remote("127.0.0.1:1").secure
    assert Remote("grpcs://cp.example:443").secure
    assert Remote("grpcs://cp.example:443").address == "cp.example:443"
    assert Remote("127.0.0.1:1", tls_ca=Path("ca.pem")).secure


NODE = {
    "region_id": "eu-west-1",
    "node_id": "gpu-7",
    "endpoint": "http://10.0.0.7:8000",
    "engine": "vllm",
    "privacy_level": "restricted",
    "lease_duration": "1m",
    "labels": {"tier": "gold"},
    "deployments": [{"model_id": "llama", "profile": {"min_time_to_first_token": "80ms"}}],
}


def test_a_document_may_use_the_words_that_people_use():
    request = node_request(NODE, "node.yaml")

    assert request.node.engine == types_pb2.ENGINE_VLLM
    assert request.node.privacy_level == types_pb2.PRIVACY_LEVEL_RESTRICTED
    assert request.node.lease_duration == seconds(60)
    assert request.deployments[0].profile.min_time_to_first_token == seconds(0.08)
    assert not request.node.deployments


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.node_id)
def test_what_get_prints_can_be_registered_again(node: types_pb2.Node):
    request = node_request(plain(node), "stdin")

    assert list(request.deployments) == list(node.deployments)
    assert request.node.labels == node.labels
    assert request.node.etag == node.etag
    assert not request.node.draining
    assert not request.node.lease_expired
    assert request.node.revision == 0


def test_a_document_is_refused_with_all_that_is_wrong_and_where():
    wrong = {
        "regoin_id": "x",
        "engine": "vlm",
        "lease_duration": "soon",
        "labels": ["a"],
        "deployments": [{"model_id": "m", "status": "redy"}, 3],
    }

    with pytest.raises(Failure) as caught:
        fill(types_pb2.Node(), wrong, "node.toml")

    assert caught.value.message == "node.toml does not describe a Node"
    lines = "\n".join(caught.value.details)
    assert "regoin_id: no such field; did you mean region_id?" in lines
    assert "engine: 'vlm' is not one of vllm, sglang" in lines
    assert "lease_duration: 'soon' is not a duration" in lines
    assert "labels: must be a mapping, not a list" in lines
    assert "deployments[0].status: 'redy' is not one of" in lines
    assert "deployments[1]: must be a mapping with fields, not int 3" in lines


def test_a_value_of_the_wrong_kind_is_a_matter_of_usage():
    with pytest.raises(Failure, match="does not describe a Node"):
        fill(types_pb2.Node(), {"accelerator_count": "many"}, "x")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.toml", '[[nodes]]\nnode_id = "a"\n[[nodes]]\nnode_id = "b"\n'),
        ("n.yaml", "nodes:\n- node_id: a\n- node_id: b\n"),
        ("n.yml", "- node_id: a\n- node_id: b\n"),
        ("n.json", '{"nodes": [{"node_id": "a"}, {"node_id": "b"}]}'),
        ("n.jsonl", '{"node_id": "a"}\n\n{"node_id": "b"}\n'),
    ],
)
def test_many_nodes_may_stand_in_any_of_the_forms(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)

    assert node_documents(tmp_path / name) == [{"node_id": "a"}, {"node_id": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.txt", b"a", "no known suffix"),
        ("n.json", b"{", "is not JSON"),
        ("n.toml", b"a = ", "is not TOML"),
        ("n.yaml", b"a: [", "is not YAML"),
        ("n.jsonl", b'{"a": 1}\n{', "line 2 is not JSON"),
        ("n.yaml", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(Failure, match=message):
        load(tmp_path / name)


def test_a_missing_file_is_named():
    with pytest.raises(Failure, match=r"cannot read nowhere\.toml: No such file"):
        load(Path("nowhere.toml"))


def test_quantities_read_in_the_unit_of_their_term():
    assert figures.quantity(0.184, "s") == "184 ms"
    assert figures.quantity(21.0, "ms") == "21 ms"
    assert figures.quantity(84.2, "tokens/s") == "84 tok/s"
    assert figures.quantity(0.5, "") == "0.5"
    assert figures.quantity(3.0, "hops") == "3 hops"
    assert not math.isnan(float(figures.share(0.004).rstrip("%")))
