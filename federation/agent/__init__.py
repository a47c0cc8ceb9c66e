"""The process beside a node: registers it, renews its lease, reports its load."""

from federation.agent.agent import run_agent
from federation.agent.options import AgentOptions

__all__ = ["AgentOptions", "run_agent"]
