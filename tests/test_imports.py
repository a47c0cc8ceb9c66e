"""The directions of imports, and what may stand at the top of the repository."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("catalog", "policies", "federation")
TOP_LEVEL = {
    # What a team reads and builds from.
    "catalog",
    "federation",
    "helm",
    "policies",
    "protos",
    "tests",
    "pyproject.toml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    ".ci",
    ".dockerignore",
    ".gitignore",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module (`a.b`), with the names taken from it; `running` is false under TYPE_CHECKING."""

    module: str
    names: tuple[str, ...]
    line: int
    running: bool
    top: bool


def modules() -> dict[str, Path]:
    """Our modules by dotted name, without what is generated."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[:2] != ("federation", "v1"):
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    return tuple(walk(tree(name), True, True))


def walk(node: ast.AST, running: bool, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                for each in names:
                    yield Import(each.name, (), child.lineno, running, top)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"line {child.lineno}: imports are absolute here"
                yield Import(module or "", tuple(each.name for each in names), child.lineno, running, top)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from walk(ast.Module(child.body, []), False, top)
                yield from walk(ast.Module(child.orelse, []), running, top)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from walk(child, running, False)
            case _:
                yield from walk(child, running, top)


def reached(name: str, *, running_at_start: bool = False) -> Iterator[tuple[str, Import]]:
    """Modules of ours that a module imports: `from a import b` reaches `a.b` where that is a module."""
    for found in imports(name):
        if running_at_start and not (found.running and found.top):
            continue
        targets = [f"{found.module}.{each}" for each in found.names]
        for target in targets:
            if target in MODULES:
                yield target, found
        # A module that is taken from its package needs nothing else of the package.
        if found.module in MODULES and not (targets and all(target in MODULES for target in targets)):
            yield found.module, found


def told(name: str, found: Import, what: str) -> str:
    return f"{MODULES[name].relative_to(ROOT)}:{found.line}: {what}"


def outside(found: Import, *packages: str) -> bool:
    return found.module.split(".")[0] not in packages


def test_policies_know_of_the_catalog_its_types_alone() -> None:
    wrong = [
        told(name, found, f"imports {target}")
        for name in MODULES
        if name.split(".")[0] == "policies"
        for target, found in reached(name)
        if target != "catalog.types" and not target.startswith("policies")
    ]

    assert wrong == []


def test_the_catalog_knows_neither_policies_nor_federation() -> None:
    wrong = [
        told(name, found, f"imports {target}")
        for name in MODULES
        if name.split(".")[0] == "catalog"
        for target, found in reached(name)
        if target.split(".")[0] != "catalog"
    ]

    assert wrong == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {name: {target for target, _ in reached(name, running_at_start=True)} - {name} for name in MODULES}
    state: dict[str, int] = {}
    circles: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for target in sorted(graph[name]):
            if state.get(target) == 1:
                circles.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])

    assert circles == []


def test_sql_is_known_in_one_place() -> None:
    wrong = [
        told(name, found, f"imports {found.module}")
        for name in MODULES
        if not name.startswith("catalog.sql")
        for found in imports(name)
        if found.module.split(".")[0] in ("sqlalchemy", "alembic", "aiosqlite", "sqlite3", "psycopg")
    ]

    assert wrong == []


NOT_IN_POLICIES = {
    "grpc",
    "google",
    "aiohttp",
    "asyncio",
    "anyio",
    "time",
    "datetime",
    "socket",
    "os",
    "io",
    "pathlib",
    "subprocess",
    "threading",
    "logging",
    "structlog",
    "secrets",
    "uuid",
    "urllib",
    "http",
    "opentelemetry",
}


def test_policies_are_functions_of_values_without_clocks_and_io() -> None:
    wrong = []
    for name in MODULES:
        if name.split(".")[0] != "policies":
            continue
        for found in imports(name):
            if found.module.split(".")[0] in NOT_IN_POLICIES:
                wrong.append(told(name, found, f"imports {found.module}"))
            # `random.Random` is handed in; the module's own generator is chance that nobody can repeat.
            if found.module == "random" and found.names != ("Random",):
                wrong.append(told(name, found, "imports more of random than Random"))
        for node in ast.walk(tree(name)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("open", "print", "input")
            ):
                wrong.append(f"{name}:{node.lineno}: calls {node.func.id}()")
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("np.random", "numpy.random")):
                wrong.append(f"{name}:{node.lineno}: uses {ast.unparse(node)}")

    assert wrong == []


@pytest.mark.parametrize("package", ["catalog", "policies"])
def test_grpc_and_protobuf_are_known_to_federation_alone(package: str) -> None:
    wrong = [
        told(name, found, f"imports {found.module}")
        for name in MODULES
        if name.split(".")[0] == package
        for found in imports(name)
        if not outside(found, "grpc", "google", "grpc_health", "grpc_reflection", "grpc_status")
    ]

    assert wrong == []


def test_telemetry_is_in_one_file() -> None:
    wrong = [
        told(name, found, f"imports {found.module}")
        for name in MODULES
        if name != "federation.telemetry"
        for found in imports(name)
        if not outside(found, "opentelemetry")
    ]

    assert wrong == []


def test_deciding_imports_nothing_that_waits() -> None:
    wrong = [
        told(name, found, f"imports {found.module}")
        for name in MODULES
        if name.startswith("federation.routing")
        for found in imports(name)
        if found.module.split(".")[0]
        in ("grpc", "asyncio", "anyio", "aiohttp", "socket", "threading", "time", "random")
    ]

    assert wrong == []


def test_the_checks_above_see_what_they_look_for() -> None:
    assert len(MODULES) > 60
    assert any(target == "policies.types" for target, _ in reached("federation.routing.router"))
    assert any(not found.running for found in imports("federation.routing.wording"))


def test_the_top_of_the_repository_holds_what_it_should() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {line.split("/")[0] for line in listed.splitlines()}

    assert found <= TOP_LEVEL
