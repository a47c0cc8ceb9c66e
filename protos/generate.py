"""Generates `federation/v1` from the protos beside this file; `--check` only compares.

The generator is pinned to the oldest grpcio that is supported, since generated code refuses older runtimes, and it
needs an older protobuf than the runtime does; so it runs in an environment of its own under `build/`.
"""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = ROOT / "federation" / "v1"
IMAGE = ROOT / "build" / "protos.binpb"
GENERATOR = "grpcio-tools==1.80.0"
RULES = "buf/validate/validate.proto"


def generator() -> Path:
    """The interpreter that has the pinned generator; made at the first call."""
    home = ROOT / "build" / "protoc" / GENERATOR.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", GENERATOR], check=True)
        (home / "ready").touch()
    return python


def dependencies() -> bytes:
    """The imported files as descriptors: protovalidate ships its rules in this form only."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return files.SerializeToString()


def generate(out: Path) -> None:
    """Writes the generated package into `out`, and the image that buf lints."""
    python = generator()
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("federation/v1/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        imports = Path(scratch) / "imports.binpb"
        imports.write_bytes(dependencies())
        protoc = [python, "-m", "grpc_tools.protoc", f"--descriptor_set_in={imports}", f"-I{PROTOS}"]
        subprocess.run([*protoc, f"--python_out={scratch}", f"--pyi_out={scratch}", *sources, RULES], check=True)
        IMAGE.parent.mkdir(exist_ok=True)
        subprocess.run(
            [*protoc, f"--grpc_python_out={scratch}", f"--descriptor_set_out={IMAGE}", "--include_source_info",
             "--include_imports", *sources],
            check=True,
        )  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)
        (out / "__init__.py").write_text('"""Generated from `protos/federation/v1`; never edited."""\n')
        for folder in (Path(scratch) / "federation" / "v1", Path(scratch) / "buf" / "validate"):
            for path in sorted(folder.glob("*.py*")):
                # The rules' descriptor lives beside ours: a top-level package `buf` is not ours to install.
                text = re.sub(
                    r"\bbuf\.validate import validate_pb2", "federation.v1 import validate_pb2", path.read_text()
                )
                (out / path.name).write_text(text)


def main() -> int:
    if "--check" not in sys.argv:
        generate(PACKAGE)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "v1"
        generate(fresh)
        names = {path.name for folder in (fresh, PACKAGE) for path in folder.glob("*.py*")}
        _, differing, missing = filecmp.cmpfiles(fresh, PACKAGE, sorted(names), shallow=False)
    for name in differing + missing:
        print(f"federation/v1/{name} is not what protos/ generates; run `make protos`", file=sys.stderr)
    return 1 if differing or missing else 0


if __name__ == "__main__":
    sys.exit(main())
