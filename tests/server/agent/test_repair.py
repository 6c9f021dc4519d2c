"""A model that errs and then decides by nothing but what it was told: do the tools say enough to recover?

Each test is a task in which something goes wrong. The story takes its next step from the text of the tool's answer (a
path, a line, a passage, a remedy that stands in it), so a message that says too little makes the test fail.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from beray.client import BeRayClient
from beray.server.agent.models.choice import ModelChoice
from tests.support.agent_bench import Bench, Crash
from tests.support.learning_model import Story, learning
from tests.support.scripted_model import Reply, ScriptedModel, call, failure, results_of
from tests.support.story import assert_true_story

GOAL = "Do the task."
DONE = call("finish", summary="Done and checked.")


class Repair:
    """One task: its files, its run, and what came of it."""

    def __init__(self, bench: Bench, scripted: Callable[..., ScriptedModel]) -> None:
        self.bench = bench
        self.server: ScriptedModel | None = None
        self._scripted = scripted

    @property
    def work_dir(self) -> Path:
        return self.bench.work_dir

    def give(self, name: str, content: str | bytes) -> None:
        path = self.work_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, name: str) -> str:
        return (self.work_dir / name).read_text()

    async def run(
        self, story: Callable[[], Story], *, failures: int = 1, disturbed: Mapping[int, Reply] | None = None
    ) -> list[str]:
        """Play it; it must complete after `failures` calls that failed. What the model was told."""
        self.server = self._scripted(learning(story, disturbed=disturbed))
        return await self.go_on(failures=failures)

    async def go_on(self, *, failures: int) -> list[str]:
        assert self.server is not None
        model = ModelChoice("openai:scripted", "model", base_url=self.server.base_url, is_own_url=True)
        outcome = await self.bench.run(GOAL, model=model)
        assert (outcome.is_completed, outcome.result) == (True, "Done and checked."), outcome.error
        events = await self.bench.events()
        assert_true_story(events)
        assert sum(event["type"] == "tool.finished" and not event["ok"] for event in events) == failures
        return results_of(self.server.requests[-1])


@pytest.fixture
def repair(bench, scripted):
    return Repair(bench, scripted)


def found(pattern: str, told: str) -> str:
    """What the first group matched in the answer; a story that finds nothing there can't go on."""
    match = re.search(pattern, told)
    assert match is not None, f"{pattern} is not in: {told}"
    return match[1]


def has_succeeded(told: str) -> bool:
    return told.startswith("exit code 0")


# ---- edits


def passage_in(told: str) -> str:
    """The lines of the file that a failed edit shows, with tabs and blanks as they are."""
    rows = told.partition("Lines with - stand in the file")[2].splitlines()[1:]
    stand = [row[1:] for row in rows if row[:1] in {"-", " "} and not row.startswith("---")]
    return "\n".join(row.replace("→", "\t").replace("·", " ") for row in stand)


EDITED = "def greet():\n\tname = 'world'\n\tprint('hallo', name)\n"


def edit_with_wrong_blanks() -> Story:
    told = yield call("edit_file", path="greet.py", old="    print('hallo', name)", new="    print('hello', name)")
    line = next(line for line in passage_in(told).splitlines() if "hallo" in line)
    yield call("edit_file", path="greet.py", old=line, new=line.replace("hallo", "hello"))
    told = yield call("shell", command="python3 -c 'import greet; greet.greet()'")
    assert "hello world" in told
    yield DONE


async def test_bad_edit_shows_the_passage_as_it_stands(repair):
    repair.give("greet.py", EDITED)

    await repair.run(edit_with_wrong_blanks)

    assert repair.read("greet.py") == EDITED.replace("hallo", "hello")


async def test_edit_that_is_not_unique_tells_the_lines(repair):
    """The second of two equal lines is meant: the one in `stop`."""
    start, stop = (f"def {name}():\n    state = 0\n    return state\n" for name in ("start", "stop"))
    repair.give("app.py", f"{start}\n{stop}")

    def story() -> Story:
        told = yield call("edit_file", path="app.py", old="    state = 0", new="    state = 1")
        line = int(found(r"lines \d+, (\d+)", told))
        told = yield call("read_file", path="app.py", offset=line - 1, limit=2)
        old = "\n".join(told.splitlines()[:2])
        yield call("edit_file", path="app.py", old=old, new=old.replace("0", "1"))
        yield DONE

    await repair.run(story)

    assert repair.read("app.py") == start + "\n" + stop.replace("0", "1")


