"""Where calls come in: `add_to_server` is named in Serve's gRPC options and runs in every replica and proxy.

As for HTTP there are two ways. With the hook (`headway.serving.hook`) a replica's own server gives the calls of our
service to the servicer of this process. Without it, and in Serve's fallback proxy, Serve takes them through its own
request path to the methods of `InferenceMethods`. HAProxy chooses the application by the `application` metadata key;
it may be left out where one application alone takes gRPC.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from headway.serving import hook
from headway.serving.grpc.messages import METHODS, SERVICE

if TYPE_CHECKING:
    from headway.serving.grpc.servicer import InferenceServicer

APPLICATION = "application"
_HANDLERS: dict[str, tuple[dict[str, Any], asyncio.AbstractEventLoop]] = {}
"""Application → handlers by method's path: Serve builds its server without arguments, so they meet in the process."""


def register(application: str, servicer: InferenceServicer, loop: asyncio.AbstractEventLoop) -> None:
    """Let calls of an application go to `servicer` while they arrive on its own loop."""
    handlers = {f"/{SERVICE}/{name}": _handler(servicer, name) for name in METHODS}
    _HANDLERS[application] = (handlers, loop)


def unregister(application: str) -> None:
    """Stop that."""
    _HANDLERS.pop(application, None)


class DirectHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc publishes no types
    """Handlers of the servicers of this process; None, so that the next handler is asked, for anything else."""

    def __init__(self) -> None:
        self._method_handlers: dict[str, Any] = {}
        """Serve puts its own way in place of each handler listed under this name: none."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call."""
        found = _HANDLERS.get(_application(handler_call_details.invocation_metadata))
        if found is None or found[1] is not asyncio.get_running_loop():
            return None
        return found[0].get(handler_call_details.method)


def _handler(servicer: InferenceServicer, method: str) -> Any:
    async def handle(message: bytes, context: Any) -> bytes:
        return await call(servicer, method, message, context)

    return grpc.unary_unary_rpc_method_handler(handle)


def _application(metadata: Any) -> str:
    """Return the application that a call names, or the only one there is."""
    for name, value in metadata or ():
        if name == APPLICATION:
            return str(value)
    return next(iter(_HANDLERS)) if len(_HANDLERS) == 1 else ""


def add_to_server(servicer: Any, server: Any) -> None:
    """Register the service on a server of Serve's; the function that `grpc_servicer_functions` names."""
    if hook.enabled():
        server.add_generic_rpc_handlers((DirectHandlers(),))
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def call(servicer: InferenceServicer, method: str, message: bytes, context: Any) -> bytes:
    """Answer one call of a server's context, or of the one that Serve gives to methods, which knows no deadline."""
    remaining = getattr(context, "time_remaining", None)
    reply = await servicer.answer(
        method, message, context.invocation_metadata() or (), remaining() if remaining is not None else None
    )
    status = reply.status
    trailing = reply.trailing
    if status.code != "OK":
        context.set_code(grpc.StatusCode[status.code])
        context.set_details(status.details)
    context.set_trailing_metadata(trailing if remaining is not None else list(trailing))
    return reply.message


class Serialized:
    """Bytes as the message that Serve's own path asks to serialise."""

    def __init__(self, message: bytes) -> None:
        self._message = message

    def SerializeToString(self) -> bytes:
        """Return the bytes."""
        return self._message


class InferenceMethods:
    """The methods that Serve's own path calls on a replica, one per method of the service."""

    def _servicer(self) -> InferenceServicer | None:
        """Return what answers; None in an application that takes no inference."""
        raise NotImplementedError

    async def _serve(self, method: str, message: bytes, context: Any) -> Serialized:
        servicer = self._servicer()
        if servicer is None:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details("this application takes no inference requests")
            return Serialized(b"")
        return Serialized(await call(servicer, method, message, context))

    async def ServerLive(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ServerLive."""
        return await self._serve("ServerLive", message, grpc_context)

    async def ServerReady(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ServerReady."""
        return await self._serve("ServerReady", message, grpc_context)

    async def ModelReady(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ModelReady."""
        return await self._serve("ModelReady", message, grpc_context)

    async def ServerMetadata(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ServerMetadata."""
        return await self._serve("ServerMetadata", message, grpc_context)

    async def ModelMetadata(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ModelMetadata."""
        return await self._serve("ModelMetadata", message, grpc_context)

    async def ModelInfer(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer ModelInfer."""
        return await self._serve("ModelInfer", message, grpc_context)

    async def RepositoryIndex(self, message: bytes, grpc_context: Any) -> Serialized:
        """Answer RepositoryIndex."""
        return await self._serve("RepositoryIndex", message, grpc_context)
