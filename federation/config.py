"""Settings of a control plane.

One order: defaults < TOML file < `FAIRWAY_SECTION__KEY` environment < flags. Unknown keys are errors.
A setting is described here once; the chart's values, `fairway config show` and the reference page follow it.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from federation.violations import ID, TENANT_POLICY, WITHHELD, words

ENV_PREFIX = "FAIRWAY_"
_NO_FLAGS: Mapping[str, object] = MappingProxyType({})


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as e:
        raise ValueError(f"{e}; write it as 10.0.0.0/8 or fd00::/8") from None
    return text


Id = Annotated[str, Field(pattern=ID, max_length=63)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

# The tenant's glob ends at the last "=": policies' names hold none.
TenantPolicy = Annotated[str, Field(pattern=TENANT_POLICY, max_length=255, examples=["acme-*=gold"])]
Network = Annotated[str, AfterValidator(_network)]
Scheme = Literal["http", "https", "grpc", "grpcs"]


class Section(BaseModel):
    """A table of the configuration file; a key that is not known here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RegionSettings(Section):
    id: Id = Field(default="local", description="This control plane's own region.")
    owns: tuple[Id, ...] = Field(
        default=(), description="Regions that only this control plane writes. Empty: all; mandatory with peers."
    )
    jurisdiction: tuple[str, ...] = Field(
        default=(), description="Country code and groups of the own region, written when its record is created."
    )


class ServerSettings(Section):
    listen: str = Field(default="127.0.0.1:50051", description="Address of the gRPC API. Port 0 takes a free one.")
    admin: str = Field(default="127.0.0.1:8080", description="Address of /metrics, /livez and /readyz.")
    advertise: str = Field(
        default="",
        max_length=255,
        description="HOST or HOST:PORT where sibling replicas reach this one. Empty: server.listen, or this machine's.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that share the port and one SQLite file.")
    insecure: bool = Field(default=False, description="Allow plain text on an address that is not loopback.")
    reflection: bool = Field(default=True, description="Serve gRPC reflection, for grpcurl.")
    drain_seconds: Seconds = Field(default=30.0, description="Time for running calls after SIGTERM.")
    max_concurrent_calls: int = Field(default=10_000, ge=1, description="Calls at once; more are RESOURCE_EXHAUSTED.")


class StoreSettings(Section):
    url: str = Field(
        default="sqlite:///fairway.db",
        description="sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE.",
    )
    url_file: Path | None = Field(default=None, description="Read the URL from this file instead (mounted secrets).")
    migrate: bool = Field(default=True, description="Upgrade the schema at start; false only checks it.")
    keep_changes: int = Field(default=100_000, ge=1_000, description="Changes that watches can resume from.")
    last_known_path: Path | None = Field(
        default=None,
        description="File that keeps the last known catalog, to start from while the database is away. Unset: none.",
    )


class HealthSettings(Section):
    probe_interval_seconds: Seconds = Field(default=10.0, description="Between two probes of a node, jittered 10 %.")
    probe_timeout_seconds: Seconds = Field(default=5.0, description="Longest wait for one probe.")
    recheck_interval_seconds: Seconds = Field(
        default=1.0, description="Between probes after a failed one, until it is decided."
    )
    unhealthy_after: int = Field(default=3, ge=1, le=100, description="Failed probes in a row.")
    healthy_after: int = Field(default=2, ge=1, le=100, description="Passed probes in a row, after unhealthy.")
    degraded_latency_seconds: Seconds = Field(default=1.0, description="A probe slower than this is degraded.")
    degraded_suspicion: float = Field(default=3.0, ge=1, le=50, description="Answers this much later than predicted.")
    degraded_error_ratio: Ratio = Field(default=0.05, description="Share of failures among at least 20 outcomes.")
    degraded_queue_depth: float = Field(default=32.0, ge=0, description="Requests that wait at the engine.")
    degraded_kv_cache_utilization: Ratio = Field(default=0.95, description="Used share of the KV cache.")
    worst_latency_seconds: Seconds = Field(default=60.0, description="What a failed call counts as.")
    slow_start_seconds: Seconds = Field(default=30.0, description="Ramp after a circuit closes.")
    allowed_schemes: tuple[Scheme, ...] = Field(
        default=("http", "https", "grpc", "grpcs"), description="Schemes that a registered endpoint may have."
    )
    allowed_cidrs: tuple[Network, ...] = Field(
        default=(), description="Networks that a registered endpoint may resolve to. Empty: all but link-local."
    )


