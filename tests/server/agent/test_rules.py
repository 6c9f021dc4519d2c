"""The grammar of rules mode. A goal is understood wholly, or not at all."""

import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beray.server.agent.models.rules import (
    MOST_INSTRUCTION_CHARACTERS,
    AppendFile,
    DeleteFile,
    ListFiles,
    PrintScript,
    ReadFile,
    RunCode,
    WriteFile,
    parse_goal,
    script_source,
)

PRINTS = [
    # (goal, language, text)
    ("写一个打印 hello world 的 Python 脚本", "python", "hello world"),
    ("写一个打印 hello world 的 Python 脚本。", "python", "hello world"),
    ("写一个简单的打印 hello world 的 Python 脚本", "python", "hello world"),
    ("写一个打印hello world的python程序", "python", "hello world"),
    ("帮我写一个简单的python脚本打印hello world", "python", "hello world"),
    ("1. 帮我写一个简单的python脚本打印hello world", "python", "hello world"),
    ("1、帮我写一个简单的python脚本打印hello world", "python", "hello world"),
    ("（1）请你写个 Python 脚本，输出：你好", "python", "你好"),
    ("请帮我写一个打印“你好，世界！”的 Python 脚本", "python", "你好，世界！"),
    ("麻烦写一个能打印「他说“好”」的 Python 小程序", "python", "他说“好”"),
    ("能不能帮我写一个打印 a 的 python 脚本吗？", "python", "a"),
    ("请编写一个 Python 程序来输出 100% 没问题", "python", "100% 没问题"),
    ("写一个python脚本打印 的 的 的", "python", "的 的 的"),
    ("写一个打印 我的 Python 脚本 的 Python 脚本", "python", "我的 Python 脚本"),
    ("写一个打印出口的 Python 脚本", "python", "出口"),
    ("写一个 bash 脚本输出 it's $HOME", "bash", "it's $HOME"),
    ("写一个 shell 脚本打印 `date`", "bash", "date"),
    ("用 Python 写一个打印 你好 的脚本", "python", "你好"),
    ("用Python打印 你好", "python", "你好"),
    ("写一个打印 x 的 Python 脚本并运行", None, None),
    ("写一个python脚本打印 x，并运行它", "python", "x"),
    ("Write a Python script that prints hello world", "python", "hello world"),
    ("write a simple python script that prints hello world", "python", "hello world"),
    ("Please write me a very simple Python 3 program which outputs Hello, World!", "python", "Hello, World!"),
    ("Can you write a small Bash script that echoes 50% off", "bash", "50% off"),
    ("Could you please create a shell script to print it's", "bash", "it's"),
    ('Write a Python script that prints "he said "hi""', "python", 'he said "hi"'),
    ("Write a Python script that prints 'quoted'.", "python", "quoted"),
    ("Write a Python script that prints “curly”", "python", "curly"),
    ("Write a Python script that prints the text 'the text'", "python", "the text"),
    ("Write a Python script that prints the text", "python", "the text"),
    ("Write a Python script that prints: x: y", "python", "x: y"),
    ("Write a Python script that prints :)", "python", ":)"),
    ("Write a Python script that prints C:\\new\\table", "python", "C:\\new\\table"),
    ("Write a Python script that prints 🎉 {done} %s", "python", "🎉 {done} %s"),
    ('Write a Python script that prints "two\nlines"', "python", "two\nlines"),
    ("Write a Python script that prints hello and run it", "python", "hello"),
    ("Write a script in Python that prints hi", "python", "hi"),
    ("Write a Python script printing hi", "python", "hi"),
    ("Write a Python hello world script.", "python", "hello world"),
    ("- Write a Python script that prints hi", "python", "hi"),
    ("Step 1: Write a Python script that prints hi", "python", "hi"),
]


@pytest.mark.parametrize(("goal", "language", "text"), PRINTS, ids=lambda value: str(value)[:50])
def test_a_script_that_prints_is_understood_to_the_letter(goal, language, text):
    assert parse_goal(goal) == (None if language is None else [PrintScript(language, text)])


