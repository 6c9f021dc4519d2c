"""Files up, down, and a tree of them."""

import io
from collections.abc import Iterator
from pathlib import Path

from beray import BeRayClient, extract_zip_safely
from beray.types import FileNode, UploadAnswer


def upload(client: BeRayClient, task_id: int, source: Path) -> str:
    client.upload_file(task_id, "text.txt", "text")
    client.upload_file(task_id, "bytes.bin", b"bytes", "application/octet-stream")
    client.upload_file(task_id, source.name, source)
    with source.open("rb") as file:
        answer: UploadAnswer = client.upload_file(task_id=task_id, path=source.name, content=file)
    return answer["sha256"]


def paths_of(nodes: list[FileNode]) -> Iterator[str]:
    for node in nodes:
        if node["type"] == "directory":
            yield from paths_of(node.get("children", []))
        else:
            yield f"{node['path']} {node['size']} {node['modified_at']}"


def download(client: BeRayClient, task_id: int, folder: Path) -> list[str]:
    print(*paths_of(client.list_files_tree(task_id, path="results")), sep="\n")
    content: bytes = client.get_file_content(task_id, "results/summary.txt").content
    (folder / "summary.txt").write_bytes(content + client.get_tool_output(task_id, "call_1_1_0"))
    archive = client.download_files_as_zip(task_id, ["results/"])
    return [str(path) for path in extract_zip_safely(io.BytesIO(archive.content), folder)]


def remove(client: BeRayClient, task_id: int, path: str) -> str:
    return client.delete_file(task_id, path)["message"]


def whole_folders(client: BeRayClient, task_id: int, folder: Path) -> list[Path]:
    def tell(done: int, total: int | None) -> None:
        print(done, "of", total)

    answers: list[UploadAnswer] = client.upload_dir(task_id, folder, "data", progress=tell)
    print(len(answers))
    client.download_file(task_id, "sorted.txt", folder, overwrite=False)
    archive: Path = client.download_zip(task_id, folder / "all.zip", ["results/"])
    return [archive, *client.download_dir(task_id, "results", folder / "results", progress=tell)]


def at_once(client: BeRayClient, folder: Path) -> list[Path]:
    result = client.run("sort it", files=[folder / "names.txt", "more.txt"], timeout=600)
    print(result.text, result.status, result.usage["requests"], [file["path"] for file in result.files])
    other = client.run("sort it", files={"names.txt": folder / "names.txt", "note.txt": "in reverse"})
    return result.raise_if_failed().download(folder) + other.download("here")