class CircuitSettings(Section):
    failures: int = Field(default=5, ge=1, description="Failures in a row that open a circuit.")
    error_ratio: Ratio = Field(default=0.5, description="Share of failures that opens it.")
    min_requests: int = Field(default=20, ge=1, description="Outcomes in the window before the share counts.")
    window_seconds: Seconds = Field(default=30.0, description="Length of the window.")
    open_seconds: Seconds = Field(default=30.0, description="First time open; doubles at each trip.")
    max_open_seconds: Seconds = Field(default=300.0, description="Longest time open.")
    successes: int = Field(
        default=3, ge=1, description="Successful trials that close it, a thirtieth of open_seconds apart."
    )
    max_ejected_ratio: Ratio = Field(default=0.1, description="Share of a pool that may be ejected; at least one.")


class RoutingSettings(Section):
    policy: Id = Field(default="balanced", description="Policy of requests that name none.")
    tenant_policies: tuple[TenantPolicy, ...] = Field(
        default=(),
        description="Policies of tenants whose requests name none, TENANT=POLICY; a tenant may be a glob, first match.",
    )
    max_candidates: int = Field(
        default=10, ge=1, le=1_000, description="Candidates that `best` and `predicted` choose from."
    )
    min_score: Ratio = Field(
        default=0.1,
        description="Candidates under this composite are left out; long requests are judged as if they were not.",
    )
    decision_log: Path | None = Field(default=None, description="File for sampled decisions, JSON lines.")
    decision_log_sample: Ratio = Field(default=1.0, description="Share of decisions written to the file.")
    decision_log_max_bytes: int = Field(default=1 << 30, ge=1 << 20, description="Size at which the file is rotated.")
    decisions_kept: int = Field(default=10_000, ge=0, description="Decisions kept in memory for GetDecision.")

    @property
    def named_policies(self) -> Mapping[str, str]:
        """Policies that requests need though they do not name them, with the setting that does."""
        tenants = {each.rpartition("=")[2]: "routing.tenant_policies" for each in self.tenant_policies}
        return {**tenants, self.policy: "routing.policy"}


class PeeringSettings(Section):
    peers: tuple[str, ...] = Field(default=(), description="Addresses of other control planes.")
    exports: tuple[str, ...] = Field(default=(), description="Model ids (globs) that peers are told of. Empty: all.")
    withhold: tuple[Annotated[str, Field(pattern=WITHHELD, max_length=300)], ...] = Field(
        default=(),
        description="GLOB@JURISDICTION: models that peers there, or of unknown jurisdiction, are not told of.",
    )
    lease_seconds: Seconds = Field(default=30.0, description="How long imports count without news.")
    tls_ca: Path | None = Field(
        default=None, description="CA of peers' certificates, PEM. Own ones: security.tls_certificate and tls_key."
    )
    tls_server_name: str = Field(default="", description="Name in peers' certificates where it is not the address.")


class SecuritySettings(Section):
    tls_certificate: Path | None = Field(default=None, description="Server certificate, PEM; re-read on change.")
    tls_key: Path | None = Field(default=None, description="Its key, PEM.")
    tls_client_ca: Path | None = Field(default=None, description="CA of clients; set: client certificates are needed.")

    @model_validator(mode="after")
    def both_or_neither(self) -> SecuritySettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both, or neither")
        return self


class TelemetrySettings(Section):
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(default="auto", description="auto: pretty on a terminal.")
    otlp_endpoint: str = Field(default="", description="Collector for spans and metrics (host:port). Empty: none.")
    trace_sample: Ratio = Field(
        default=0.01, description="Share of calls that get a span when nobody upstream decided."
    )


class Settings(Section):
    """All sections. Build with `load`."""

    region: RegionSettings = RegionSettings()
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    health: HealthSettings = HealthSettings()
    circuit: CircuitSettings = CircuitSettings()
    routing: RoutingSettings = RoutingSettings()
    peering: PeeringSettings = PeeringSettings()
    security: SecuritySettings = SecuritySettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def owner_is_known(self) -> Settings:
        if self.peering.peers and not self.region.owns:
            raise ValueError(
                "region.owns is mandatory with peering.peers: name the regions that this control plane owns"
            )
        if self.region.owns and self.region.id not in self.region.owns:
            raise ValueError(
                f"region.owns names {', '.join(self.region.owns)}, and not region.id {self.region.id!r}: "
                "a control plane owns its own region; add it"
            )
        return self