FILES = [
    ("create a file a.txt with hello", WriteFile("a.txt", "hello\n")),
    ("Create a new file called notes/a.txt with the content: x = 1", WriteFile("notes/a.txt", "x = 1\n")),
    ("write a.txt containing 'x y'", WriteFile("a.txt", "x y\n")),
    ('Create a file "my notes.txt" with "a"', WriteFile("my notes.txt", "a\n")),
    ("write 'abc' to a.txt", WriteFile("a.txt", "abc\n")),
    ("create an empty file x.txt", WriteFile("x.txt", "")),
    ("创建文件 a.txt，内容为 hello", WriteFile("a.txt", "hello\n")),
    ("请新建一个名为 a.txt 的文件，内容是“你好”", WriteFile("a.txt", "你好\n")),
    ("新建 a.txt 文件，写入 abc", WriteFile("a.txt", "abc\n")),
    ("把“abc”写入 b.txt", WriteFile("b.txt", "abc\n")),
    ("在 b.txt 中写入 abc", WriteFile("b.txt", "abc\n")),
    ("append hello to a.txt", AppendFile("a.txt", "hello\n")),
    ("add the line 'x' to the end of the file log", AppendFile("log", "x\n")),
    ("append to a.txt: more", AppendFile("a.txt", "more\n")),
    ("把 hello 追加到 a.txt 末尾", AppendFile("a.txt", "hello\n")),
    ("在 a.txt 末尾追加 hello", AppendFile("a.txt", "hello\n")),
    ("read a.txt", ReadFile("a.txt")),
    ("show me the contents of the file README", ReadFile("README")),
    ("读取文件 a.txt 的内容", ReadFile("a.txt")),
    ("查看 src/main.py", ReadFile("src/main.py")),
    ("list files", ListFiles(".")),
    ("List all files in src", ListFiles("src")),
    ("list the files in the current directory", ListFiles(".")),
    ("列出所有文件", ListFiles(".")),
    ("请列出当前目录下的所有文件", ListFiles(".")),
    ("列出 src 目录下的文件", ListFiles("src")),
    ("delete a.txt", DeleteFile("a.txt")),
    ("remove the file log", DeleteFile("log")),
    ("删除文件 log", DeleteFile("log")),
    ("请删除 a.txt", DeleteFile("a.txt")),
]


@pytest.mark.parametrize(("goal", "step"), FILES, ids=lambda value: str(value)[:50])
def test_an_instruction_about_a_file_is_understood(goal, step):
    assert parse_goal(goal) == [step]


COMMANDS = [
    ("$ ls -la | wc -l", ["ls -la | wc -l"]),
    ("`ls`", ["ls"]),
    ("run `ls` and then `pwd`", ["ls", "pwd"]),
    ("运行 `ls`，然后 `pwd`。", ["ls", "pwd"]),
    ("$ ls\n$ pwd", ["ls", "pwd"]),
    ("Do this:\n\n1. `ls`\n2. `pwd`\n", ["ls", "pwd"]),
    ("请依次执行：\n- `ls`\n- `pwd`", ["ls", "pwd"]),
]


@pytest.mark.parametrize(("goal", "commands"), COMMANDS)
def test_commands_are_run_in_order(goal, commands):
    assert parse_goal(goal) == [RunCode("bash", command) for command in commands]


BLOCKS = [
    ("```bash\necho 1\n```", [RunCode("bash", "echo 1\n")]),
    ("```sh\necho 1\n```", [RunCode("bash", "echo 1\n")]),
    ("```Python\nprint(1)\n```", [RunCode("python", "print(1)\n")]),
    (
        "Run these steps:\n```bash\necho 1\n```\nthen\n```python\nprint(2)\n\nprint(3)\n```\n然后\n~~~sh\nls\n~~~",
        [RunCode("bash", "echo 1\n"), RunCode("python", "print(2)\n\nprint(3)\n"), RunCode("bash", "ls\n")],
    ),
    ("````bash\ncat <<X\n```\nX\n````", [RunCode("bash", "cat <<X\n```\nX\n")]),
    ("请运行下面的代码：\n```python\nprint('写一首诗')\n```", [RunCode("python", "print('写一首诗')\n")]),
    ("## First\n```bash\nls\n```\n\nlist files", [RunCode("bash", "ls\n"), ListFiles(".")]),
]


@pytest.mark.parametrize(("goal", "steps"), BLOCKS)
def test_each_fenced_block_is_a_step(goal, steps):
    assert parse_goal(goal) == steps


def test_a_list_of_instructions_is_as_many_steps():
    goal = "1. create a file a.txt with hi\n2. read a.txt\n3、删除 a.txt"

    assert parse_goal(goal) == [WriteFile("a.txt", "hi\n"), ReadFile("a.txt"), DeleteFile("a.txt")]