# ---- programs that fail


async def test_failing_test_tells_file_and_line(repair):
    repair.give("calc.py", "def add(a, b):\n    assert isinstance(a, int)\n    return a - c\n")
    repair.give("test_calc.py", "import calc\n\nassert calc.add(2, 2) == 4, calc.add(2, 2)\nprint('passed')\n")

    def story() -> Story:
        told = yield call("shell", command="python3 test_calc.py")
        path, line = found(r'File ".*?(calc\.py)", line \d+, in add', told), int(found(r"line (\d+), in add", told))
        wrong = yield call("read_file", path=path, offset=line, limit=1)
        wrong = wrong.splitlines()[0]
        name = found(r"name '(\w+)' is not defined", told)
        yield call("edit_file", path=path, old=wrong, new=wrong.replace(name, "b"))
        told = yield call("shell", command="python3 test_calc.py")
        gave = int(found(r"AssertionError: (-?\d+)", told))
        assert gave == 0
        right = wrong.replace(name, "b")
        yield call("edit_file", path=path, old=right, new=right.replace("-", "+"))
        told = yield call("shell", command="python3 test_calc.py")
        assert has_succeeded(told)
        yield DONE

    await repair.run(story, failures=2)

    assert repair.read("calc.py").endswith("    return a + b\n")


async def test_flaky_command_is_run_again(repair):
    busy = "{ touch tried; echo 'busy, try again' >&2; exit 75; }"
    repair.give("fetch.sh", f"test -e tried || {busy}; echo data > fetched\n")

    def story() -> Story:
        told = yield call("shell", command="sh fetch.sh")
        if found(r"exit code (\d+)", told) == "75" and "try again" in told:
            told = yield call("shell", command="sh fetch.sh")
        assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("fetched") == "data\n"


async def test_missing_program_is_done_without(repair):
    repair.give("data.json", '{"name": "beray"}')

    def story() -> Story:
        told = yield call("shell", command="jsonpick .name data.json > name")
        if found(r"exit code (\d+)", told) == "127" and "jsonpick: command not found" in told:
            told = yield call(
                "python", code="import json; open('name', 'w').write(json.load(open('data.json'))['name'])"
            )
        assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("name") == "beray"


async def test_syntax_error_tells_the_line(repair):
    code = "rows = [1, 2, 3]\ntotal = sum(rows\nopen('total', 'w').write(str(total))\n"

    def story() -> Story:
        told = yield call("python", code=code)
        line, bracket = int(found(r"line (\d+)", told)), found(r"'(.)' was never closed", told)
        lines = code.splitlines()
        lines[line - 1] += {"(": ")", "[": "]"}[bracket]
        told = yield call("python", code="\n".join(lines))
        assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("total") == "6"


async def test_timeout_says_to_do_less_at_once(repair):
    repair.give("work.sh", 'if [ "$1" = all ]; then sleep 60; fi; echo "part $1" >> parts\n')

    def story() -> Story:
        told = yield call("shell", command="sh work.sh all", timeout=1)
        assert "timed out after 1 s" in told
        assert "do less at once" in told
        for part in ("1", "2", "3"):
            told = yield call("shell", command=f"sh work.sh {part}", timeout=30)
            assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("parts") == "part 1\npart 2\npart 3\n"


async def test_permission_denied_is_run_another_way(repair):
    """Whoever may read a script may give it to its interpreter."""
    repair.give("build.sh", "#!/bin/sh\necho built > built\n")

    def story() -> Story:
        told = yield call("shell", command="./build.sh")
        if found(r"exit code (\d+)", told) == "126":
            script = found(r"(\S+): Permission denied", told)
            told = yield call("shell", command=f"sh {script}")
        assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("built") == "built\n"


