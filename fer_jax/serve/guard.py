"""Stands before the application: whom it answers, how much it reads and for how long, and what every answer carries."""

import asyncio
import contextlib
import re
import time

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

SENDING_SINCE = "fer_jax.sending_since"  # of a scope: when the part of its answer that is being sent began to be
LINGER_SECONDS = 2.0  # of reading on after an early refusal: a client that is still sending would not see the answer
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:\d+)?")


class Guard:
    """An ASGI application around another one.

    hosts: the names by which the service may be called, so that no other site can point its own name to this machine
    (DNS rebinding), and those of the sites whose pages may call it; None: any. limits: a limits.Limits. metrics: a
    metrics.Metrics.
    """

    def __init__(self, app, hosts, limits, metrics):
        self._app, self._hosts, self._limits, self._metrics = app, hosts, limits, metrics

    async def __call__(self, scope, receive, send):
        """Answers a request."""
        if scope["type"] != "http":
            return
        began, headers = time.perf_counter(), dict(scope["headers"])
        body = _Body(receive, headers, self._limits)
        answer = _Answer(scope, send, body)
        try:
            await (self._refusal(headers) or self._app)(scope, body.receive, answer.send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, answer.status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await answer.end()

    def _refusal(self, headers):
        """Returns the answer to a request that comes by another name or from a page of another site, or None."""
        if self._hosts is None:
            return None
        if _host_of(headers.get(b"host", b"")) not in self._hosts:
            return _STRANGER
        origin = headers.get(b"origin")
        return _OTHER_SITE if origin is not None and _host_of(origin.partition(b"://")[2]) not in self._hosts else None


def _host_of(address):
    """Returns the host of host[:port], or None."""
    found = _HOST.fullmatch(address.decode("latin-1"))
    return found and found[1].lower()


def refusal(status: int, message: str, headers=None) -> JSONResponse:
    """Returns the answer to a refused request."""
    return JSONResponse({"error": message}, status, headers)


_STRANGER = refusal(403, "this service is for this machine: call it by 127.0.0.1 or localhost, or set a token")
_OTHER_SITE = refusal(403, "pages of other sites cannot use this service: open its own, or set a token")


class _Body:
    """The body of a request, read up to a limit of bytes and of time."""

    def __init__(self, receive, headers, limits):
        self._receive, self._max_bytes, self._seconds = receive, limits.max_bytes, limits.body_seconds
        self._bytes, self._deadline = 0, None
        self._announced = int(length) if (length := headers.get(b"content-length", b"0")).isdigit() else 0
        self.is_read = not self._announced and b"transfer-encoding" not in headers

    async def receive(self):
        """Receives a part of the body. Raises HTTPException 413 or 408 beyond a limit."""
        if self.is_read:  # now and then: whether the client is still there
            return await self._receive()
        self._deadline = self._deadline or time.monotonic() + self._seconds
        self._check(self._announced)
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {self._seconds:g} s") from None
        self._bytes += len(message.get("body", b""))
        self._check(self._bytes)
        self.is_read = not message.get("more_body", False)
        return message

    def _check(self, count):
        if count > self._max_bytes:
            raise HTTPException(413, f"the request has more than {self._max_bytes:,} bytes: send a smaller picture")

    async def drop(self):
        """Reads on for a while, and keeps nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await self._receive()).get("more_body", False):
                    pass


class _Answer:
    """The answer to a request; it stays open while the client sends what will not be read."""

    def __init__(self, scope, send, body):
        self._scope, self._raw_send, self._body, self._is_open, self.status = scope, send, body, False, 0

    async def send(self, message):
        """Sends a message of the application, with the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *_RAW_HEADERS]
            if not any(name == b"etag" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            if not self._body.is_read:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif not message.get("more_body", False) and not self._body.is_read:
            self._is_open, message = True, {**message, "more_body": True}
        await self._send(message)

    async def _send(self, message):
        self._scope[SENDING_SINCE] = time.monotonic()
        await self._raw_send(message)
        del self._scope[SENDING_SINCE]

    async def end(self):
        """Ends an answer that was left open."""
        if self._is_open:
            await self._body.drop()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
