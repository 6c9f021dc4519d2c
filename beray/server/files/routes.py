"""HTTP of a task's files: `/tasks/{task_id}/files/*` (WIRE.md, "Files"), and of its tool calls' whole outputs."""

from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from beray.protocol.types import UploadAnswer
from beray.server.auth.service import Accounts
from beray.server.direct import Handlers
from beray.server.errors import Refused, shown
from beray.server.files.conditions import Slice, is_unchanged, matches, wanted_slice
from beray.server.files.digest import repr_digest, wants_sha256
from beray.server.files.headers import content_type, download_headers, http_date, inline_headers
from beray.server.files.service import Expectation, Files
from beray.server.files.streaming import FilePieces, PieceResponse
from beray.server.files.x_accel import NAMES_IT
from beray.server.json_response import JsonResponse
from beray.server.messages import text
from beray.server.refusals import READING, SIGNED_IN, WRITING, refused_with
from beray.server.work_dirs.listing import FOLDER_ENTRIES, TREE_ENTRIES
from beray.server.work_dirs.open_file import OpenFile
from beray.server.work_dirs.paths import MAX_PATH_BYTES

ZIP_PATHS_MOST: Final = 10_000
LINK_PATHS_MOST: Final = 1_000  # a request line has 64 KiB at most
TRUNCATED: Final = "BeRay-Truncated"  # the top folder has no node of its own to carry `truncated`; nor has an output

# What `work_dirs/paths.py` takes (there a name has at most 255 bytes, here characters); for readers of /openapi.json.
_RELATIVE: Final = r"(?!/)(?!(?:[^/]*/)*\.\.(?:/|$))"
_PATH: Final = {
    "maxLength": MAX_PATH_BYTES,
    "pattern": rf"^{_RELATIVE}[^/\u0000]{{1,255}}(?:/+[^/\u0000]{{1,255}})*/*$",
}
_PORTABLE: Final = (
    r"(?:[^/\\%\u0000-\u001f\u007f-\u009f\uef80-\uefff]|%(?![0189A-Fa-f][0-9A-Fa-f]|2[EeFf]|5[Cc]|7[Ff])){1,255}"
)
_NEW_PATH: Final = {
    "maxLength": MAX_PATH_BYTES,
    "pattern": rf"^{_RELATIVE}(?:{_PORTABLE}/+)*(?!\.$){_PORTABLE}$",
}

FilePath = Annotated[str, Query(description="Relative to the work_dir, `/`-separated.", json_schema_extra=_PATH)]
Inline = Annotated[bool, Query(description="To be shown within a page: images, text, PDF, HTML; else a download.")]
NamedPath = Annotated[str, Field(json_schema_extra=_PATH)]
LinkedPaths = Annotated[list[NamedPath] | None, Query(max_length=LINK_PATHS_MOST)]
NewFilePath = Annotated[str, Query(description="The same, and safe on other systems.", json_schema_extra=_NEW_PATH)]


class FileNodeBody(BaseModel):
    name: str
    path: str
    type: Literal["file", "directory", "symlink"]
    size: int
    modified_at: str
    children: list["FileNodeBody"] | None = None
    truncated: bool | None = None


class UploadBody(BaseModel):
    message: str
    path: str
    size: int
    sha256: str


class RemovalBody(BaseModel):
    message: str


class DownloadRequest(BaseModel):
    """What to put into the ZIP; nothing named means everything."""

    paths: list[NamedPath] | None = Field(None, json_schema_extra={"maxItems": ZIP_PATHS_MOST})


