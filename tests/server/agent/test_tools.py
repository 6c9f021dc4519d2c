"""What each tool does and tells, called by a model through the loop."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.tools import TOOL_NAMES, shell
from beray.server.agent.tools.output import HeadAndTail, LiveOutput, OutputLog
from beray.server.agent.tools.shell import parse_report
from tests.support.scripted_model import Reply, call, turns


async def test_a_command_tells_its_exit_code_and_output(bench, use):
    (told,) = await use(call("shell", command="echo out; echo err >&2; exit 3"))

    assert told.startswith("exit code 3")
    assert "out" in told
    assert "err" in told
    output = await bench.events("tool.output")
    assert {(event["stream"], event["delta"]) for event in output} == {("stdout", "out\n"), ("stderr", "err\n")}
    finished = (await bench.events("tool.finished"))[0]
    assert (finished["ok"], finished["exit_code"], finished["summary"]) == (False, 3, "exit code 3")


async def test_folder_and_variables_are_carried_to_the_next_command(bench, use):
    told = await use(
        call("shell", command="mkdir -p 'a b' && cd 'a b' && export X='1\n2' Y=z; Z=hidden"),
        call("shell", command='pwd; echo "$X|$Y|$Z"; exit 1'),
        call("shell", command='pwd; echo "$X"; unset X; export PATH="$PWD:$PATH"; cd ..'),
        call("shell", command='pwd; echo "x=$X"; case $PATH in "$PWD/a b":*) echo first;; esac'),
        call("python", code="import os; print(os.getcwd())"),
    )

    here = str(bench.work_dir)
    assert f"{here}/a b\n1\n2|z|\n" in told[1]
    assert f"{here}/a b\n1\n2" in told[2]
    assert f"{here}\nx=\nfirst" in told[3]
    assert told[4].endswith(f"{here}\n")


async def test_folder_and_variables_are_carried_where_the_kernel_does_not_tell_an_environment(bench, use, monkeypatch):
    """Landlock forbids a command of another uid to read its own in /proc."""
    monkeypatch.setattr(shell, "_WRAPPER", shell._WRAPPER.replace("/proc/$$/environ", "/nowhere"))

    told = await use(call("shell", command="mkdir a; cd a; export X=1"), call("shell", command="pwd; echo x=$X"))

    assert f"{bench.work_dir}/a\nx=1\n" in told[1]


async def test_lines_of_a_command_are_numbered_as_the_model_wrote_them(use):
    told = await use(
        call("shell", command="true\nno-such-program"), call("shell", command="cat <<END\ntext\nEND\necho )")
    )

    assert "line 2: no-such-program" in told[0]
    assert "line 4: syntax error" in told[1]


async def test_leaving_the_work_dir_is_not_carried_on(bench, use):
    told = await use(call("shell", command="cd /"), call("shell", command="pwd"))

    assert "outside the work_dir" in told[0]
    assert str(bench.work_dir) in told[1]


async def test_a_command_that_breaks_its_shell_keeps_what_was(use):
    told = await use(
        call("shell", command="mkdir d; cd d; export A=1"),
        call("shell", command="kill -9 $$"),
        call("shell", command="exec 3>hello; echo x >&3; exec true"),
        call("shell", command="if"),
        call("shell", command="basename $PWD; echo $A; cat hello"),
    )

    assert "signal 9" in told[1]
    assert told[3].startswith("exit code 2")
    assert told[4].endswith("d\n1\nx\n")


async def test_a_command_past_its_time_is_killed_with_its_children(bench, use):
    told = await use(call("shell", command="echo begun; sleep 50 & sleep 50", timeout=1))

    assert "timed out after 1 s" in told[0]
    assert "begun" in told[0]
    assert (await bench.events("tool.finished"))[0]["ok"] is False
    assert bench.sandbox.running == set()


@pytest.mark.parametrize("command", ["", "   ", "a\0b", "x" * 100_001], ids=["empty", "blank", "nul", "long"])
async def test_a_command_that_cannot_be_is_refused(use, command):
    (told,) = await use(call("shell", command=command))

    assert told.startswith("Error: ")


async def test_only_commands_of_the_agent_have_the_tasks_way_to_the_network(bench, use):
    await use(
        call("shell", command="true"),
        call("shell", command="true", background=True),
        call("python", code="pass"),
        call("search_files", pattern="x"),
    )

    assert [spec.task_id for spec in bench.sandbox.started] == [1, 1, 1, None]


async def test_commands_do_not_see_the_servers_environment(use, monkeypatch):
    monkeypatch.setenv("BERAY_MODEL_API_KEY", "canary-key")
    told = await use(call("shell", command="env"), call("python", code="import os; print(dict(os.environ))"))

    assert "canary-key" not in "".join(told)


async def test_long_output_is_cut_for_the_model_capped_for_people_and_whole_in_the_log(bench, use):
    (told,) = await use(call("shell", command="seq 1 300000; echo END"))

    assert len(told.encode()) < 17_000
    assert "1\n2\n3" in told
    assert told.endswith("END\n")
    assert "bytes left out" in told
    output = await bench.events("tool.output")
    assert sum(len(event["delta"]) for event in output) == 1 << 20
    assert max(len(event["delta"]) for event in output) <= 8192
    assert [event["truncated"] for event in output] == [False] * (len(output) - 1) + [True]
    assert (await bench.events("tool.finished"))[0]["truncated"] is True
    log = (bench.root / "output" / "call_1_1_0.log").read_text()
    assert log == "".join(f"{number}\n" for number in range(1, 300_001)) + "END\n"


async def test_command_does_not_fail_for_a_log_that_cannot_be_kept(bench, use, caplog):
    (bench.root / "output").write_text("a file, where the folder of logs should be")

    (told,) = await use(call("shell", command="seq 3"))

    assert "exit code 0" in told
    assert "not kept whole" in caplog.text


async def test_output_that_is_no_text_is_shown_as_such(bench, use):
    await use(call("shell", command=r"printf '\344\275\240\377\0\033[31mred\n'"))

    shown = "".join(event["delta"] for event in await bench.events("tool.output"))
    assert shown == "你\ufffd\0\x1b[31mred\n"


def test_characters_cut_between_pieces_are_put_together():
    live = LiveOutput("c")
    whole = "你好🎉"

    text = "".join(live.decode("stdout", bytes([byte])) for byte in whole.encode())

    assert text == whole


@pytest.mark.parametrize("size", [0, 1, 15_999, 16_000, 16_001, 100_000])
@pytest.mark.parametrize("piece", [1_000, 7, 65_536])
def test_head_and_tail_lose_nothing_but_the_middle(size, piece):
    kept = HeadAndTail()
    whole = (b"0123456789" * (size // 10 + 1))[:size]
    for start in range(0, size, piece):
        kept.add(whole[start : start + piece])

    text = kept.text()

    if size <= 16_000:
        assert text.encode() == whole
    else:
        assert text.startswith(whole[:4000].decode())
        assert text.endswith(whole[-12_000:].decode())
        assert f"{size - 16_000} bytes left out" in text


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("character", ["é", "你", "🎉"])
def test_a_cut_leaves_no_part_of_a_character_and_hides_no_bad_byte(character, before):
    """Whole characters or none of them at the cut; what is no text elsewhere is shown as such."""
    kept = HeadAndTail()
    kept.add(b"x" * before + b"\xff" + (character * 8000).encode() + b"\xfe")

    head, marker, tail = re.split(r"\n(\[.+ bytes left out here.+\])\n", kept.text())

    assert set(head) == {*("x" * before), "\ufffd", character}
    assert set(tail) == {"\ufffd", character}
    assert (head.count("\ufffd"), tail.count("\ufffd")) == (1, 1)
    shown = len(head.encode()) + len(tail.encode()) - 2 * 2  # each bad byte is shown as three
    assert int(re.search(r"\d+", marker)[0]) == before + 2 + len((character * 8000).encode()) - shown


async def test_files_a_command_changed_are_told_to_people(bench, use):
    (bench.work_dir / "old").write_text("1")
    (bench.work_dir / "gone").write_text("1")
    await use(call("shell", command="echo 22 > old; rm gone; mkdir d; echo 333 > d/new"))

    changed = [(event["path"], event["change"], event["size"]) for event in await bench.events("file.changed")]
    assert changed == [("d/new", "created", 4), ("gone", "deleted", 0), ("old", "modified", 3)]


async def test_python_runs_a_program(bench, use):
    told = await use(
        call("python", code="x = '你好'\nprint(x)\nopen('f', 'w').write('1')"), call("python", code="1 / 0")
    )

    assert told[0].endswith("你好\n")
    assert "ZeroDivisionError" in told[1]
    assert [event["path"] for event in await bench.events("file.changed")] == ["f"]


async def test_without_an_interpreter_there_is_no_python_tool(bench, scripted):
    server = scripted(turns(Reply("done")))
    bench.python = None

    await bench.run("go", model=ModelChoice("openai:scripted", "model", base_url=server.base_url))

    offered = [tool["function"]["name"] for tool in server.requests[0]["tools"]]
    assert offered == [name for name in TOOL_NAMES if name not in {"python", "ask_user"}]  # nobody to ask here


async def test_only_the_tasks_tools_are_offered(bench, scripted):
    server = scripted(turns(Reply("done")))

    await bench.run(
        "go", model=ModelChoice("openai:scripted", "model", base_url=server.base_url), tools=("read_file", "shell")
    )

    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == ["shell", "read_file"]


async def test_every_tool_and_argument_is_described_to_the_model(bench, scripted):
    server = scripted(turns(Reply("done")))

    await bench.run("go", model=ModelChoice("openai:scripted", "model", base_url=server.base_url))

    for tool in server.requests[0]["tools"]:
        function = tool["function"]
        assert len(function["description"]) > 30
        for argument in function["parameters"]["properties"].values():
            assert argument["description"]


async def test_a_file_is_written_read_and_edited(bench, use):
    told = await use(
        call("write_file", path="src/a.txt", content="one\ntwo\nthree\n"),
        call("edit_file", path="src/a.txt", old="two", new="2"),
        call("read_file", path="src/a.txt"),
        call("read_file", path="src/a.txt", offset=2, limit=1),
    )

    assert "14 bytes" in told[0]
    assert told[2] == "one\n2\nthree\n"
    assert told[3] == "2\n\n[lines 2 to 2 of 3; go on with offset=3]"
    changed = [(event["path"], event["change"], event["size"]) for event in await bench.events("file.changed")]
    assert changed == [("src/a.txt", "created", 14), ("src/a.txt", "modified", 12)]


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ("four", "does not stand in"),
        ("def  f(x):", "-def f(x):\n+def  f(x):"),
        ("x", "4 times (lines 1, 2, 2, 3)"),
        ("", "`old` is empty"),
    ],
)
async def test_an_edit_that_fits_not_exactly_once_changes_nothing_and_helps(bench, use, old, told):
    content = "def f(x):\n    x = x\n    return x\n"
    (bench.work_dir / "a.py").write_text(content)

    (answer,) = await use(call("edit_file", path="a.py", old=old, new="new"))

    assert told in answer
    assert (bench.work_dir / "a.py").read_text() == content


async def test_an_edit_keeps_windows_line_ends(bench, use):
    (bench.work_dir / "a.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")

    await use(call("edit_file", path="a.txt", old="one\ntwo", new="1\n2"))

    assert (bench.work_dir / "a.txt").read_bytes() == b"1\r\n2\r\nthree\r\n"


@pytest.mark.parametrize(
    "made",
    [
        call("read_file", path="/etc/passwd"),
        call("read_file", path="../../etc/passwd"),
        call("read_file", path="link"),
        call("read_file", path="nothing"),
        call("read_file", path="."),
        call("write_file", path="../x", content=""),
        call("write_file", path="out/x", content=""),
        call("edit_file", path="/etc/passwd", old="root", new="x"),
        call("list_files", path="/etc"),
        call("list_files", path=".."),
        call("read_file", path="a\0b"),
        call("read_file", path="binary"),
        call("search_files", pattern="root", path="/etc"),
    ],
    ids=lambda made: made["arguments"],
)
async def test_nothing_outside_the_work_dir_is_reached(bench, use, made):
    (bench.work_dir / "link").symlink_to("/etc/passwd")
    (bench.work_dir / "out").symlink_to("/tmp")
    (bench.work_dir / "binary").write_bytes(b"\xff\xfe\0")

    (told,) = await use(made)

    assert told.startswith("Error: ")
    assert "root:" not in told


async def test_writing_what_is_there_changes_nothing(bench, use):
    told = await use(
        call("write_file", path="a.txt", content="one\n"),
        call("write_file", path="a.txt", content="one\n"),
        call("write_file", path="a.txt", content="one"),
    )

    assert told == [
        "Wrote 4 bytes to a.txt.",
        "a.txt holds exactly this already; nothing was changed.",
        "Wrote 3 bytes to a.txt (replaced).",
    ]
    assert len(await bench.events("file.changed")) == 2


async def test_a_long_file_is_read_part_by_part(bench, use):
    """Each part says where the next begins; a line too long to be shown is named, and does not hide the others."""
    (bench.work_dir / "long.txt").write_text("".join(f"{number:04} {'x' * 94}\n" for number in range(1, 1001)))
    (bench.work_dir / "wide.txt").write_text(f"one\n{'y' * 70_000}\nthree\x0cstill three\n")

    told = await use(
        call("read_file", path="long.txt"),
        call("read_file", path="long.txt", offset=601),
        call("read_file", path="wide.txt"),
        call("read_file", path="wide.txt", offset=2),
        call("read_file", path="wide.txt", offset=3),
        call("read_file", path="wide.txt", offset=4),
    )

    assert told[0].endswith("[lines 1 to 600 of 1000; go on with offset=601]")
    assert told[1].startswith("0601 ")
    assert told[1].endswith(f"1000 {'x' * 94}\n")
    assert told[2] == "one\n\n[lines 1 to 1 of 3; go on with offset=2]"
    assert "[line 2 has 70001 characters; for its rest use cut -c]" in told[3]
    assert told[3].endswith("[lines 2 to 2 of 3; go on with offset=3]")
    assert told[4] == "three\x0cstill three\n"
    assert told[5] == "Error: wide.txt has 3 lines; offset 4 is behind its end."


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (call("read_file", path="main.py"), "There is no main.py in the work_dir. Did you mean src/main.py?"),
        (call("read_file", path="src/mian.py"), "There is no src/mian.py in the work_dir. Did you mean src/main.py?"),
        (call("read_file", path="SRC/Main.py"), "Did you mean src/main.py?"),
        (call("edit_file", path="src/other", old="a", new="b"), "src is a folder. It holds lib/, main.py."),
        (call("read_file", path="zzz"), "no zzz in the work_dir. The work_dir holds empty/, src/, notes.txt."),
        (call("read_file", path="src"), "src is a folder. It holds lib/, main.py."),
        (call("read_file", path="empty"), "empty is a folder. It holds nothing."),
        (call("list_files", path="scr"), "There is no scr in the work_dir. Did you mean src?"),
        (call("list_files", path="notes.txt"), "notes.txt is not a directory. Read a file with read_file."),
        (
            call("finish", summary="done", files=["main.py"]),
            "Not finished: There is no main.py in the work_dir. Did you",
        ),
    ],
    ids=lambda value: value["arguments"] if isinstance(value, dict) else "",
)
async def test_a_path_that_leads_astray_is_told_what_is_there(bench, use, made, told):
    for folder in ("src/lib", "empty"):
        (bench.work_dir / folder).mkdir(parents=True)
    (bench.work_dir / "src/main.py").write_text("x")
    (bench.work_dir / "notes.txt").write_text("x")

    (answer,) = await use(made)

    assert told in answer


async def test_a_path_meant_from_the_shells_folder_is_recognised(bench, use):
    told = await use(
        call("shell", command="mkdir -p src && cd src && echo x > main.py"), call("read_file", path="main.py")
    )

    assert told[1].endswith("not to the shell's current folder: use src/main.py.")


async def test_files_are_listed_with_their_sizes(bench, use):
    for path in ("a.py", "src/b.py", ".git/config", "src/c.txt"):
        (bench.work_dir / path).parent.mkdir(exist_ok=True)
        (bench.work_dir / path).write_text("xyz")

    everything, python, src, none = await use(
        call("list_files"),
        call("list_files", glob="*.py"),
        call("list_files", path="src"),
        call("list_files", path="src", glob="*.rs"),
    )

    *files, left_out = everything.splitlines()
    assert [line.split() for line in files] == [["3", "src/b.py"], ["3", "src/c.txt"], ["3", "a.py"]]
    assert left_out == "[left out: .git]"
    assert python.splitlines()[:-1] == ["         3  src/b.py", "         3  a.py"]
    assert none == "(no file matches *.rs; there are 2 others)"
    assert src.split() == ["3", "src/b.py", "3", "src/c.txt"]


async def test_a_listing_of_long_names_is_bounded(bench, use):
    for number in range(400):
        (bench.work_dir / f"{number:03}{'n' * 240}").touch()

    (told,) = await use(call("list_files"))

    assert len(told) < 60_100
    assert told.endswith("\n[cut: there are more; list a folder below]")


async def test_files_are_searched(bench, use):
    (bench.work_dir / "a.py").write_text("x = 1\ny = 22\n")
    (bench.work_dir / "b.txt").write_text("z = 333\n")

    found, narrow, none, bad, dash = await use(
        call("search_files", pattern="= [0-9]{2,}"),
        call("search_files", pattern="=", glob="*.py"),
        call("search_files", pattern="nowhere"),
        call("search_files", pattern="("),
        call("search_files", pattern="-x"),
    )

    assert sorted(found.splitlines()) == ["a.py:2:y = 22", "b.txt:1:z = 333"]
    assert narrow.splitlines() == ["a.py:1:x = 1", "a.py:2:y = 22"]
    assert none == dash == "(no matches)"
    assert bad.startswith("Error: ")


async def test_a_search_shows_context_and_says_what_is_wrong(bench, use):
    (bench.work_dir / "a-1-b.py").write_text("".join(f"line {number}\n" for number in range(1, 10)))

    around, perl, missing, one_file, cut = await use(
        call("search_files", pattern="line 5", context=1),
        call("search_files", pattern=r"line \d\d"),
        call("search_files", pattern="x", path="a-1.py"),
        call("search_files", pattern="line 9", path="a-1-b.py"),
        call("search_files", pattern="line (5"),
    )

    assert around.splitlines() == ["a-1-b.py-4-line 4", "a-1-b.py:5:line 5", "a-1-b.py-6-line 6"]
    assert perl.splitlines() == ["(no matches)", r"[grep -E knows neither \d nor (?: ; write [0-9] and ( instead]"]
    assert missing == "Error: There is no a-1.py in the work_dir. Did you mean a-1-b.py?"
    assert one_file == "a-1-b.py:9:line 9"
    assert cut.startswith("Error: The search failed: grep: ")
    assert r"\(" in cut
    assert (await bench.events("tool.finished"))[0]["summary"] == "1 matches"


async def test_many_matches_are_cut_and_that_is_said(bench, use):
    (bench.work_dir / "a.txt").write_text("x\n" * 500)
    (bench.work_dir / "b.txt").write_text("y\n" * 200)

    more, all_of_them = await use(call("search_files", pattern="x"), call("search_files", pattern="y"))

    assert len(more.splitlines()) == 201
    assert more.endswith("[only the first 200 lines; narrow the pattern, path or glob]")
    assert len(all_of_them.splitlines()) == 200


async def test_a_plan_is_shown_to_people(bench, use):
    items = [{"text": "first", "status": "done"}, {"text": "second"}]

    await use(call("update_plan", items=items))

    (updated,) = await bench.events("plan.updated")
    assert updated["items"] == [{"text": "first", "status": "done"}, {"text": "second", "status": "todo"}]


async def test_finishing_with_a_file_that_is_not_there_is_refused(use):
    (told,) = await use(call("finish", summary="done", files=["nothing.txt"]))

    assert "nothing.txt" in told


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (call("write_file", path="hello.py", content="x" * 100_000), "write_file hello.py"),
        (call("shell", command="python3 hello.py"), "shell python3 hello.py"),
        (call("shell", command="true\necho 2"), "shell true …"),
        (call("update_plan", items=[{"text": "a"}]), "update_plan 1"),
    ],
)
async def test_a_call_has_a_title_for_people_and_short_arguments(bench, use, made, title):
    await use(made)

    for event in await bench.events("tool.requested", "tool.started"):
        assert event["title"] == title
        assert len(json.dumps(event["args"])) < 10_000


def report(start, end, before=(), after=()):
    entries = [start, *before, "", end, *after, ""]
    return "\0".join(entries).encode()


@pytest.mark.parametrize(
    ("raw", "cwd"),
    [
        (report("/w", "/w/a"), "a"),
        (report("/w/a", "/w/a/b"), "a/b"),
        (report("/w/a", "/w"), "."),
        (report("/w", "/w/x"), "x"),  # the folder it should have started in was gone
        (report("/w", "/etc"), "."),
        (report("/w", "/wx"), "."),
        (report("/w", "relative"), "."),
    ],
)
def test_a_report_is_read_relative_to_the_work_dir(raw, cwd):
    found = parse_report(raw, cwd="a" if raw.startswith((b"/w/a", b"/w\0\0/w/x")) else ".", given={})

    assert found.cwd == cwd


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"/w\0", b"/w\0\0", b"/w\0A=1\0\0", b"\0\0\0", b"/w\0\0/w\0A=1", b"\xff\0\0/w\0", os.urandom(1000)],
)
def test_a_report_that_is_not_whole_is_not_believed(raw):
    assert parse_report(raw, cwd=".", given={}) is None


def test_variables_that_would_act_on_the_next_start_are_dropped():
    after = ["OK=1", "LD_PRELOAD=/x.so", "BASH_ENV=x", "1BAD=x", "PWD=/", "PATH=/new", "SAME=1", "NOEQUALS"]

    found = parse_report(report("/w", "/w", before=["PATH=/old", "SAME=1"], after=after), cwd=".", given={})

    assert found.env == {"OK": "1", "PATH": "/new"}


def test_too_many_variables_are_not_kept():
    after = [f"V{number}=1" for number in range(1000)]

    found = parse_report(report("/w", "/w", after=after), cwd=".", given={"KEPT": "1"})

    assert found.env == {"KEPT": "1"}
    assert "too many" in found.note


def test_output_that_is_being_written_when_its_call_is_cut_is_kept(tmp_path, monkeypatch):
    """Who waits for the thread that writes is cancelled; the thread is not."""
    log = OutputLog(str(tmp_path), "c1")
    begun, may_go_on = Event(), Event()
    append = log._append

    def append_slowly(pieces: list[bytes]) -> None:
        begun.set()
        assert may_go_on.wait(20)
        append(pieces)

    monkeypatch.setattr(log, "_append", append_slowly)
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(log.write, b"first, ")
        assert begun.wait(20)
        log.put(b"last")
        closing = threads.submit(log.close)
        may_go_on.set()
        closing.result(20)
        writing.result(20)
    log.write(b"after the end")

    assert (tmp_path / "c1.log").read_bytes() == b"first, last"


def test_disk_that_takes_no_output_is_told_once(tmp_path, caplog):
    (tmp_path / "c1.log").symlink_to("/dev/full")
    log = OutputLog(str(tmp_path), "c1")

    for _ in range(500):
        log.write(b"output")
    log.close()

    assert caplog.text.count("is not kept whole") == 1
