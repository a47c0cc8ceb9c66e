from __future__ import annotations

import ipaddress
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from federation.health.resolve import AddressRules, ForbiddenEndpoint, guarded_session

ALL = AddressRules()


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ],
)
@pytest.mark.parametrize("rules", [ALL, AddressRules.of(("http",), ("0.0.0.0/0", "::/0"))])
def test_link_local_and_metadata_addresses_are_never_allowed(rules: AddressRules, address: str):
    with pytest.raises(ForbiddenEndpoint, match="never allowed"):
        rules.check(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "8.8.8.8", "2001:db8::1"])
def test_without_networks_all_other_addresses_are_allowed(address: str):
    ALL.check(address)


def test_with_networks_only_theirs_are():
    rules = AddressRules.of(("http",), ("10.0.0.0/8", "fd00::/8"))

    rules.check("10.1.2.3")
    rules.check("::ffff:10.1.2.3")
    rules.check("fd00::7")
    for outside in ("127.0.0.1", "11.0.0.1", "::ffff:11.0.0.1", "2001:db8::1"):
        with pytest.raises(ForbiddenEndpoint, match=r"outside of health\.allowed_cidrs"):
            rules.check(outside)


def test_one_forbidden_address_forbids_the_name():
    with pytest.raises(ForbiddenEndpoint):
        ALL.addresses(["10.0.0.1", "169.254.169.254"])


def test_a_network_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"health\.allowed_cidrs: .*'10\.0\.0\.0/99'"):
        AddressRules.of(("http",), ("10.0.0.0/99",))


@given(st.ip_addresses())
def test_an_ipv4_address_hidden_in_ipv6_is_judged_as_itself(address):
    text = str(address)
    if isinstance(address, ipaddress.IPv4Address):
        plain, hidden = verdict(text), verdict(f"::ffff:{text}")

        assert plain == hidden
    elif address.is_link_local or address.is_multicast:
        assert verdict(text)


def verdict(address: str) -> bool:
    try:
        ALL.check(address)
    except ForbiddenEndpoint:
        return True
    return False


def test_an_endpoint_is_taken_apart():
    endpoint = ALL.endpoint("https://gpu-7.example:8443/base/v1/")

    assert (endpoint.scheme, endpoint.host, endpoint.port) == ("https", "gpu-7.example", 8443)
    assert endpoint.url("/v1/models") == "https://gpu-7.example:8443/base/v1/models"
    assert ALL.endpoint("grpcs://h").port == 443
    assert ALL.endpoint("http://[::1]:80/").url("/health") == "http://[::1]:80/health"
    assert ALL.endpoint("http://h:8000").url("/metrics", 8002) == "http://h:8002/metrics"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file:///etc/passwd", "scheme 'file' is not allowed; allowed are http, https, grpc, grpcs"),
        ("gopher://h", "scheme 'gopher' is not allowed"),
        ("http://user:word@h/", "may not carry credentials"),
        ("http://", "has no host"),
        ("http://h:99999/", "is not a URL"),
        ("http://[::1", "is not a URL"),
    ],
)
def test_other_endpoints_are_refused(text: str, reason: str):
    with pytest.raises(ForbiddenEndpoint, match="^.*" + reason.replace("(", r"\(")):
        ALL.endpoint(text)


class Names(AbstractResolver):
    """A name server that answers what it is told, another answer each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in answer
        ]

    async def close(self) -> None:
        return


async def get(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url, allow_redirects=False) as response:
        return response.status


@pytest.mark.anyio
async def test_a_session_connects_to_allowed_addresses_only():
    async def hello(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    allowed = AddressRules.of(("http",), ("127.0.0.0/8",))
    async with guarded_session(allowed, inner=Names(["127.0.0.1"])) as session:
        assert await get(session, f"http://node.example:{port}/") == 200
        assert await get(session, f"http://127.0.0.1:{port}/") == 200
    elsewhere = AddressRules.of(("http",), ("10.0.0.0/8",))
    async with guarded_session(elsewhere, inner=Names(["127.0.0.1"])) as session:
        for host in ("node.example", "127.0.0.1", "localhost"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await get(session, f"http://{host}:{port}/")
    await runner.cleanup()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "[fe80::1]", "2852039166", "0251.0376.0251.0376", "0xa9fea9fe"]
)
async def test_no_spelling_of_a_metadata_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch):
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: opened.append(address))
    async with guarded_session(ALL) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await get(session, f"http://{host}/latest/meta-data/")

    assert opened == []


@pytest.mark.anyio
async def test_a_name_that_flips_after_its_first_answer_is_caught_when_it_is_connected_to():
    names = Names(["10.255.255.1"], ["169.254.169.254"])
    await names.resolve("flip.example")  # what a check beforehand would have seen

    async with guarded_session(ALL, inner=names) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await get(session, "http://flip.example/")

    assert "169.254.169.254 is never allowed" in str(raised.value.os_error)
