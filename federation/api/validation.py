"""What a request must satisfy before anything is done with it.

The rules of single fields stand in the protos and are checked by protovalidate; here stand those that need more than
one field, or settings, or the catalog. All violations of a request are told at once, each with the way out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import protovalidate
from google.protobuf.message import Message

from catalog.errors import NotOwner
from federation.api.errors import InvalidFields
from federation.v1 import catalog_pb2, routing_pb2, types_pb2, validate_pb2

Violation = tuple[str, str]

_validator = protovalidate.Validator()
MAX_SHOWN_CHARACTERS = 80

ID_WORDS = "lower-case letters, digits, '-', '.' and '_', beginning and ending with a letter or digit"
MODEL_ID_WORDS = "letters, digits, '-', '.', '_', '/' and ':', beginning and ending with a letter or digit"
# Regular expressions say it to programs; this says it to people.
PATTERN_WORDS = {
    "^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$": f"must be made of {ID_WORDS}",
    "^[A-Za-z0-9]([-A-Za-z0-9._/:]*[A-Za-z0-9])?$": f"must be made of {MODEL_ID_WORDS}",
    "^[A-Z0-9][-A-Z0-9_]{0,31}$": "must be capitals, digits, '-' and '_' (\"DE\", \"EU\"), 32 characters at most",
}
CAPABILITY_WORDS = (
    "must be one of transcribe, synthesize, generate, code, embed, image_gen, rerank, classify, or custom:<name>"
)


def check(message: Message) -> None:
    """Raises InvalidFields with every rule of the protos that the message breaks."""
    if type(message) is _REQUEST and sound(message):
        return
    violations = field_violations(message)
    if violations:
        raise InvalidFields(*violations)


def field_violations(message: Message) -> list[Violation]:
    """Every rule of the protos that the message breaks, as (path, what is wrong)."""
    found = [_told(violation) for violation in _validator.collect_violations(message)]
    if "\0" in getattr(message, "request_id", ""):
        found.append(("request_id", "holds a NUL character, which databases do not store; leave it out"))
    return found


def sound(request: routing_pb2.RouteRequest) -> bool:
    """Whether a request plainly keeps every rule of the protos; where it is False, `field_violations` has to look.

    The rules of a RouteRequest are bounds of its own fields, which are compared here in a sixth of the time that
    evaluating the protos' rules takes; the parts that gateways send again and again are remembered by their bytes.
    """
    has, request_id, model_id, capability = request.HasField, request.request_id, request.model_id, request.capability
    if not (
        (model_id or capability)
        and len(model_id) <= MODEL_ID
        and len(capability) <= CAPABILITY
        and len(request_id) <= REQUEST_ID
        and "\0" not in request_id
        and len(request.adapter) <= ADAPTER
        and len(request.tenant_id) <= TENANT_ID
        and len(request.session_id) <= SESSION_ID
        and len(request.policy_id) <= POLICY_ID
        and PRIORITY[0] <= request.priority <= PRIORITY[1]
        and ALTERNATIVES[0] <= request.max_alternatives <= ALTERNATIVES[1]
        and HOPS[0] <= request.hops <= HOPS[1]
        and request.explain in EXPLAINS
        and not request.labels
    ):
        return False
    if has("prompt") and not _sound_prompt(request.prompt):
        return False
    return (
        (not has("origin") or _sound_part(request.origin))
        and (not has("qos") or _sound_part(request.qos))
        and (not has("placement") or _sound_part(request.placement))
    )


def sound_own(request_id: str, session_id: str, prompt: routing_pb2.PromptShape | None) -> bool:
    """Whether the parts that each request has of its own plainly keep their rules."""
    return (
        len(request_id) <= REQUEST_ID
        and "\0" not in request_id
        and len(session_id) <= SESSION_ID
        and (prompt is None or _sound_prompt(prompt))
    )


def _sound_prompt(prompt: routing_pb2.PromptShape) -> bool:
    return (
        TOKENS[0] <= prompt.input_tokens <= TOKENS[1]
        and ANSWER[0] <= prompt.max_output_tokens <= ANSWER[1]
        and BLOCK[0] <= prompt.prefix_block_tokens <= BLOCK[1]
        and len(prompt.prefix_hashes) <= MAX_HASHES
    )


def _sound_part(part: Message) -> bool:
    kind: Any = type(part)
    return _is_sound(kind, part.SerializeToString(deterministic=True))


@lru_cache(1_024)
def _is_sound(kind: Any, encoded: bytes) -> bool:
    # Larger ones would fill memory with what one caller says once.
    return len(encoded) <= 512 and not _validator.collect_violations(kind.FromString(encoded))


def _rules(kind: type[Message], name: str) -> Any:
    extensions: Any = kind.DESCRIPTOR.fields_by_name[name].GetOptions().Extensions
    return extensions[validate_pb2.field]


def _longest(name: str) -> int:
    return int(_rules(_REQUEST, name).string.max_len)


def _range(rules: Any) -> tuple[int, int]:
    return rules.gte, rules.lte


_REQUEST, _PROMPT = routing_pb2.RouteRequest, routing_pb2.PromptShape
MODEL_ID, CAPABILITY, REQUEST_ID, ADAPTER, TENANT_ID, SESSION_ID, POLICY_ID = map(
    _longest, ("model_id", "capability", "request_id", "adapter", "tenant_id", "session_id", "policy_id")
)
PRIORITY = _range(_rules(_REQUEST, "priority").int32)
ALTERNATIVES = _range(_rules(_REQUEST, "max_alternatives").int32)
HOPS = _range(_rules(_REQUEST, "hops").int32)
EXPLAINS = frozenset(routing_pb2.Explain.values())
TOKENS = _range(_rules(_PROMPT, "input_tokens").int64)
ANSWER = _range(_rules(_PROMPT, "max_output_tokens").int64)
BLOCK = _range(_rules(_PROMPT, "prefix_block_tokens").int32)
MAX_HASHES = int(_rules(_PROMPT, "prefix_hashes").repeated.max_items)


def _told(violation: protovalidate.Violation) -> Violation:
    rule = violation.proto
    message = rule.message
    if rule.rule_id == "string.pattern":
        pattern = str(violation.rule_value)
        message = CAPABILITY_WORDS if "custom:" in pattern else PATTERN_WORDS.get(pattern, message)
    elif rule.rule_id == "enum.not_in":
        # The only such rule: an engine has to be told.
        message = f"must be one of {', '.join(types_pb2.Engine.keys()[1:])}"
    value = violation.field_value
    if isinstance(value, (str, int, float)) and rule.rule_id != "required":
        message += f"; got {_shown(value)}"
    return (_path(rule.field.elements) if rule.field is not None else ""), message


def _shown(value: str | float) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _path(elements: Iterable[object]) -> str:
    path = ""
    for element in elements:
        name = element.field_name  # type: ignore[attr-defined]
        path += f".{name}" if path else name
        subscript = element.subscript  # type: ignore[attr-defined]
        if subscript is not None:
            key = subscript.value
            path += f"[{key}]" if subscript.field == "index" else f"[{key!r}]"
    return path


def mask_violations(path: str, paths: Sequence[str], known: Mapping[str, object]) -> list[Violation]:
    """The paths of an update_mask that are none of the fields that may be written."""
    fields = ", ".join(sorted(known))
    return [(path, f"{name!r} is not a field to write; known are: {fields}") for name in paths if name not in known]


def check_mask(path: str, paths: Sequence[str], known: Mapping[str, object]) -> None:
    """Raises InvalidFields for `mask_violations`."""
    found = mask_violations(path, paths, known)
    if found:
        raise InvalidFields(*found)


HTTP_SCHEMES = ("http", "https")
GRPC_SCHEMES = ("grpc", "grpcs")
# Who puts a password into an endpoint need not find it in logs as well.
_USER = re.compile(r"//[^/]*@")
_NUMBER = re.compile(r"^(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?$")
_HOST_NAME = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?$")


def endpoint_problem(url: str, schemes: Sequence[str], *, port_needed: bool = True) -> str:
    """Why an endpoint cannot be used, "" where it can: `scheme://host:port`, and nothing else."""
    example = f"write {schemes[0] if schemes else 'http'}://host:port"
    if any(character <= " " or character == "\x7f" or character == "\\" for character in url):
        return f"holds a space, a control character or a backslash; {example}"
    try:
        parts = urlsplit(url)
    except ValueError as e:
        return f"is not a URL: {e}; {example}"
    try:
        port = parts.port
    except ValueError:
        return f"has a port that cannot be; ports are 1 to 65535; {example}"
    if "://" not in url:
        return f"has no scheme; {example}"
    if parts.scheme not in schemes:
        return f"has scheme {parts.scheme!r}; allowed here are {', '.join(schemes)}"
    if "@" in parts.netloc:
        return f"holds a user or password; leave it out: {example}"
    if not parts.hostname:
        return f"has no host; {example}"
    if not _is_host(parts.hostname):
        return f"has host {_shown(parts.hostname)}, which is neither a DNS name nor an IP address; {example}"
    if _is_link_local(parts.hostname):
        return f"has a link-local address, where clouds keep their credentials; use an address of the node: {example}"
    if port is None and (port_needed or parts.netloc.endswith(":")):
        return f"has no port; {example}"
    if port == 0:
        return f"has port 0; ports are 1 to 65535; {example}"
    if parts.path not in ("", "/") or parts.query or parts.fragment or url.endswith(("?", "#")):
        return f"holds a path, query or fragment; the engine fixes the paths: {example}"
    return ""


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        # Systems read a name whose last label is a number as an IPv4 address, in decimal, octal or hexadecimal.
        return len(host) <= 253 and _HOST_NAME.match(host) is not None and _NUMBER.match(host) is None
    return True


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_link_local


def check_owned(regions: Iterable[str], owns: Sequence[str], owner_of: Callable[[str], str] = lambda _: "") -> None:
    """Raises NotOwner for the first region that this control plane does not own; an empty `owns` is all.

    `owner_of` tells which peer does, "" where none is known to.
    """
    for region_id in regions:
        if owns and region_id not in owns:
            raise NotOwner(region_id, owner_of(region_id) or "another one")


def registration_violations(
    message: catalog_pb2.RegisterNodeRequest | catalog_pb2.RegisterNodesRequest,
    requests: Sequence[catalog_pb2.RegisterNodeRequest],
) -> list[Violation]:
    """The rules of the protos that a registration breaks; of a node under a mask only those of masked fields."""
    found = []
    for path, what in field_violations(message):
        named = _NODE_FIELD.match(path)
        if named is not None:
            masked = requests[int(named["index"] or 0)].update_mask.paths
            if masked and named["field"] not in (*masked, "region_id", "node_id", "etag"):
                continue
        found.append((path, what))
    return found


_NODE_FIELD = re.compile(r"^(nodes\[(?P<index>\d+)\]\.)?node\.(?P<field>\w+)")


def endpoint_violations(path: str, endpoint: str, engine: int, allowed_schemes: Sequence[str]) -> list[Violation]:
    """What is wrong with an endpoint, which has to fit its engine."""
    if not endpoint:
        return []  # The protos' rules tell of one that is missing.
    expected = GRPC_SCHEMES if engine == types_pb2.ENGINE_GRPC else HTTP_SCHEMES
    schemes = [scheme for scheme in expected if scheme in allowed_schemes]
    if schemes:
        problem = endpoint_problem(endpoint, schemes)
    else:
        problem = f"{' and '.join(expected)} are not allowed by health.allowed_schemes, and its engine needs one"
    return [(path, f"{_shown(_USER.sub('//***@', endpoint))} {problem}")] if problem else []


def deployment_violations(
    prefix: str, request: catalog_pb2.RegisterNodeRequest, model_of: Callable[[str], str]
) -> list[Violation]:
    """What is wrong with a node's deployments beyond single fields; `prefix` leads every path ("nodes[3].")."""
    node = request.node
    found: list[Violation] = []
    if node.deployments:
        found.append((f"{prefix}node.deployments", "is set by the server; put them into `deployments` of the request"))
    first: dict[str, int] = {}
    for index, deployment in enumerate(request.deployments):
        path = f"{prefix}deployments[{index}]"
        for name in ("region_id", "node_id"):
            told, of_node = getattr(deployment, name), getattr(node, name)
            if told not in ("", of_node):
                found.append((f"{path}.{name}", f"is {told!r}, and the node's is {of_node!r}; leave it empty"))
        other = first.setdefault(deployment.model_id, index)
        if other != index:
            found.append(
                (f"{path}.model_id", f"{deployment.model_id!r} stands in deployments[{other}] too; name a model once")
            )
        model_id = model_of(deployment.model_id)
        if model_id not in ("", deployment.model_id):
            found.append(
                (f"{path}.model_id", f"{deployment.model_id!r} is an alias; name model {model_id!r} by its id")
            )
        if deployment.status == types_pb2.DEPLOYMENT_STATUS_REMOVED:
            found.append((f"{path}.status", "REMOVED cannot be registered; leave the deployment out instead"))
    return found


