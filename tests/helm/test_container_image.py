"""The Dockerfile, as far as it can be held without a container engine."""

from __future__ import annotations

import json
import re
import tomllib

from tests.helm.chart import PLAIN, ROOT, config_file, pod, server
from tests.helm.image import BUILD, RUNTIME, environment, the

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied_sources() -> list[str]:
    """What the build takes from the checkout."""
    return [
        source.rstrip("/")
        for name, argument in BUILD
        if name == "COPY" and "--from" not in argument
        for source in argument.split()[:-1]
    ]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!") for line in ignore if line.startswith("!")]

    assert all((ROOT / source).exists() for source in copied_sources())
    assert "*" in ignore
    assert sorted(admitted) == sorted(copied_sources())


def test_the_build_has_all_that_the_wheel_is_made_of() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"]

    assert set(needed) <= set(copied_sources())


def test_only_extras_that_the_server_needs_are_installed() -> None:
    (run,) = (argument for name, argument in BUILD if name == "RUN")
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", run)

    assert set(extras.split(",")) == {"postgres", "otlp", "fast"}
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_image_that_runs_installs_nothing() -> None:
    runs = [argument for name, argument in RUNTIME if name == "RUN"]

    assert not [argument for argument in runs if "pip" in argument or "apt" in argument]


def test_it_runs_the_console_script_as_the_user_of_the_chart() -> None:
    user, group = the("USER").split(":")
    security = pod(PLAIN)["securityContext"]

    assert (int(user), int(group)) == (security["runAsUser"], security["runAsGroup"])
    assert json.loads(the("ENTRYPOINT"))[0] in PROJECT["project"]["scripts"]


def test_the_chart_gives_the_entry_point_arguments_and_no_command_of_its_own() -> None:
    container = server(PLAIN)

    assert "command" not in container
    assert container["args"][:1] == json.loads(the("CMD"))


def test_ports_and_addresses_are_those_of_the_chart() -> None:
    written = tomllib.loads(config_file(PLAIN))["server"]
    ports = [str(port["containerPort"]) for port in server(PLAIN)["ports"]]

    assert the("EXPOSE").split() == ports
    assert environment()["FAIRWAY_SERVER__LISTEN"] == written["listen"]
    assert environment()["FAIRWAY_SERVER__ADMIN"] == written["admin"]


def test_data_lands_where_the_chart_mounts_a_volume() -> None:
    assert the("WORKDIR") in {mount["mountPath"] for mount in server(PLAIN)["volumeMounts"]}


def test_the_label_names_the_version_of_the_project() -> None:
    assert the("ARG") == f"VERSION={PROJECT['project']['version']}"
