"""One order of settings, and errors that name the setting and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.config import ConfigError, Settings, load, load_with_origins, masked


def a_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fairway.toml"
    path.write_text(text)
    return path


def refused(path: Path | None = None, env: dict[str, str] | None = None, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, env or {}, flags or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_anything_said_the_defaults_stand() -> None:
    settings = load()

    assert settings == Settings()
    assert settings.server.listen == "127.0.0.1:50051"
    assert settings.store.url == "sqlite:///fairway.db"


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    path = a_file(tmp_path, '[server]\nlisten = "127.0.0.1:1"\nadmin = "127.0.0.1:2"\n[health]\nunhealthy_after = 7\n')
    env = {"FAIRWAY_SERVER__LISTEN": "127.0.0.1:3", "FAIRWAY_SERVER__ADMIN": "127.0.0.1:4"}

    loaded = load_with_origins(path, env, {"server.listen": "127.0.0.1:5", "server.workers": None})

    assert loaded.settings.server.listen == "127.0.0.1:5"
    assert loaded.settings.server.admin == "127.0.0.1:4"
    assert loaded.settings.health.unhealthy_after == 7
    origins = {row.key: row.origin for row in loaded.listing()}
    assert origins["server.listen"] == "flag"
    assert origins["server.admin"] == "environment FAIRWAY_SERVER__ADMIN"
    assert origins["health.unhealthy_after"] == f"file {path}"
    assert origins["server.workers"] == "default"


def test_lists_come_from_the_environment_as_words_or_as_json() -> None:
    words = load(env={"FAIRWAY_REGION__OWNS": "local, eu-west-1"})
    listed = load(env={"FAIRWAY_REGION__OWNS": '["local", "eu-west-1"]'})

    assert words.region.owns == listed.region.owns == ("local", "eu-west-1")


def test_numbers_and_truths_come_from_the_environment_as_text() -> None:
    settings = load(env={"FAIRWAY_SERVER__INSECURE": "true", "FAIRWAY_HEALTH__PROBE_INTERVAL_SECONDS": "2.5"})

    assert settings.server.insecure is True
    assert settings.health.probe_interval_seconds == 2.5


def test_variables_without_a_section_are_none_of_ours() -> None:
    assert load(env={"FAIRWAY_CONFIG": "x", "FAIRWAY_PORT_50051_TCP": "tcp://10.0.0.1", "PATH": "/bin"}) == Settings()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[server]\nlissten = 'x'\n", "unknown setting server.lissten; did you mean server.listen?"),
        ("[sever]\nlisten = 'x'\n", "unknown section [sever]; did you mean server?"),
        ("[zzz]\n", "`fairway config show` lists all"),
        ("server = 3\n", "server is a section; write [server]"),
        ("[server\n", "is not TOML"),
        (
            "[health]\nunhealthy_after = 0\n",
            "health.unhealthy_after: must be 1 or more, not 0",
        ),
        ("[health]\nprobe_timeout_seconds = nan\n", "health.probe_timeout_seconds"),
        ("[routing]\nmin_score = inf\n", "routing.min_score"),
        ("[region]\nid = 'Upper'\n", "region.id"),
        ("[region]\nid = 'a'\nowns = ['b']\n", "region.owns names b, and not region.id 'a'"),
        ("[peering]\npeers = ['x:1']\n", "region.owns is mandatory with peering.peers"),
        ("[peering]\nwithhold = ['secret-*']\n", "peering.withhold"),
        ("[security]\ntls_key = 'k'\n", "tls_certificate and tls_key go together"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_in_one_line(tmp_path: Path, said: str, told: str) -> None:
    assert told in refused(a_file(tmp_path, said))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.toml")
    assert "directory" in refused(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(binary)


def test_an_unknown_variable_or_flag_is_named_with_the_nearest_known_key() -> None:
    assert "FAIRWAY_SERVER__LISTN: unknown setting server.listn; did you mean server.listen?" in refused(
        env={"FAIRWAY_SERVER__LISTN": "x"}
    )
    assert "flag: unknown setting store.ur" in refused(flags={"store.ur": "x"})


def test_a_wrong_value_tells_where_it_came_from() -> None:
    message = refused(env={"FAIRWAY_SERVER__WORKERS": "many"})

    assert message.startswith("server.workers: ")
    assert "'many'" in message
    assert message.endswith("(environment FAIRWAY_SERVER__WORKERS)")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///fairway.db", "sqlite:///fairway.db"),
        ("postgresql://u:secret@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:se/c@r?et@h/db", "postgresql://u:***@h/db"),
        ("postgresql://h/db?user=u&password=secret&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert {row.key: row.value for row in load_with_origins(flags={"store.url": url}).listing()}["store.url"] == shown


def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refused(a_file(tmp_path, "[store]\nurl = ['hunter2']\n"))


def test_policies_of_tenants_are_pairs() -> None:
    routing = load(env={"FAIRWAY_ROUTING__TENANT_POLICIES": "acme-*=gold, a=b=silver"}).routing

    assert routing.tenant_policies == ("acme-*=gold", "a=b=silver")
    assert routing.named_policies == {
        "gold": "routing.tenant_policies",
        "silver": "routing.tenant_policies",
        "balanced": "routing.policy",
    }
    for wrong in ("gold", "=gold", "acme=", "acme=Not A Policy"):
        assert "routing.tenant_policies" in refused(env={"FAIRWAY_ROUTING__TENANT_POLICIES": wrong})