def model_violations(model: types_pb2.Model, taken: Callable[[str], str]) -> list[Violation]:
    """What is wrong with a model beyond single fields; `taken` tells which other model goes by a name, "" for none."""
    found: list[Violation] = []
    other = taken(model.model_id)
    if other:
        found.append(("model.model_id", f"{model.model_id!r} is an alias of model {other!r}; choose another id"))
    for index, alias in enumerate(model.aliases):
        path = f"model.aliases[{index}]"
        if alias == model.model_id:
            found.append((path, "is the model's own id; leave it out"))
        else:
            other = taken(alias)
            if other:
                found.append((path, f"{alias!r} already names model {other!r}; choose another alias"))
    return found


def region_violations(region: types_pb2.Region) -> list[Violation]:
    """What is wrong with a region's record beyond single fields."""
    found: list[Violation] = []
    if region.ingress_endpoint:
        # HTTPS has a port of its own; gRPC has not.
        port_needed = region.ingress_endpoint.startswith("grpc")
        problem = endpoint_problem(region.ingress_endpoint, (*HTTP_SCHEMES, *GRPC_SCHEMES), port_needed=port_needed)
        if problem:
            found.append(("region.ingress_endpoint", f"{_shown(region.ingress_endpoint)} {problem}"))
    elif region.reach == types_pb2.REACH_GATEWAY:
        found.append(("region.ingress_endpoint", "is needed with REACH_GATEWAY: targets elsewhere are sent there"))
    if region.HasField("latitude") != region.HasField("longitude"):
        found.append(("region.latitude", "and longitude go together: set both, or neither"))
    for other in sorted(region.round_trips):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?", other):
            found.append((f"region.round_trips[{_shown(other)}]", f"a region's id {PATTERN_WORDS[_ID_PATTERN]}"))
        elif other == region.region_id:
            found.append((f"region.round_trips[{other!r}]", "is the region itself; leave it out"))
    return found


_ID_PATTERN = "^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$"


def outcome_violations(outcomes: Sequence[routing_pb2.Outcome]) -> list[Violation]:
    """What is wrong with reported outcomes beyond single fields."""
    found: list[Violation] = []
    for index, outcome in enumerate(outcomes):
        path = f"outcomes[{index}]"
        finished = outcome.phase in (routing_pb2.OUTCOME_PHASE_UNSPECIFIED, routing_pb2.OUTCOME_PHASE_FINISHED)
        if finished and outcome.result == routing_pb2.OUTCOME_RESULT_UNSPECIFIED:
            found.append((f"{path}.result", "is needed with phase FINISHED: tell how the request went"))
        named = (outcome.region_id, outcome.node_id, outcome.model_id)
        if any(named) and not all(named):
            found.append((path, "region_id, node_id and model_id go together: set all three, or none"))
        if not outcome.decision_id and not all(named):
            found.append((f"{path}.decision_id", "or region_id, node_id and model_id must be set"))
    return found
