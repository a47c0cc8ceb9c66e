"""Declared speeds reach the registration."""

from __future__ import annotations

from catalog.types import Engine, ServingProfile
from federation.agent.discovery import Discovered, ServedModel
from federation.agent.options import AgentOptions, registration

FOUND = Discovered(Engine.VLLM, (ServedModel("m"),))


def test_what_is_declared_of_a_deployment_s_speed_is_registered():
    profile = ServingProfile(0.0001, 0.049, 34.0, 64, 460_000)
    options = AgentOptions("http://e:8000", "c:1", "r", profile=profile)

    (deployment,) = registration(options, "n", FOUND, "id", "").deployments

    told = deployment.profile
    assert (told.prefill_seconds_per_token, told.decode_tokens_per_second) == (0.0001, 34.0)
    assert told.min_time_to_first_token.ToMilliseconds() == 49
    assert (told.max_batch_size, told.kv_cache_tokens) == (64, 460_000)


def test_what_is_not_declared_is_left_to_be_learned():
    part = AgentOptions("http://e:8000", "c:1", "r", profile=ServingProfile(decode_tokens_per_second=34.0))
    none = AgentOptions("http://e:8000", "c:1", "r")

    told = registration(part, "n", FOUND, "id", "").deployments[0].profile

    assert not told.HasField("prefill_seconds_per_token")
    assert not told.HasField("min_time_to_first_token")
    assert not registration(none, "n", FOUND, "id", "").deployments[0].HasField("profile")
