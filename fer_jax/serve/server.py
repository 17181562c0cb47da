"""Runs an application on a socket until a signal ends it; requests in work are answered first."""

import contextlib
import ipaddress
import socket
import time

import uvicorn

from fer_jax.errors import InputError
from fer_jax.serve import guard

IDLE_SECONDS = 10.0  # of a connection without a whole request, and of an answer of which nothing is read
SEND_SECONDS = 30.0  # for a part of an answer that waits for the client to read those before it
END_SECONDS = 30  # for the requests in work at the end
MAX_HEADER_BYTES = 16 * 2**10


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound and does not listen yet, so that the address is checked before a model is loaded.

    Raises:
      InputError: the address cannot be used.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(f"{host}, port {port} cannot be used ({error}): give another --host or --port") from error
    return found


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(bound: socket.socket) -> str:
    """Returns the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Server(uvicorn.Server):
    """Serves an ASGI application.

    asks_fn(): whether to stop, asked ten times a second. started_fn(): called once requests are accepted.
    """

    def __init__(self, app, asks_fn, started_fn=lambda: None):
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        self._asks_fn, self._started_fn, self._idle = asks_fn, started_fn, {}

    async def startup(self, sockets=None) -> None:
        """Accepts requests from now on."""
        await super().startup(sockets)
        self._started_fn()

    def capture_signals(self):
        """Leaves signals to the command."""
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """Ends the service if asked to, and connections that send no whole request or do not read their answers."""
        self.should_exit |= self._asks_fn()
        now, connections = time.monotonic(), self.server_state.connections
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        # A request between two ticks is another cycle; a client that reads has the buffer shrink.
        keys = [(one, one.cycle, one.transport.get_write_buffer_size()) for one in idle]
        self._idle = {key: self._idle.get(key, now) for key in keys}
        late = [one for (one, *_), since in self._idle.items() if now - since > IDLE_SECONDS]
        for one in connections - set(idle):
            since = one.cycle.scope.get(guard.SENDING_SINCE)
            if since is not None and now - since > SEND_SECONDS:
                late.append(one)
        for one in late:
            one.transport.abort()  # closing would wait until all is read
        return await super().on_tick(counter)
