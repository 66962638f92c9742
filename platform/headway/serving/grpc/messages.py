"""The protocol's messages, built from `open_inference.binpb`, the compiled form of `open_inference.proto`.

A descriptor set instead of generated Python: it fits every version of protobuf, and its pool of its own lets a team's
code import another library's stubs of the same package in the same process. After a change of the `.proto`:
`protoc --descriptor_set_out=open_inference.binpb open_inference.proto` (a test compares the two).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from headway.core.errors import Malformed

SERVICE = "inference.GRPCInferenceService"


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((files(__package__) / "open_inference.binpb").read_bytes()).file:
        pool.Add(file)
    return pool


_SERVICE = _pool().FindServiceByName(SERVICE)
METHODS: tuple[str, ...] = tuple(method.name for method in _SERVICE.methods)
REQUESTS: dict[str, Any] = {method.name: GetMessageClass(method.input_type) for method in _SERVICE.methods}
RESPONSES: dict[str, Any] = {method.name: GetMessageClass(method.output_type) for method in _SERVICE.methods}


def parse(method: str, message: bytes) -> Any:
    """Return a method's request; Malformed where the bytes are none."""
    kind = REQUESTS[method]
    try:
        return kind.FromString(message)
    except DecodeError:
        raise Malformed(
            f"the bytes are not an inference.{kind.DESCRIPTOR.name}", field="message", hint="use the protocol's stubs"
        ) from None