_DOWNLOAD_BODY: Final = {
    "requestBody": {"content": {"application/json": {"schema": DownloadRequest.model_json_schema()}}}
}
_UPLOAD_CONTENT: Final = {
    "requestBody": {
        "required": False,  # no body is an empty file
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


# A work_dir is made when it is first asked for: reading may meet a full disk too.
FILE = (
    *WRITING,
    *SIGNED_IN,
    "task_not_found",
    "invalid_path",
    "file_not_found",
    "file_not_permitted",
    "file_busy",
    "not_a_directory",
)
READ_REFUSALS = refused_with(*FILE, "not_a_file", "precondition_failed", "range_not_satisfiable")
WRITE_REFUSALS = refused_with(
    *FILE, "path_is_directory", "precondition_failed", "storage_full", "upload_too_large", "upload_cut"
)
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_BYTES: Final = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
READ_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file.", "content": _BYTES},
    206: {"description": "The part that `Range` asks for.", "content": _BYTES},
    304: {"description": "`If-None-Match` or `If-Modified-Since` names what is still there."},
}
_IS_CUT: Final = {TRUNCATED: {"description": "`true`: only the first 16 MiB are kept.", "schema": {"const": "true"}}}
OUTPUT_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The output.", "content": _TEXT, "headers": _IS_CUT},
    206: {"description": "The part that `Range` asks for.", "content": _TEXT, "headers": _IS_CUT},
    304: READ_ANSWERS[304],
}
OUTPUT_REFUSALS = refused_with(
    *READING, *SIGNED_IN, "task_not_found", "output_not_found", "precondition_failed", "range_not_satisfiable"
)
_THE_FILE: Final = {"task_id": "$request.path.task_id", "path": "$response.body#/path"}
_LINKS: Final = {name: {"operationId": name, "parameters": _THE_FILE} for name in ("read_file", "remove_file")}
WRITE_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A file was replaced.", "model": UploadBody, "links": _LINKS},
    201: {"description": "A file was made.", "links": _LINKS},
}
ZIP_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The archive.", "content": {"application/zip": _BYTES["*/*"]}},
    **refused_with(*FILE, "too_many_files"),
}


def build_router(files: Files, accounts: Accounts) -> tuple[APIRouter, Handlers]:
    """The routes of files, and those of them that are found without the framework."""
    router = APIRouter(tags=["files"])

    @router.get("/tasks/{task_id}/files/tree", response_model=list[FileNodeBody], responses=refused_with(*FILE))
    async def list_files(
        request: Request,
        task_id: int,
        path: FilePath = ".",
        depth: Annotated[int | None, Query(ge=1)] = None,
        limit: Annotated[int, Query(ge=1, le=FOLDER_ENTRIES)] = TREE_ENTRIES,
    ) -> Response:
        """What is in a folder of the work_dir, folders first."""
        user = await accounts.authenticate(request)
        body, is_cut = await files.list_tree(
            user, task_id, path, depth=depth, limit=limit, is_gone=request.is_disconnected
        )
        headers = {TRUNCATED: "true"} if is_cut else None
        return Response(body, media_type="application/json", headers=headers)

    @router.get(
        "/tasks/{task_id}/files/content",
        operation_id="read_file",
        response_class=Response,
        responses=READ_ANSWERS | READ_REFUSALS,
    )
    @router.head("/tasks/{task_id}/files/content", response_class=Response, include_in_schema=False)
    async def read_file(request: Request, task_id: int, path: FilePath, inline: Inline = False) -> Response:
        """A file's bytes, or a part of them (Range)."""
        user = await accounts.authenticate(request)
        file = await files.open_file(user, task_id, path)
        try:
            name = PurePosixPath(path).name
            shown_as = inline_headers(name) if inline else download_headers(name, content_type(path))
            response = _file_response(request, file, path, shown_as)
            if response.status_code != 304 and wants_sha256(request.headers.get("want-repr-digest")):
                sha256 = await files.digest(user, file, is_gone=request.is_disconnected)
                if sha256 is not None:
                    response.add_header("repr-digest", repr_digest(sha256))
            nginx_name = files.x_accel.name_of(file, request.headers) if files.x_accel and response.has_source else None
            if nginx_name is not None:
                response.hand_over(NAMES_IT, nginx_name)
        except BaseException:
            file.close()
            raise
        if not response.has_source:
            file.close()
        return response

    @router.put(
        "/tasks/{task_id}/files/content",
        response_model=UploadBody,
        status_code=201,
        responses=WRITE_ANSWERS | WRITE_REFUSALS,
        openapi_extra=_UPLOAD_CONTENT,
    )
    async def write_file(request: Request, task_id: int, path: NewFilePath) -> Response:
        """Write a file from the raw body, whole or not at all: 201 for a new one, 200 for one replaced."""
        user = await accounts.authenticate(request)
        written = await files.upload(
            user,
            task_id,
            path,
            _body(request, accounts),
            announced_bytes=_announced_bytes(request),
            expectation=Expectation(request.headers.get("if-match"), request.headers.get("if-none-match")),
        )
        answer: UploadAnswer = {
            "message": text("file_uploaded", path=shown(written.path)),
            "path": written.path,
            "size": written.size,
            "sha256": written.sha256,
        }
        status_code = 201 if written.is_new else 200
        return JsonResponse(orjson.dumps(answer), status_code=status_code, headers={"etag": written.etag})

    @router.delete(
        "/tasks/{task_id}/files/content",
        operation_id="remove_file",
        response_model=RemovalBody,
        responses=refused_with(*FILE),
    )
    async def remove_file(request: Request, task_id: int, path: FilePath) -> RemovalBody:
        """Remove a file, a link, or a folder with all that is in it."""
        user = await accounts.authenticate(request)
        await files.remove(user, task_id, path, is_gone=request.is_disconnected)
        return RemovalBody(message=text("file_deleted", path=shown(path)))

    @router.post(
        "/tasks/{task_id}/files/download", response_class=Response, responses=ZIP_ANSWERS, openapi_extra=_DOWNLOAD_BODY
    )
    async def download_files(request: Request, task_id: int) -> Response:
        """The named files and folders as a ZIP; everything when none is named."""
        user = await accounts.authenticate(request)
        paths = _wanted_paths(await request.body())
        return _serve_zip(await files.open_zip(user, task_id, paths, is_gone=request.is_disconnected), task_id)

    @router.get("/tasks/{task_id}/files/download", response_class=Response, responses=ZIP_ANSWERS)
    async def download_files_by_link(
        request: Request,
        task_id: int,
        path: LinkedPaths = None,
    ) -> Response:
        """The same for browsers: `path` may be repeated."""
        user = await accounts.authenticate(request)
        return _serve_zip(await files.open_zip(user, task_id, path or [], is_gone=request.is_disconnected), task_id)

    @router.get(
        "/tasks/{task_id}/output/{call_id}",
        operation_id="read_output",
        response_class=Response,
        responses=OUTPUT_ANSWERS | OUTPUT_REFUSALS,
    )
    @router.head("/tasks/{task_id}/output/{call_id}", response_class=Response, include_in_schema=False)
    async def read_output(request: Request, task_id: int, call_id: str) -> Response:
        """All that a tool call has printed so far, or a part of it (Range): events hold no more than 1 MiB of it."""
        user = await accounts.authenticate(request)
        output = await files.open_output(user, task_id, call_id)
        try:
            name = f"task-{task_id}-{call_id}.log"
            response = _file_response(request, output.file, name, download_headers(name, content_type(name)))
        except BaseException:
            output.close()
            raise
        if output.is_cut:
            response.add_header(TRUNCATED, "true")
        if not response.has_source:
            output.close()
        return response

    def plain_read(request: Request, task_id: int) -> Awaitable[Response] | None:
        path, inline = request.query_params.get("path"), request.query_params.get("inline")
        if not path or inline not in {None, "true"}:
            return None
        return read_file(request, task_id, path, inline=inline is not None)

    def plain_write(request: Request, task_id: int) -> Awaitable[Response] | None:
        path = request.query_params.get("path")
        return write_file(request, task_id, path) if path else None

    content = "/{task_id}/files/content"
    return router, {("GET", content): plain_read, ("HEAD", content): plain_read, ("PUT", content): plain_write}


def _file_response(request: Request, file: OpenFile, path: str, shown_as: Mapping[str, str]) -> PieceResponse:
    """The answer for an open file, which it closes once it has been sent."""
    asked = request.headers
    modified_s = file.modified_ns // 1_000_000_000
    validators = {"etag": file.etag, "last-modified": http_date(modified_s), "accept-ranges": "bytes"}
    if "if-match" in asked and not matches(asked["if-match"], file.etag, is_weak_fine=False):
        raise Refused("precondition_failed", path=shown(path))
    since = asked.get("if-modified-since")
    if is_unchanged(asked.get("if-none-match"), since, etag=file.etag, modified_s=modified_s):
        return PieceResponse(None, status_code=304, headers={**validators, "cache-control": "no-store"})
    is_head = request.method == "HEAD"
    wanted_range = None if is_head else asked.get("range")
    part = wanted_slice(wanted_range, asked.get("if-range"), etag=file.etag, size=file.size)
    headers = {**validators, **shown_as}
    if part is not None:
        headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
    sent = part or Slice(0, file.size)
    headers["content-length"] = str(sent.stop - sent.start)
    source = None if is_head else FilePieces(file, sent)
    return PieceResponse(source, status_code=200 if part is None else 206, headers=headers)


def _serve_zip(source: Any, task_id: int) -> Response:
    return PieceResponse(source, status_code=200, headers=download_headers(f"task_{task_id}.zip", "application/zip"))


async def _body(request: Request, accounts: Accounts) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise Refused("upload_cut") from error
    await accounts.authenticate(request)  # it may have come for hours: whose login has ended writes nothing more


def _announced_bytes(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isascii() and length.isdigit() else None


def _wanted_paths(body: bytes) -> list[str]:
    """The paths of a download request; its Content-Type doesn't matter, and no body means everything."""
    if not body.strip():
        return []
    try:
        paths = DownloadRequest.model_validate_json(body).paths or []
    except ValidationError as error:
        raise RequestValidationError([_in_body(entry) for entry in error.errors(include_url=False)]) from error
    if len(paths) > ZIP_PATHS_MOST:
        raise Refused("too_many_files", most=ZIP_PATHS_MOST)
    return paths


def _in_body(entry: Any) -> dict[str, Any]:
    return {**entry, "loc": ("body", *entry["loc"])}
