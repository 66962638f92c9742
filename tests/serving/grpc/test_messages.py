from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headway.core.errors import Malformed
from headway.serving.grpc import messages
from tests.conftest import ROOT

CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
FOLDER = Path(str(messages.__file__)).parent


def test_the_service_is_the_protocols() -> None:
    assert messages.METHODS == (
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "RepositoryIndex",
    )


def test_bytes_that_are_no_message_are_refused() -> None:
    assert messages.parse("ModelReady", b"\x0a\x03toy").name == "toy"
    with pytest.raises(Malformed, match="ModelInferRequest"):
        messages.parse("ModelInfer", b"\xff")


@pytest.mark.skipif(not CLIENTS.exists(), reason="the compiler comes with the clients: make clients")
def test_the_descriptors_are_those_of_the_text(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    command = [str(CLIENTS), "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}"]
    subprocess.run([*command, "open_inference.proto"], check=True, timeout=60)
    assert made.read_bytes() == (FOLDER / "open_inference.binpb").read_bytes()


STUBS = """
import importlib, sys
from google.protobuf import descriptor_pb2

def members(message, path):
    for field in message.field:
        yield path, field.name, field.number, field.type, field.label, field.type_name
    for nested in message.nested_type:
        yield from members(nested, f"{path}.{nested.name}")

def of(file):
    return {message.name: set(members(message, message.name)) for message in file.message_type}

ours = of(descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file[0])
theirs = descriptor_pb2.FileDescriptorProto()
importlib.import_module(sys.argv[2]).DESCRIPTOR.CopyToProto(theirs)
common = {name: (fields, of(theirs)[name]) for name, fields in ours.items() if name in of(theirs)}
assert {"ModelInferRequest", "ModelInferResponse", "InferTensorContents", "InferParameter"} <= common.keys()
differences = {name: mine - other for name, (mine, other) in common.items() if not mine <= other}
sys.exit(str(differences) if differences else 0)
"""


@pytest.mark.skipif(not CLIENTS.exists(), reason="the clients are not installed: make clients")
@pytest.mark.parametrize("module", ["tritonclient.grpc.service_pb2", "open_inference.grpc.protocol"])
def test_fields_and_numbers_are_those_of_the_clients(tmp_path: Path, module: str) -> None:
    command = [str(CLIENTS), "-c", STUBS, str(FOLDER / "open_inference.binpb"), module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