class ConfigError(Exception):
    """A setting that cannot be used; the message is one line that names it, where it was set, and the way out."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting for `fairway config show`: its value as text (secrets masked) and where it came from."""

    key: str
    value: str
    # "default", "file PATH", "environment FAIRWAY_…", or "flag".
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of every value that is not a default, by `section.key`."""

    settings: Settings
    origins: Mapping[str, str]

    def listing(self) -> tuple[Setting, ...]:
        """All settings in the order of this file, defaults included."""
        rows = []
        for key, value in _flat(self.settings):
            rows.append(Setting(key, _shown(key, value), self.origins.get(key, "default")))
        return tuple(rows)


def load(
    path: Path | None = None, env: Mapping[str, str] = MappingProxyType({}), flags: Mapping[str, object] = _NO_FLAGS
) -> Settings:
    """The settings of this process; ConfigError names the first thing that is wrong with them.

    `flags` are by `section.key`; one that is None was not given.
    """
    return load_with_origins(path, env, flags).settings


def load_with_origins(
    path: Path | None = None, env: Mapping[str, str] = MappingProxyType({}), flags: Mapping[str, object] = _NO_FLAGS
) -> Loaded:
    """Like `load`, with where each value came from."""
    merged: dict[str, dict[str, object]] = {}
    origins: dict[str, str] = {}

    def put(key: str, value: object, origin: str) -> None:
        section, name = key.split(".", 1)
        merged.setdefault(section, {})[name] = value
        origins[key] = origin

    if path is not None:
        for key, value in _file_values(path):
            put(key, value, f"file {path}")
    for key, value, variable in _environment_values(env):
        put(key, value, f"environment {variable}")
    for key, value in flags.items():
        if value is not None:
            _require_known(key, "flag")
            put(key, value, "flag")
    try:
        return Loaded(Settings.model_validate(merged), origins)
    except ValidationError as e:
        raise ConfigError(_first_violation(e, origins)) from None


def _file_values(path: Path) -> Iterator[tuple[str, object]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(
            f"configuration file {path}: {e.strerror or e}; check --config, or start without it"
        ) from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"configuration file {path}: byte {e.start} is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"configuration file {path} is not TOML: {e}") from None
    for section, table in tables.items():
        if section not in Settings.model_fields:
            raise ConfigError(
                f"file {path}: unknown section [{section}]{_did_you_mean(section, Settings.model_fields)}"
            )
        if not isinstance(table, dict):
            raise ConfigError(f"file {path}: {section} is a section; write [{section}] and its keys below it")
        for name, value in table.items():
            _require_known(f"{section}.{name}", f"file {path}")
            yield f"{section}.{name}", value


def _environment_values(env: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    # Variables without the double underscore (FAIRWAY_CONFIG) are none of ours.
    for variable in sorted(env):
        section, separator, name = variable.removeprefix(ENV_PREFIX).partition("__")
        if not variable.startswith(ENV_PREFIX) or not separator:
            continue
        key = f"{section}.{name}".lower()
        _require_known(key, f"environment variable {variable}")
        yield key, _from_text(key, env[variable], variable), variable


def _from_text(key: str, text: str, variable: str) -> object:
    """A variable's text as a value: lists are JSON or separated by commas; pydantic reads the rest from text."""
    if not isinstance(_default_of(key), tuple):
        return None if text == "" and _default_of(key) is None else text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as e:
            raise ConfigError(f"environment variable {variable}: not a JSON list: {e}") from None
    return [item.strip() for item in text.split(",") if item.strip()]


def _default_of(key: str) -> object:
    section, name = key.split(".", 1)
    return getattr(Settings.model_fields[section].default, name)


def _require_known(key: str, origin: str) -> None:
    known = list(KEYS)
    if key not in known:
        raise ConfigError(f"{origin}: unknown setting {key}{_did_you_mean(key, known)}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; `fairway config show` lists all"


def _first_violation(error: ValidationError, origins: Mapping[str, str]) -> str:
    violation = error.errors(include_url=False)[0]
    where = [str(part) for part in violation["loc"]]
    message = words(violation)
    if not where:
        return message
    key = ".".join(where[:2])
    origin = origins.get(key, "")
    given = "" if key in SECRETS or violation["type"] == "value_error" else f", not {violation['input']!r}"
    return f"{'.'.join(where)}: {message}{given}" + (f" ({origin})" if origin else "")


def _flat(settings: Settings) -> Iterator[tuple[str, object]]:
    for section in type(settings).model_fields:
        table = getattr(settings, section)
        for name in type(table).model_fields:
            yield f"{section}.{name}", getattr(table, name)


def _shown(key: str, value: object) -> str:
    if key in SECRETS:
        return masked(str(value))
    if isinstance(value, Path):
        return str(value)
    return json.dumps(value, default=str) if not isinstance(value, str) else value


def masked(url: str) -> str:
    """A database URL without its password, in its user part or in its query."""
    # Up to the last @, since a password that somebody forgot to escape may hold one, or a slash.
    url = re.sub(r"(://[^:/@?#]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](?:password|sslpassword|sslkey)=)[^&#\s]*", r"\1***", url)


# Shown with their secret part replaced, and never repeated in an error.
SECRETS = frozenset({"store.url"})
KEYS = tuple(key for key, _ in _flat(Settings()))
