"""What stands for `*.googleapis.com` on this machine: TensorFlow's own client has no other way in.

Its file system asks for an address that cannot be changed, but through a proxy that can be named in
the environment. This proxy ends TLS itself, with a certificate of an authority of its own, and
hands plain HTTP on to the emulator.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import threading
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DOMAIN = "googleapis.com"


def environment(proxy_port: int, authority: str) -> dict[str, str]:
    """Variables that lead TensorFlow there; it must not have been imported yet."""
    return {
        "https_proxy": f"http://127.0.0.1:{proxy_port}",
        "no_proxy": "127.0.0.1",
        "CURL_CA_BUNDLE": authority,
        "NO_GCE_CHECK": "true",
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0",  # or it waits up to a second longer than this
    }


@contextlib.contextmanager
def googleapis(port: int, directory: str) -> Iterator[dict[str, str]]:
    """Serves the emulator at `port` as googleapis.com; the environment that finds it there."""
    authority, identity = _certificates(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(identity)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        asyncio.start_server(lambda r, w: _serve(r, w, tls, port), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield environment(server.sockets[0].getsockname()[1], authority)
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(reader, writer, tls: ssl.SSLContext, port: int) -> None:
    """One connection: CONNECT, TLS, and then bytes both ways until one side has had enough."""
    streams = [writer]
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        host = request.split()[1].split(b":")[0].decode()
        assert request.startswith(b"CONNECT ") and host.endswith(DOMAIN), request
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        await writer.start_tls(tls)
        answers, upstream = await asyncio.open_connection("127.0.0.1", port)
        streams.append(upstream)
        tasks = [
            asyncio.ensure_future(_hand_on(reader, upstream)),
            asyncio.ensure_future(_hand_on(answers, writer)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
        pass
    finally:
        for stream in streams:
            stream.transport.abort()  # a body that was cut must look cut


async def _hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(1 << 20):
        target.write(block)
        await target.drain()


def _certificates(directory: str) -> tuple[str, str]:
    """Files of an authority's certificate, and of a key and certificate that it has signed."""
    key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    names = x509.SubjectAlternativeName([x509.DNSName(n) for n in (DOMAIN, f"*.{DOMAIN}")])

    def signed(subject: x509.Name, public_key, extension: x509.ExtensionType) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    leaf = signed(subject, leaf_key.public_key(), names)
    secret = leaf_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    paths = []
    for name, content in (
        ("authority.pem", signed(issuer, key.public_key(), x509.BasicConstraints(True, None))),
        ("identity.pem", secret + leaf),
    ):
        paths.append(f"{directory}/{name}")
        with open(paths[-1], "wb") as file:
            file.write(content)
    return paths[0], paths[1]
