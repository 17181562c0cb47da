"""The HTTP interface of a service."""

import asyncio
import contextlib
import hashlib
import hmac
import pathlib
from typing import Annotated, Literal

import fastapi
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import fer_jax
from fer_jax import pictures
from fer_jax.errors import InputError
from fer_jax.serve import guard, schemas
from fer_jax.serve.limits import Limits
from fer_jax.serve.service import Options, Service

WEB = pathlib.Path(fer_jax.__file__).parent / "web"
MAX_FIELDS = 8  # of a form, not counting its files
BYTES = {"type": "string", "format": "binary"}
KINDS = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
REASONS = {
    400: "malformed request or form",
    401: "wrong or missing token",
    403: "called by the name of another host, or by a page of another site",
    408: "the body did not arrive in time",
    413: "too many bytes, pixels or files",
    415: "a body of another kind",
    422: "an unreadable picture, or a wrong parameter",
    503: "too many requests in work; try again",
}


def _strict(value):
    """Takes true and false alone, as JSON has them; pydantic also takes yes, on, 1, ..."""
    if value not in ("true", "false", True, False):
        raise ValueError("give true or false")
    return value


Flag = Annotated[bool, pydantic.BeforeValidator(_strict)]


def _options(
    faces: Annotated[
        Literal["detect", "given"], fastapi.Query(description="find faces, or take the whole picture as one")
    ] = "detect",
    align: Annotated[Flag, fastapi.Query(description="rotate faces until their eyes are level")] = True,
    threshold: Annotated[
        float, fastapi.Query(ge=0, le=1, description="faces less probable than this are uncertain")
    ] = 0.5,
    explain: Annotated[Flag, fastapi.Query(description="add a heat map to each face")] = False,
) -> Options:
    return Options(faces, align, threshold, explain)


def make_app(service: Service, *, limits: Limits, token: str | None = None, hosts=None) -> guard.Guard:
    """Returns the ASGI application of a service.

    token: that requests must bear; None: none. hosts: see guard.Guard.
    """
    app = fastapi.FastAPI(
        title="fer_jax",
        version=fer_jax.__version__,
        description="Emotions of faces in pictures: a guess at how people would label them.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=_HANDLERS,
    )
    app.include_router(_open_routes(service, token, limits))
    checks = [fastapi.Depends(_make_check(token))] if token else []
    app.include_router(_guarded_routes(service, limits), dependencies=checks)
    app.router.default = _Page(WEB)
    return guard.Guard(app, hosts, limits, service.metrics)


def _open_routes(service, token, limits):
    routes = fastapi.APIRouter()

    @routes.get("/health/live", tags=["health"])
    async def live() -> schemas.Health:
        """Whether the process answers."""
        return schemas.Health(status="live")

    @routes.get("/health/ready", tags=["health"], responses=_refusals(503))
    async def ready() -> schemas.Health:
        """Whether the service takes requests now."""
        if not service.is_alive() or service.in_work >= limits.max_requests:
            raise _busy()
        return schemas.Health(status="ready")

    @routes.get("/config.json", include_in_schema=False)
    async def config():
        return {"backend": "service", "token_required": token is not None}

    return routes