async def test_truncated_output_is_asked_for_more_narrowly(repair):
    lines = [f"line {number} is like all others" for number in range(5000)]
    lines[2500] = "ERROR code=4711"
    repair.give("big.log", "\n".join(lines))

    def story() -> Story:
        told = yield call("shell", command="cat big.log")
        assert "ERROR" not in told
        tool = found(r"bytes left out here; use .*?\b(grep)\b", told)
        told = yield call("shell", command=f"{tool} ERROR big.log")
        yield call("write_file", path="code", content=found(r"code=(\d+)", told))
        yield DONE

    await repair.run(story, failures=0)

    assert repair.read("code") == "4711"


# ---- paths and files


async def test_wrong_path_is_looked_for(repair):
    repair.give("lib/settings.py", "PORT = 80\n")
    repair.give("README", "read me\n")

    def story() -> Story:
        told = yield call("edit_file", path="settings.py", old="80", new="8080")
        meant = found(r"Did you mean (\S+?)\?", told)
        told = yield call("edit_file", path=meant, old="80", new="8080")
        assert told.startswith("Edited")
        yield DONE

    await repair.run(story)

    assert repair.read("lib/settings.py") == "PORT = 8080\n"


async def test_wrong_folder_is_found_out(repair):
    """The shell stays where an earlier command went."""
    repair.give("src/data.txt", "a\nb\nc\n")

    def story() -> Story:
        yield call("shell", command="cd src")
        told = yield call("shell", command="wc -l < src/data.txt > count")
        assert "src/data.txt: No such file or directory" in told
        told = yield call("shell", command="pwd; ls")
        assert found(r"/(\w+)\n", told) == "src"
        assert "data.txt" in told
        told = yield call("shell", command="cd .. && wc -l < src/data.txt > count")
        assert has_succeeded(told)
        yield DONE

    await repair.run(story)

    assert repair.read("count").strip() == "3"
    assert not (repair.work_dir / "src/count").exists()


async def test_binary_file_is_read_by_a_program(repair):
    repair.give("names.txt", "Zürich\n".encode("latin-1"))

    def story() -> Story:
        told = yield call("read_file", path="names.txt")
        assert "not UTF-8 text" in told
        tool = found(r"Use the shell to look at it: .*?(iconv)", told)
        told = yield call("shell", command=f"{tool} -f latin1 -t utf-8 names.txt")
        yield call("write_file", path="utf8.txt", content=told.splitlines()[1] + "\n")
        yield DONE

    await repair.run(story)

    assert repair.read("utf8.txt") == "Zürich\n"


async def test_file_that_is_too_large_is_read_in_part(repair):
    repair.give("huge.csv", b"0,0\n" * (9 << 18) + b"total,42\n")

    def story() -> Story:
        told = yield call("read_file", path="huge.csv")
        assert "huge.csv is larger than" in told
        tool = found(r"Use the shell: .*?(tail)", told)
        told = yield call("shell", command=f"{tool} -n 1 huge.csv")
        yield call("write_file", path="total", content=found(r"total,(\d+)", told))
        yield DONE

    await repair.run(story)

    assert repair.read("total") == "42"


async def test_bad_pattern_is_escaped(repair):
    repair.give("app.c", "int main(void) {\n  setup(\n    1);\n}\n")

    def story() -> Story:
        pattern = "setup("
        told = yield call("search_files", pattern=pattern)
        bracket = found(r"Unmatched (.)", told)
        told = yield call("search_files", pattern=pattern.replace(bracket, f"\\{bracket}"))
        yield call("write_file", path="where", content=found(r"app\.c:(\d+):", told))
        yield DONE

    await repair.run(story)

    assert repair.read("where") == "2"


# ---- calls that are none


async def test_wrong_argument_is_named(repair):
    def story() -> Story:
        told = yield call("write_file", file_path="a.txt", content="a")
        name = found(r'"missing","loc":\["(\w+)"\]', told)
        yield call("write_file", **{name: "a.txt", "content": "a"})
        yield DONE

    await repair.run(story)

    assert repair.read("a.txt") == "a"


async def test_malformed_json_is_said_to_be_so(repair):
    def story() -> Story:
        broken = '{"path": "a.txt", "content": "it said "hi""}'
        told = yield call("write_file", raw=broken)
        assert "Invalid JSON" in told
        yield call("write_file", path="a.txt", content='it said "hi"')
        yield DONE

    await repair.run(story)

    assert repair.read("a.txt") == 'it said "hi"'


