"""A provider that knows its schema and nothing else: enough for `terraform validate` and for tests
with a mocked provider.

It speaks Terraform's plugin protocol, version 6, whose messages are few here and encoded by hand.
Whoever asks for more than the schema gets the empty answer, which says "nothing to complain of".
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent import futures

from tests.infra.google_schema import Attribute, Block, Nested

ADDRESS = "registry.terraform.io/hashicorp/google"

_SINGLE, _LIST, _SET = 1, 2, 3
_NESTING = {"struct": _SINGLE, "list": _LIST, "set": _SET}


def encode_schemas(
    provider: Block, resources: Mapping[str, Block], data_sources: Mapping[str, Block]
) -> bytes:
    """The answer to GetProviderSchema."""
    return b"".join(
        [
            _message(1, _schema(provider)),
            *(_message(2, _entry(name, block)) for name, block in resources.items()),
            *(_message(3, _entry(name, block)) for name, block in data_sources.items()),
        ]
    )


@contextlib.contextmanager
def serving(schemas: bytes) -> Iterator[dict[str, str]]:
    """Serves on loopback; gives the variable by which Terraform finds it."""
    import grpc

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            if not details.method.startswith("/tfplugin6.Provider/"):
                return None
            answer = schemas if details.method.endswith("/GetProviderSchema") else b""
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

    server = grpc.server(futures.ThreadPoolExecutor(4), (Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    at = {
        "Protocol": "grpc",
        "ProtocolVersion": 6,
        "Pid": os.getpid(),
        "Test": True,  # Terraform is not to end it
        "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
    }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({ADDRESS: at})}
    finally:
        server.stop(0)


def _entry(name: str, block: Block) -> bytes:
    return _text(1, name) + _message(2, _schema(block))


def _schema(block: Block) -> bytes:
    return _message(2, _block(block))


def _block(block: Block) -> bytes:
    return b"".join(
        _message(2, _attribute(attribute)) for attribute in block.attributes
    ) + b"".join(_message(3, _nested(nested)) for nested in block.blocks)


def _attribute(attribute: Attribute) -> bytes:
    flags = {4: attribute.required, 5: attribute.optional, 6: attribute.computed}
    return (
        _text(1, attribute.name)
        + _text(2, attribute.type)
        + b"".join(_number(field, 1) for field, is_set in flags.items() if is_set)
    )


def _nested(nested: Nested) -> bytes:
    words = [_text(1, nested.name), _message(2, _block(nested.block))]
    words.append(_number(3, _NESTING[nested.kind]))
    if nested.kind != "struct":
        words += [_number(4, 1)] * nested.required + [_number(5, 1)] * nested.single
    return b"".join(words)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    septets = []
    while value > 127:
        septets.append(value & 127 | 128)
        value >>= 7
    return bytes([*septets, value])