REFUSED = [
    "写一首关于宇宙的诗。",
    "Write a poem about the universe.",
    "hello",
    "Write a Python script",
    "Write a Python script that sorts a list",
    "写一个 Python 脚本",
    "写一个打印 hello 的 Java 程序",
    "写一个打印 hi 的 Python 程序并部署",
    "create a file poem.txt with a poem about the sea",
    "创建文件 a.txt，内容为 一首诗",
    "write a poem to poem.txt",
    "read /etc/passwd",
    "delete ../x.txt",
    "delete ~/x.txt",
    "remove -rf.txt",
    "read it",
    "list the reasons",
    "```json\n{}\n```",
    "```\nls\n```",
    "```bash\n```",
    "```bash\nls",
    "```bash\nls\n```\nand write a poem",
    "First write a poem.\n```bash\nls\n```",
    "Run this:",
    "1. create a file a.txt with hi\n2. do the dishes",
    "Write a Python script that prints hello\nand mail it to Bob",
    "$ ",
    "``",
    "Write a Python script that prints \ud800",
    "",
    "   \n",
]


@pytest.mark.parametrize("goal", REFUSED, ids=lambda value: repr(value)[:60])
def test_what_is_not_wholly_understood_is_refused(goal):
    assert parse_goal(goal) is None


# Text that can stand unquoted in a goal: one line, no blanks around it, not itself in quotes.
LINE = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1, max_size=80
).filter(lambda text: text == text.strip())
UNQUOTED = LINE.filter(
    lambda text: text[0] not in "\"'`“‘「『«＂：:" and not text.lower().endswith(("it", "行", "行它"))
)
QUOTED = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


def output_of(step):
    source = script_source(step)
    if step.language == "python":
        run = subprocess.run([sys.executable, "-"], input=source.encode(), capture_output=True, check=True, timeout=20)
    else:
        run = subprocess.run(["bash", "-c", source], capture_output=True, check=True, timeout=20)
    return run.stdout


@settings(max_examples=60, deadline=None)
@given(text=UNQUOTED)
@example(text="100% \\n $(date) {x} #!")
@example(text="it's")
@example(text="-n")
@example(text="的")
def test_any_unquoted_text_is_found_to_the_letter(text):
    for language, goal in (
        ("python", f"Write a Python script that prints {text}"),
        ("python", f"帮我写一个简单的python脚本打印 {text}"),
        ("python", f"写一个打印 {text} 的 Python 脚本"),
        ("bash", f"Write a Bash script that prints {text}"),
    ):
        if language == "bash" and "\0" in text:
            assert parse_goal(goal) is None
        else:
            assert parse_goal(goal) == [PrintScript(language, text)]


@settings(max_examples=60, deadline=None)
@given(text=QUOTED, quotes=st.sampled_from(['""', "''", "“”", "「」"]))
def test_any_quoted_text_is_found_to_the_letter(text, quotes):
    quoted = f"{quotes[0]}{text}{quotes[1]}"

    assert parse_goal(f"Write a Python script that prints {quoted}") == [PrintScript("python", text)]
    assert parse_goal(f"写一个打印{quoted}的 Python 脚本") == [PrintScript("python", text)]


@settings(max_examples=15, deadline=None)
@given(text=QUOTED, language=st.sampled_from(["python", "bash"]))
@example(text='it\'s "$HOME" `date` \\n %s 🎉', language="bash")
@example(text='it\'s "$HOME" {x} \\n %s 🎉\r\n\x07', language="python")
def test_a_script_prints_exactly_its_text(text, language):
    if language == "bash":
        text = text.replace("\0", "")

    assert output_of(PrintScript(language, text)) == text.encode() + b"\n"


@pytest.mark.parametrize(
    "goal",
    [
        "写" + " " * 3990,
        "please " * 570,
        "Write a " + "simple " * 560,
        "写一个打印" + " 的" * 1900,
        "`a` and " * 490,
        "append " + "a to " * 780,
        "Write a Python script that prints x" + " and run" * 490,
        "create a file " + "a/" * 1900,
        "(" * 3900,
        "\n".join(["$ ls"] * 20_000) + "\nx",
        "x " * 50_000,
    ],
    ids=lambda goal: goal[:20],
)
def test_no_goal_takes_long_to_refuse(goal):
    """Goals come from outside, and matching holds the interpreter's lock."""
    begun = time.process_time()

    parse_goal(goal)

    assert time.process_time() - begun < 1


def test_an_instruction_may_be_long_but_not_endless():
    stem = "Write a Python script that prints "
    longest = MOST_INSTRUCTION_CHARACTERS - len(stem)

    assert parse_goal(stem + "x" * longest) == [PrintScript("python", "x" * longest)]
    assert parse_goal(stem + "x" * (longest + 1)) is None