async def test_unknown_tool_is_told_the_known_ones(repair):
    def story() -> Story:
        told = yield call("bash", command="echo a > a.txt")
        known = re.findall(r"'(\w+)'", told.partition("Available tools")[2])
        name = next(name for name in known if name in {"shell", "run", "terminal"})
        yield call(name, command="echo a > a.txt")
        yield DONE

    await repair.run(story)

    assert repair.read("a.txt") == "a\n"


async def test_finish_with_a_missing_file_tells_which(repair):
    def story() -> Story:
        yield call("shell", command="echo text > Report.md")
        told = yield call("finish", summary="Done.", files=["report.md"])
        name = found(r"Did you mean (\S+?)\?", told)
        yield call("finish", summary="Done and checked.", files=[name])

    await repair.run(story)


async def test_finish_beside_a_failure_is_put_off(repair):
    def story() -> Story:
        first, last = yield [call("shell", id="a", command="mkdri out"), call("finish", id="b", summary="Done.")]
        assert "earlier call in the same answer failed" in last
        assert found(r"exit code (\d+)", first) == "127"
        told = yield call("shell", command="mkdir out")
        assert has_succeeded(told)
        yield DONE

    await repair.run(story, failures=2)

    assert (repair.work_dir / "out").is_dir()


# ---- faults in the middle


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "fault",
    [Reply(["Half ", "a thought"], cuts_after=2), failure(500, "broken"), Reply()],
    ids=["cut stream", "server error", "empty answer"],
)
async def test_fault_of_the_model_in_the_middle_loses_nothing(repair, number, fault):
    repair.give("greet.py", EDITED)

    await repair.run(edit_with_wrong_blanks, disturbed={number: fault})

    assert repair.read("greet.py") == EDITED.replace("hallo", "hello")


async def test_interrupted_call_is_looked_into_and_not_repeated_blindly(repair):
    """The process dies when the command has done its work and before that is known."""

    def story() -> Story:
        told = yield call("shell", command="echo paid >> payments")
        if "Interrupted" in told and "Inspect" in told:
            told = yield call("shell", command="cat payments")
        assert "paid" in told or has_succeeded(told)
        yield DONE

    def die(when: str, types: tuple[str, ...]) -> None:
        if when == "before" and "tool.finished" in types:
            raise Crash

    repair.bench.crash = die
    with pytest.raises(Crash):
        await repair.run(story)
    repair.bench.crash = None
    told = await repair.go_on(failures=1)

    assert told[0].startswith("Interrupted")
    assert repair.read("payments") == "paid\n"


FETCH = 'from urllib.request import urlopen; print(urlopen("http://127.0.0.1:8123/page", timeout=5).read().decode())'


@pytest.mark.needs("bubblewrap")
def test_background_server_is_tried_in_one_command(make_server):
    """No other command reaches its ports, which the tool says beforehand; the model tries anyway, once."""
    serve = "python3 -m http.server 8123 --bind 127.0.0.1"

    def story() -> Story:
        yield call("write_file", path="page", content="served")
        told = yield call("shell", command=serve, background=True)
        name = found(r"background as (\S+?)\.", told)
        told = yield call("python", code=FETCH)
        assert not has_succeeded(told)
        assert re.search(r"refused|unreachable|not permitted", told)
        yield call("background", raw=json.dumps({"action": "stop", "id": name}))
        together = f"{serve} 2>/dev/null & until python3 -c '{FETCH}' > got 2>/dev/null; do :; done"
        told = yield call("shell", command=together, timeout=60)
        assert has_succeeded(told)
        yield call("finish", summary="Done and checked.", files=["got"])

    with ScriptedModel(learning(story)) as model:
        server = make_server(
            sandbox="bubblewrap", model="openai:scripted", model_base_url=model.base_url, model_api_key="key"
        ).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task(GOAL)["id"]
            events = list(client.stream_task_updates(task_id))

            assert events[-1]["status"] == "completed", events[-1]["error"]
            assert client.get_file_content(task_id, "got").text == "served\n"
    assert [event["ok"] for event in events if event["type"] == "tool.finished"].count(False) == 1
