"""Writes what the chart repeats: the schema of `config`, descriptions, and the tables of README.md.

Their sources are `federation/config.py` (a server setting is described there) and the comments of `values.yaml`
(everything else); a test compares. Run `python helm/generate.py` after changing either.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from federation.config import Settings

CHART = Path(__file__).resolve().parent / "fairway"
# The chart derives these from its own values (ports, Secrets, mode), so `config` does not take them.
CHART_OWNED = frozenset(
    {
        "server.listen",
        "server.admin",
        "server.advertise",
        "server.insecure",
        "store.url",
        "store.url_file",
        "store.migrate",
        "store.last_known_path",
        "security.tls_certificate",
        "security.tls_key",
        "security.tls_client_ca",
    }
)
# Pydantic's words that say nothing to a reader of values, or mean nothing to Helm.
_UNUSED = frozenset({"title", "format"})


def config_schema() -> dict[str, Any]:
    """The JSON schema of the value `config`: all settings but CHART_OWNED; a typo is refused."""
    whole = Settings.model_json_schema()
    sections = {}
    for section, reference in whole["properties"].items():
        model = whole["$defs"][reference["$ref"].rsplit("/", 1)[-1]]
        keys = {
            key: _setting(f"{section}.{key}", schema, whole["$defs"])
            for key, schema in model["properties"].items()
            if f"{section}.{key}" not in CHART_OWNED
        }
        if keys:
            sections[section] = {"type": "object", "additionalProperties": False, "properties": keys}
    return {"type": "object", "additionalProperties": False, "properties": sections}


def _setting(name: str, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """One setting's schema; ValueError when it is not a scalar or a list of scalars, which is all the chart writes."""
    own = {key: value for key, value in schema.items() if key not in _UNUSED}
    if "$ref" in own:
        own = {**definitions[own.pop("$ref").rsplit("/", 1)[-1]], **own}
    if "anyOf" in own:
        # An optional setting is left out rather than set to null: TOML has no null.
        (given,) = (choice for choice in own.pop("anyOf") if choice.get("type") != "null")
        own = {**{key: value for key, value in given.items() if key not in _UNUSED}, **own}
    if own.get("default", "") is None:
        del own["default"]
    scalar = own["items"] if own.get("type") == "array" else own
    if scalar.get("type") not in {"string", "number", "integer", "boolean"}:
        raise ValueError(f"{name} is neither a scalar nor a list of scalars: teach templates/_config.tpl to write it")
    return own


def comments(values_yaml: str) -> dict[str, str]:
    """The comment right above each key, by dotted key, as one paragraph."""
    lines = values_yaml.splitlines()

    def above(line: int) -> str:
        paragraph: list[str] = []
        while line > 0 and lines[line - 1].lstrip().startswith("#"):
            line -= 1
            paragraph.insert(0, lines[line].strip().removeprefix("#").strip())
        return " ".join(paragraph)

    def walk(node: yaml.MappingNode, prefix: str) -> dict[str, str]:
        found = {}
        for key, value in node.value:
            found[prefix + key.value] = above(key.start_mark.line)
            if isinstance(value, yaml.MappingNode):
                found |= walk(value, f"{prefix}{key.value}.")
        return found

    root = yaml.compose(values_yaml)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("values.yaml is not a mapping")
    return walk(root, "")


def values_schema(current: dict[str, Any], values_yaml: str) -> dict[str, Any]:
    """`current` with its generated parts anew; the structure and the types are kept by hand."""
    described = comments(values_yaml)

    def describe(schema: dict[str, Any], prefix: str) -> dict[str, Any]:
        properties = {}
        for key, own in schema["properties"].items():
            name = prefix + key
            rest = {word: value for word, value in own.items() if word != "description"}
            if name == "config":
                rest = config_schema()
            elif "properties" in rest:
                rest = describe(rest, f"{name}.")
            properties[key] = {**({"description": described[name]} if described.get(name) else {}), **rest}
        return {**schema, "properties": properties}

    return describe(current, "")


def values_table(values_yaml: str) -> str:
    """The rows of README.md for values.yaml: a leaf each, with its default and its comment."""
    described = comments(values_yaml)
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = prefix + key
            # A section whose comment stands above it as a whole is one row: its keys speak Kubernetes.
            if isinstance(value, dict) and value and not described[name]:
                walk(value, f"{name}.")
            else:
                rows.append(f"| `{name}` | `{json.dumps(value)}` | {_cell(described[name])} |")

    walk(yaml.safe_load(values_yaml), "")
    return "\n".join(rows)


def config_table() -> str:
    """The rows of README.md for `config`, in the order of the configuration."""
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for section, table in config_schema()["properties"].items():
        for key, schema in table["properties"].items():
            default = f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
            rows.append(f"| `config.{section}.{key}` | {default} | {_cell(schema['description'])} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def readme(current: str, values_yaml: str) -> str:
    """`current` with the tables between its `<!-- generated: … -->` marks anew."""
    for name, table in (("values", values_table(values_yaml)), ("config", config_table())):
        start, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        found = pattern.search(current)
        if not found:
            raise ValueError(f"README.md has no place for the {name} table: add {start} and {end}")
        current = f"{current[: found.start()]}{start}\n{table}\n{end}{current[found.end() :]}"
    return current


def generated() -> dict[Path, str]:
    """What the generated files should hold now."""
    values_yaml = (CHART / "values.yaml").read_text()
    schema = CHART / "values.schema.json"
    page = CHART / "README.md"
    fresh = values_schema(json.loads(schema.read_text()), values_yaml)
    return {
        schema: json.dumps(fresh, indent=2, ensure_ascii=False) + "\n",
        page: readme(page.read_text(), values_yaml),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
