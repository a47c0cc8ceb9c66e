"""PolicyService: named documents, checked before they are stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, cast

from catalog.errors import NotFound
from catalog.store import CatalogStore
from catalog.types import PolicyRecord, ResourceKind
from federation.api import pages
from federation.api.calls import Context
from federation.api.convert.previews import preview_to
from federation.api.convert.times import timestamp
from federation.api.errors import InvalidFields, PolicyInUse
from federation.feed import CatalogFeed
from federation.routing.decisions import Record
from federation.routing.preview import Preview, WhatIf, decide_again
from federation.v1 import policy_pb2 as pb
from federation.v1 import policy_pb2_grpc
from policies.document import compile_policy, to_document
from policies.presets import PRESETS
from policies.registry import BUILT_IN, Registry

DOCUMENT = "policy.document_json"


# Decisions that a preview makes again unless it is told how many.
PREVIEWED = 1_000


class PolicyService(policy_pb2_grpc.PolicyServiceServicer):
    """`in_use` are policies that settings name, by setting; `recent` gives this replica's newest decisions."""

    def __init__(
        self,
        store: CatalogStore,
        feed: CatalogFeed,
        *,
        in_use: Mapping[str, str],
        recent: Callable[[int], list[Record]],
        registry: Registry = BUILT_IN,
    ) -> None:
        self._store = store
        self._feed = feed
        self._in_use = in_use
        self._recent = recent
        self._registry = registry

    async def PutPolicy(self, request: pb.PutPolicyRequest, context: Context) -> pb.PutPolicyResponse:
        policy_id = request.policy.policy_id
        document = parse(request.policy.document_json)
        compile_policy(policy_id, document, 0, registry=self._registry)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        record = PolicyRecord(policy_id, canonical, etag=request.policy.etag)
        if request.validate_only:
            return pb.PutPolicyResponse(policy=_stored(record))
        (put,) = await self._store.put([record], request_id=request.request_id, actor=context.peer())
        await self._feed.reached(put.revision)
        return pb.PutPolicyResponse(policy=_stored(put))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.GetPolicyResponse:
        policy_id = request.policy_id
        if request.revision:
            for record in await self._store.policy_history(policy_id):
                if record.revision == request.revision:
                    return pb.GetPolicyResponse(policy=_stored(record))
            raise NotFound("policy", f"{policy_id}@{request.revision}")
        current = self._feed.snapshot.policies.get(policy_id)
        if current is not None:
            return pb.GetPolicyResponse(policy=_stored(current))
        if policy_id in PRESETS:
            return pb.GetPolicyResponse(policy=_preset(policy_id))
        raise NotFound("policy", policy_id)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        scope = ("policies", request.history_of)
        after = pages.position(scope, request.page_token)
        stored = self._feed.snapshot.policies
        items: Iterator[tuple[str, PolicyRecord | str]]
        if request.history_of:
            history = await self._store.policy_history(request.history_of)
            if not history and request.history_of not in PRESETS:
                raise NotFound("policy", request.history_of)
            items = ((str(record.revision), record) for record in history if not after or record.revision < int(after))
        else:
            items = ((name, stored.get(name, name)) for name in sorted({*stored, *PRESETS}) if name > after)
        page, next_token = pages.page(items, scope, request.page_size, _listed)
        return pb.ListPoliciesResponse(policies=page, next_page_token=next_token)

    async def DeletePolicy(self, request: pb.DeletePolicyRequest, context: Context) -> pb.DeletePolicyResponse:
        policy_id = request.policy_id
        if policy_id in self._in_use and policy_id not in PRESETS:
            raise PolicyInUse(policy_id, self._in_use[policy_id])
        revision = await self._store.delete(ResourceKind.POLICY, policy_id, etag=request.etag, actor=context.peer())
        await self._feed.reached(revision)
        return pb.DeletePolicyResponse(revision=revision)

    async def PreviewPolicy(self, request: pb.PreviewPolicyRequest, context: Context) -> pb.PreviewPolicyResponse:
        """Makes decisions of this replica's memory again, one by one between other calls."""
        policy = compile_policy(request.policy.policy_id, parse(request.policy.document_json), registry=self._registry)
        what_if = WhatIf(policy, frozenset(request.without_regions))
        found = Preview()
        for record in self._recent(request.max_decisions or PREVIEWED):
            found.add(decide_again(record.entry(), what_if, self._registry))
            # Each takes about a millisecond, and requests must not wait for all of them.
            await asyncio.sleep(0)
        return preview_to(found)


def parse(text: str) -> Mapping[str, Any]:
    """A document's JSON as an object. InvalidFields where it is none, or says a key twice."""
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as e:
        raise InvalidFields((DOCUMENT, f"is not JSON: {e}")) from None
    except RecursionError:
        raise InvalidFields((DOCUMENT, "is nested too deeply; a policy has a few levels")) from None
    except ValueError as e:
        raise InvalidFields((DOCUMENT, str(e))) from None
    if not isinstance(document, dict):
        raise InvalidFields((DOCUMENT, "must be a JSON object with the fields of a policy; `{}` is the default one"))
    return cast(Mapping[str, Any], document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"names {twice!r} twice in one object; keep one of them")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"holds {word}, which is not a number; write a finite one")


def _stored(record: PolicyRecord) -> pb.Policy:
    return pb.Policy(
        policy_id=record.policy_id,
        document_json=record.document,
        revision=record.revision,
        etag=record.etag,
        create_time=timestamp(record.create_time) if record.create_time else None,
    )


def _listed(policy: PolicyRecord | str) -> pb.Policy:
    """A stored policy, or a preset by its name."""
    return _preset(policy) if isinstance(policy, str) else _stored(policy)


def _preset(policy_id: str) -> pb.Policy:
    document = json.dumps(to_document(PRESETS[policy_id]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return pb.Policy(policy_id=policy_id, document_json=document, preset=True)