def _guarded_routes(service, limits):
    routes = fastapi.APIRouter(responses=_refusals(401, 403))
    takes_pictures = {
        "dependencies": [fastapi.Depends(_make_slot(service, limits.max_requests))],
        "response_model_exclude_unset": True,
        "responses": _refusals(400, 408, 413, 415, 422, 503),
        "tags": ["pictures"],
    }
    Chosen = Annotated[Options, fastapi.Depends(_options)]

    @routes.post("/v1/predict", openapi_extra=_body_of("file", BYTES, *KINDS), **takes_pictures)
    async def predict(request: fastapi.Request, options: Chosen) -> schemas.Picture:
        """Names the emotions of the faces of a picture, sent as the body or as the field `file` of a form."""
        async with _sent(request, "file", 1) as sent:
            ((data, source),) = sent
        try:
            return await service.predict(data, source, options)
        except InputError as error:
            service.refuse(source, error)
            too_large = isinstance(error, pictures.TooManyPixels)
            raise HTTPException(413 if too_large else 422, str(error)) from error

    several = {"type": "array", "items": BYTES, "minItems": 1, "maxItems": limits.max_files}

    @routes.post("/v1/predict/batch", openapi_extra=_body_of("files", several), **takes_pictures)
    async def predict_batch(request: fastapi.Request, options: Chosen) -> schemas.Pictures:
        """Names the emotions in several pictures, the fields `files` of a form; one that is refused has an `error`."""

        async def one(data, source):
            try:
                return await service.predict(data, source, options)
            except InputError as error:
                return service.refuse(source, error)

        async with _sent(request, "files", limits.max_files) as sent:
            async with asyncio.TaskGroup() as group:  # a defect cancels the others
                tasks = [group.create_task(one(*picture)) for picture in sent]
            return {"pictures": [task.result() for task in tasks]}

    @routes.get("/v1/model", tags=["model"])
    async def model() -> schemas.Model:
        """The model, its figures, and what computes it."""
        return service.describe()

    @routes.get("/metrics", tags=["health"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics():
        """The figures of the service, in the format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes


def _refusals(*codes):
    return {code: {"model": schemas.Error, "description": REASONS[code]} for code in codes}


def _body_of(field, schema, *kinds):
    fields = {"required": [field], "properties": {field: schema}, "additionalProperties": False}
    form = {"schema": {"type": "object", **fields}}
    if kinds:
        form["encoding"] = {field: {"contentType": ", ".join(kinds)}}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": form, **{kind: {"schema": BYTES} for kind in kinds}},
        }
    }


def _make_check(token):
    """Returns the dependency that refuses a request without the token."""
    digest = hashlib.sha256(token.encode()).digest()

    async def check(given: Annotated[object, fastapi.Depends(HTTPBearer(auto_error=False))]):
        theirs = hashlib.sha256(given.credentials.encode() if given else b"").digest()
        if not hmac.compare_digest(digest, theirs):
            text = "the token is wrong" if given else "a token is needed, as the header `Authorization: Bearer <token>`"
            raise HTTPException(401, text, {"WWW-Authenticate": "Bearer"})

    return check


def _make_slot(service, most):
    """Returns the dependency that counts the requests in work, and refuses those beyond `most`."""

    async def slot():
        if service.in_work >= most:
            raise _busy()
        service.in_work += 1
        try:
            yield
        finally:
            service.in_work -= 1

    return slot


def _busy():
    return HTTPException(503, "too many requests are in work: try again", {"Retry-After": "1"})


@contextlib.asynccontextmanager
async def _sent(request, field, most):
    """Yields the pictures (bytes, file name) of a request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=most, max_fields=MAX_FIELDS) as form:
            files = [file for file in form.getlist(field) if isinstance(file, UploadFile)]
            if not files:
                raise HTTPException(422, f"the form has no file in its field '{field}'")
            if len(files) < len(form.multi_items()):
                raise HTTPException(422, f"the form has more than files in its field '{field}'")
            yield [(await file.read(), file.filename or None) for file in files]
    elif field == "file" and (kind.startswith("image/") or kind == "application/octet-stream"):
        yield [(await request.body(), None)]
    else:
        kinds = f"a form (multipart/form-data) with the field '{field}'" + (", or image/*" if field == "file" else "")
        raise HTTPException(415, f"the body is {kind or 'of no stated kind'}: send {kinds}")


class _Page:
    """The files of a folder, and 404 for everything else; an ASGI application."""

    def __init__(self, folder):
        self._files = StaticFiles(directory=folder, html=True) if folder.is_dir() else None

    async def __call__(self, scope, receive, send):
        if self._files is not None and scope["method"] in ("GET", "HEAD"):
            with contextlib.suppress(HTTPException):  # no such file
                return await self._files(scope, receive, send)
        raise HTTPException(404, f"there is nothing at {scope['path']}")


async def _on_http_error(request, error):
    return guard.refusal(error.status_code, error.detail, error.headers)


async def _on_wrong_parameter(request, error):
    first = error.errors()[0]
    return guard.refusal(
        422, f"the parameter '{first['loc'][-1]}' is wrong: {first['msg'].removeprefix('Value error, ')}"
    )


async def _on_malformed_form(request, error):  # Starlette before 1.10 lets it pass
    return guard.refusal(400, "Invalid multipart data.")


async def _on_disconnect(request, error):
    return guard.refusal(400, "the client left before it had sent the body")


async def _on_defect(request, error):
    return guard.refusal(500, "the service failed; its log has the reason")


_HANDLERS = {
    HTTPException: _on_http_error,
    RequestValidationError: _on_wrong_parameter,
    FormParserError: _on_malformed_form,
    ClientDisconnect: _on_disconnect,
    Exception: _on_defect,
}
