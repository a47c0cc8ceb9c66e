"""What one peer told, and the nodes of it as they stand beside the own ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from catalog.rolls import Roll, changed
from catalog.types import Deployment, Node, PrivacyLevel
from federation.peering.messages import Identity, NodeReport, View
from federation.peering.session import Applied

NO_VIEW = View()
NOTHING_APPLIED = Applied()


@dataclass(slots=True)
class PeerImport:
    """All that is known from one peer; times are monotonic seconds."""

    identity: Identity
    lease_seconds: float
    heard_at: float
    view: View = NO_VIEW
    # Whether the view is of the identity's incarnation.
    applied: Applied = NOTHING_APPLIED
    expired: bool = False
    # By node: its report and when it came.
    reports: dict[str, tuple[NodeReport, float]] = field(default_factory=dict)
    # Those of them whose nodes were not in the view when they came.
    ahead: set[str] = field(default_factory=set)
    round_trip_seconds: float | None = None
    # When it said hello last: who is talking is not forgotten.
    met_at: float = float("-inf")
    # When it was heard again after its lease had ended.
    returned_at: float = float("-inf")
    # The nodes as they stand in the merged catalog, and what they were made for.
    _joined: Roll[Node] = field(default_factory=Roll)
    _joined_for: tuple[View, frozenset[str]] = (NO_VIEW, frozenset())

    def lease_left(self, now: float) -> float:
        return max(0.0, self.heard_at + self.lease_seconds - now)

    def joined(self, other_models: frozenset[str]) -> Roll[Node]:
        """Its nodes with the model ids under which they are known here; the same values while nothing changed."""
        view, (before, others) = self.view, self._joined_for
        if view is not before or other_models != others:
            old = self._joined
            names = changed(before.nodes, view.nodes) if other_models == others else old.keys() | view.nodes.keys()
            made = {
                name: _as_import(view.nodes[name], self.identity.region_id, other_models)
                for name in sorted(names)
                if name in view.nodes
            }
            # Who holds a node by identity (monitor, table) need not look again at what is the same.
            news = {name: node for name, node in made.items() if old.get(name) != node}
            self._joined = old.after(news, names - made.keys())
            self._joined_for = (view, other_models)
        return self._joined


def other_name(model_id: str, peer: str) -> str:
    """Under which id a peer's model is known here that is not the model of that id here."""
    return f"{model_id}@{peer}"


def own_name(model_id: str, peer: str) -> str:
    """The id that the peer knows it by."""
    return model_id.removesuffix(f"@{peer}")


def _as_import(node: Node, owner: str, other_models: frozenset[str]) -> Node:
    """A peer's node as it is used here: what it does not say of privacy is not assumed for it."""
    deployments = node.deployments
    if any(each.model_id in other_models for each in deployments):
        deployments = tuple(_renamed(each, owner) if each.model_id in other_models else each for each in deployments)
    return replace(node, owner=owner, privacy_level=node.privacy_level or PrivacyLevel.PUBLIC, deployments=deployments)


def _renamed(deployment: Deployment, owner: str) -> Deployment:
    return replace(
        deployment,
        model_id=other_name(deployment.model_id, owner),
        served_model_name=deployment.served_model_name or deployment.model_id,
    )
