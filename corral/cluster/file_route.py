"""Models' files for nodes: an HTTPS route on the server's own address, for those who load a model now and no others."""

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from aiohttp import web

from corral.cluster.identity import Identity, fingerprint, peer_fingerprint


class FileRoute:
    """Serves files by digest. Who asks has to show the certificate of a node that was offered the file."""

    def __init__(self, identity: Identity, address: str) -> None:
        self.url = ""
        self._address = address
        self._tls = identity.serving([])
        self._offers: dict[str, Mapping[str, Path]] = {}
        """Files by their digests, by the fingerprint of who may have them."""
        app = web.Application()
        app.router.add_get("/{digest}", self._file)
        self._runner = web.AppRunner(app, access_log=None)

    async def open(self) -> None:
        """Begins to listen, on a free port of the address."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, 0, ssl_context=self._tls)
        await site.start()
        host, port, *_ = self._runner.addresses[0]
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        await self._runner.cleanup()

    @contextlib.asynccontextmanager
    async def offered(self, certificate: str, files: Mapping[str, Path]) -> AsyncGenerator[None, None]:
        """The block in which a node may fetch these files."""
        who = fingerprint(certificate)
        self._tls.load_verify_locations(cadata=certificate)
        self._offers[who] = files
        try:
            yield
        finally:
            self._offers.pop(who, None)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        assert connection is None or isinstance(connection, ssl.SSLObject)
        path = self._offers.get(peer_fingerprint(connection), {}).get(request.match_info["digest"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, chunk_size=1 << 18)
