"""The whole demonstration: starts everything, plays the scenes, explains, replays, and ends it all."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import grpc

from federation.cli.figures import enum_word
from federation.edge.client import Client, ClientOptions, RouteError
from federation.simulation.demo.checks import NotShown, expect, until
from federation.simulation.demo.declared import model_message, region_message
from federation.simulation.demo.engines import START_SECONDS
from federation.simulation.demo.fleet import DECISIONS, PACE, DemoFleet, load_fleet
from federation.simulation.demo.full import story as full_story
from federation.simulation.demo.gateway import Ask, Gateway
from federation.simulation.demo.load import Load
from federation.simulation.demo.machines import Machines
from federation.simulation.demo.processes import Ended, Processes
from federation.simulation.demo.scenes import SCENES
from federation.simulation.demo.screen import Screen
from federation.simulation.demo.staying import stay_until_ended
from federation.simulation.demo.world import World
from federation.v1 import catalog_pb2, fleet_pb2

INTERRUPTED = 130


def run(*, full: bool, stay: bool, seed: int) -> int:
    """The exit code: 0 where each scene showed what it says, 1 where one did not, 130 where somebody ended it."""
    screen = Screen(time.monotonic)
    directory = Path(tempfile.mkdtemp(prefix="fairway-demo-"))
    code = 1
    try:
        with Processes(directory) as processes:
            play = full_story.play if full else _play
            code = asyncio.run(_interruptible(play(screen, processes, stay=stay, seed=seed)))
    finally:
        if code == 1:
            screen.text(f"Kept for a closer look: logs, catalog and decisions in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _interruptible(play: Coroutine[Any, Any, int]) -> int:
    """Lets SIGINT and SIGTERM end the play, in order."""
    task = asyncio.ensure_future(play)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED


async def _play(screen: Screen, processes: Processes, *, stay: bool, seed: int) -> int:
    fleet = load_fleet()
    screen.title(f"Fairway: {len(fleet.regions)} regions, {len(fleet.nodes)} engines, one control plane. Seed {seed}.")
    machines = Machines(fleet, processes, seed)
    part = "The start"
    async with AsyncExitStack() as stack:
        try:
            world = await _started(stack, screen, machines, fleet, seed)
            for number, scene in enumerate(SCENES, start=1):
                part = f"Scene {number} ({scene.title})"
                screen.scene(number, scene.title, scene.promise)
                await scene.play(world)
                world.machines.require_server()
            part = "The end (explain and replay)"
            _explain_and_replay(world, processes)
        except NotShown as error:
            screen.failed(f"{part} did not show what it says.")
            screen.failed(f"expected: {error.expected}")
            screen.failed(f"seen:     {error.seen}")
            _tell_if_ended(screen, machines)
            return 1
        except (Ended, RouteError, grpc.RpcError, aiohttp.ClientError) as error:
            screen.failed(f"{part} could not go on: {error}")
            _tell_if_ended(screen, machines)
            return 1
        screen.text("")
        screen.title(
            f"All {len(SCENES)} scenes showed what they say, with {len(world.load.sent)} requests under load, "
            f"in {screen.seconds:.0f} s."
        )
        if stay:
            await _stay(world)
    return 0


async def _started(stack: AsyncExitStack, screen: Screen, machines: Machines, fleet: DemoFleet, seed: int) -> World:
    """Everything up, registered and healthy."""
    rng = Random(seed)
    clock = time.monotonic
    screen.event(
        f"starting the control plane, {len(fleet.nodes)} engines and {len(fleet.nodes)} agents, each a process. Set "
        f"shorter than the defaults, so that minutes fit into seconds: probes every {PACE.probe_interval_seconds:g} s, "
        f"circuits open for {PACE.open_seconds:g} s, slow starts of {PACE.slow_start_seconds:g} s."
    )
    with screen.waiting("waiting for engines and control plane"):
        await machines.start()
    # A decision takes a millisecond; on a machine that has better to do, its processes may not run for seconds.
    options = ClientOptions(route_timeout_seconds=10.0)
    client = await stack.enter_async_context(Client(machines.server, options, rng=Random(rng.getrandbits(64))))
    gateway = await stack.enter_async_context(Gateway(fleet, client, clock=clock, rng=Random(rng.getrandbits(64))))
    http = await stack.enter_async_context(aiohttp.ClientSession())
    load = Load(gateway, clock=clock, rng=Random(rng.getrandbits(64)))
    world = World(fleet, machines, client, gateway, load, screen, http, clock)
    await _declare(fleet, client)
    for node in fleet.nodes:
        machines.start_agent(node)

    async def all_healthy() -> tuple[bool, object]:
        nodes = (await client.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest())).nodes
        told = {f"{each.region_id}/{each.node_id}": enum_word(each, "state") for each in nodes}
        well = len(told) == len(fleet.nodes) and set(told.values()) == {"healthy"}
        # Decisions read a table, which is a little behind.
        return well and len(await world.eligible(Ask(fleet.regions[0].region_id))) == len(fleet.nodes), told

    with screen.waiting("waiting for registrations and first probes"):
        await until("all nodes registered and healthy", all_healthy, START_SECONDS)
    screen.event(f"all are registered and healthy; gRPC at {machines.server}")
    return world


def _tell_if_ended(screen: Screen, machines: Machines) -> None:
    """Says so where the control plane is gone: then that is the trouble."""
    try:
        machines.require_server()
    except Ended as error:
        screen.failed(str(error))


async def _declare(fleet: DemoFleet, client: Client) -> None:
    """Tells the control plane of the model and the regions; agents tell of their nodes."""
    declared = model_message(fleet)
    known = await client.catalog.ListModels(catalog_pb2.ListModelsRequest())
    declared.etag = next((each.etag for each in known.models if each.model_id == declared.model_id), "")
    await client.catalog.RegisterModel(catalog_pb2.RegisterModelRequest(model=declared))
    known = await client.catalog.ListRegions(catalog_pb2.ListRegionsRequest())
    etags = {each.region_id: each.etag for each in known.regions}
    for region in fleet.regions:
        put = region_message(fleet, region)
        put.etag = etags.get(region.region_id, "")
        await client.catalog.PutRegion(catalog_pb2.PutRegionRequest(region=put))


def _explain_and_replay(world: World, processes: Processes) -> None:
    """The decision of the cut region with every term, and all decisions made again."""
    log = world.machines.directory / DECISIONS
    for title, words in (
        ("why the cut region was left", ["explain", world.to_explain, "--server", world.machines.server]),
        ("all decisions, made again from what they read", ["replay", "--log", str(log), "--assert-identical"]),
    ):
        world.screen.command(title, shlex.join(["fairway", *words]))
        code = processes.run([sys.executable, "-m", "federation", *words])
        expect(code == 0, f"exit code 0 of `fairway {words[0]}`", code)


async def _stay(world: World) -> None:
    """Mends what is broken and waits for somebody to end it."""
    node = world.fleet.confidential
    await world.machines.start_engine(node)
    world.machines.start_agent(node)
    server, model = world.machines.server, world.fleet.model.model_id
    tokyo = world.fleet.regions[-1].region_id
    log = world.machines.directory / DECISIONS
    commands = (
        f"fairway top --server {server}",
        f"fairway route --server {server} --model {model} --origin {tokyo} --input-tokens 3000 --output-tokens 200",
        f"fairway candidates --server {server} --model {model} --privacy confidential",
        f"fairway nodes list --server {server}",
        f"fairway replay --log {log} --assert-identical",
        f"curl {world.machines.engines[node.name]}/metrics",
    )
    title = f"Everything goes on running until Ctrl-C. The control plane listens at {server}. Try:"
    await stay_until_ended(world.screen, title, commands)
