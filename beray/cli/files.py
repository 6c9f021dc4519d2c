"""`files ls|get|put|zip|cat`: the work_dir of a task."""

import codecs
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App
from beray.cli.exits import CliError
from beray.cli.language import say
from beray.cli.options import common, pass_app
from beray.cli.terminal import one_line, plain

if TYPE_CHECKING:
    from beray.client import BeRayClient

STDOUT = "-"

Node = Mapping[str, Any]

task_argument = click.argument("task_id", metavar="ID", type=int)
force_option = click.option("-f", "--force", is_flag=True, help=say("help.files.force"))


@click.group(help=say("help.files"))
def files() -> None:
    pass


@files.command(help=say("help.files.ls"))
@task_argument
@click.argument("path", default=".")
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def ls(app: App, *, task_id: int, path: str, is_json: bool) -> None:
    with app.connect() as client:
        tree = client.list_files_tree(task_id, path)
    if is_json:
        app.terminal.result(formats.json_page(tree))
        return
    lines = list(_listing(tree))
    if lines:
        app.terminal.result("\n".join(lines))
    else:
        app.terminal.progress(say("files.none"))


@files.command(help=say("help.files.get"))
@task_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="DEST", help=say("help.files.output"))
@force_option
@common
@pass_app
def get(app: App, *, task_id: int, paths: tuple[str, ...], output: str | None, force: bool) -> None:
    with app.connect() as client:
        if output == STDOUT:
            for path in paths:
                _print_file(app, client, task_id, path)
            return
        for path in paths:
            _get(app, client, task_id, path.rstrip("/"), output, is_only=len(paths) == 1, can_overwrite=force)


@files.command(help=say("help.files.put"))
@task_argument
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("path", required=False)
@common
@pass_app
def put(app: App, *, task_id: int, source: Path, path: str | None) -> None:
    from beray.cli.transfer import LocalFile, attached_files, upload

    found = attached_files([source])
    if path is not None:
        base = found[0].path.split("/")[0] if found else ""
        target = f"{path}{source.resolve().name}" if path.endswith("/") else path
        found = [LocalFile(file.source, target + file.path.removeprefix(base)) for file in found]
    with app.connect() as client:
        for file in found:
            upload(app.terminal, client, task_id, file)
            app.terminal.progress(
                f"{app.terminal.style('good', '✓')} {one_line(str(file.source))} → {one_line(file.path)}"
            )


@files.command(name="zip", help=say("help.files.zip"))
@task_argument
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("-o", "--output", metavar="FILE", help=say("help.files.zip.output"))
@click.option("-x", "--extract", metavar="DIR", type=click.Path(path_type=Path), help=say("help.files.zip.extract"))
@force_option
@common
@pass_app
def zip_(
    app: App, *, task_id: int, paths: tuple[str, ...], output: str | None, extract: Path | None, force: bool
) -> None:
    from beray.cli.transfer import copy, download_archive

    if extract is not None and output is not None:
        raise click.UsageError(say("usage.output_and_extract"))
    if extract is not None:
        _extract(app, task_id, paths, extract, can_overwrite=force)
        return
    if output == STDOUT and sys.stdout.isatty():
        raise click.UsageError(say("usage.zip_to_terminal"))
    with app.connect() as client:
        if output == STDOUT:
            with closing(client.download_files_as_zip(task_id, paths, stream=True)) as response:
                copy(app.terminal, response, sys.stdout.buffer, label=f"task-{task_id}.zip")
            sys.stdout.buffer.flush()
            return
        to = Path(output or f"task-{task_id}.zip")
        place = download_archive(app.terminal, client, task_id, to, paths, can_overwrite=force)
    size = formats.size(place.stat().st_size)
    app.terminal.progress(f"{app.terminal.style('good', '✓')} {one_line(str(place))}  {size}")


def _extract(app: App, task_id: int, paths: tuple[str, ...], folder: Path, *, can_overwrite: bool) -> None:
    """Unpack the archive below `folder`; the archive itself is not kept."""
    from beray.cli.transfer import download_archive, say_downloaded
    from beray.unzip import extract_zip_safely

    with tempfile.TemporaryDirectory() as scratch:
        with app.connect() as client:
            archive = Path(scratch, folder.name or "archive")
            download_archive(app.terminal, client, task_id, archive, paths, can_overwrite=False)
        written = extract_zip_safely(archive, folder, overwrite=can_overwrite)
    for place in written:
        say_downloaded(app.terminal, place.relative_to(folder.resolve()).as_posix(), place)
    if not written:
        app.terminal.progress(say("files.none"))


@files.command(help=say("help.files.cat"))
@task_argument
@click.argument("path")
@common
@pass_app
def cat(app: App, *, task_id: int, path: str) -> None:
    with app.connect() as client:
        _print_file(app, client, task_id, path)


def _print_file(app: App, client: "BeRayClient", task_id: int, path: str) -> None:
    """The file's bytes; on a terminal its text, since what an agent wrote must not steer the terminal."""
    from beray.cli.transfer import CHUNK_BYTES, copy

    with closing(client.get_file_content(task_id, path, stream=True)) as response:
        if sys.stdout.isatty():
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            for chunk in response.iter_content(CHUNK_BYTES):
                app.terminal.stream(plain(decode(chunk)))
            app.terminal.end_stream()
        else:
            copy(app.terminal, response, sys.stdout.buffer, label=path)
            sys.stdout.buffer.flush()


def _get(
    app: App, client: "BeRayClient", task_id: int, path: str, output: str | None, *, is_only: bool, can_overwrite: bool
) -> None:
    """Download one file or folder. `output` names the file itself only where it is the only one and no folder."""
    from beray.cli.transfer import Target, download, download_folder, say_downloaded
    from beray.exceptions import APIError

    folder = Path(output) if output is not None else Path()
    names_file = output is not None and is_only and not output.endswith("/") and not folder.is_dir()
    to = str(folder) if names_file else f"{folder}/"
    try:
        place = download(app.terminal, client, task_id, path or ".", to, can_overwrite=can_overwrite)
    except (APIError, CliError) as error:
        if not _is_of_folder(error, client, task_id, path or "."):
            raise
        if download_folder(app.terminal, client, task_id, path, Target(folder, can_overwrite)) == 0:
            app.terminal.progress(say("files.none"))
        return
    say_downloaded(app.terminal, path, place)


def _is_of_folder(error: Exception, client: "BeRayClient", task_id: int, path: str) -> bool:
    """Whether a download failed because `path` is a folder of the work_dir."""
    from beray.exceptions import APIError

    if isinstance(error, APIError):
        return error.code == "not_a_file"
    if not isinstance(error.__cause__, IsADirectoryError):
        return False
    try:
        client.list_files_tree(task_id, path)  # a folder is in the file's place here; is it one there too?
    except APIError:
        return False
    return True


def _listing(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        name = one_line(node["path"])
        if node["type"] == "directory":
            yield f"{'-':>10}  {name}/"
            yield from _listing(node.get("children") or [])
            if node.get("truncated"):
                yield f"{'…':>10}  {say('files.truncated', path=name)}"
        else:
            suffix = "@" if node["type"] == "symlink" else ""
            yield f"{formats.size(int(node['size'])):>10}  {name}{suffix}"
