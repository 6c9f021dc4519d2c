import pytest

from beray.server.files.routes import TRUNCATED
from tests.server.files.files_server import TaskFiles, code_of


def test_tree_is_an_array_of_nodes(task: TaskFiles) -> None:
    task.put("b.txt", b"12")
    task.put("a/c.txt", b"")

    answer = task.tree()

    assert answer.headers["content-type"] == "application/json"
    assert TRUNCATED not in answer.headers
    folder, file = answer.json()
    assert (folder["name"], folder["path"], folder["type"]) == ("a", "a", "directory")
    assert [child["path"] for child in folder["children"]] == ["a/c.txt"]
    assert (file["name"], file["type"], file["size"]) == ("b.txt", "file", 2)
    assert [node["path"] for node in task.tree("a").json()] == ["a/c.txt"]
    assert task.request("GET", "tree").json() == answer.json()


def test_tree_of_nothing_and_of_a_file_are_refused(task: TaskFiles) -> None:
    task.put("x", b"")

    assert code_of(task.tree("nothing")) == "file_not_found"
    assert code_of(task.tree("x")) == "not_a_directory"
    assert task.tree().json()[0]["name"] == "x"


def test_cut_tree_says_so(task: TaskFiles) -> None:
    for name in ("a/1", "a/2", "b"):
        task.put(name, b"")

    cut = task.tree(limit=1)

    assert [node["name"] for node in cut.json()] == ["a"]
    assert cut.headers[TRUNCATED] == "true"
    assert task.tree(depth=1).json()[0]["truncated"] is True


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": -1}, {"limit": 10**30}, {"depth": 0}, {"depth": "x"}])
def test_wrong_bounds_are_refused(task: TaskFiles, params: dict[str, object]) -> None:
    assert code_of(task.tree(**params)) == "validation_error"
