"""What rules mode understands: an anchored grammar, Chinese and English, from a goal to steps. Pure; no AI.

A goal is a fenced block, an instruction, or a list of them. All of it must be understood; a goal of which a part is not
is refused as a whole, since doing half of it would look like success. Every pattern is matched against a whole line.

The text to print or to write (X below) is taken literally, to the last character:
- quoted, X is what stands between the outermost quotes, with line breaks;
- unquoted, it is the rest of the line without the blanks around it, punctuation included.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

ScriptLanguage = Literal["python", "bash"]


@dataclass(frozen=True)
class PrintScript:
    """Write a script that prints `text`, and run it."""

    language: ScriptLanguage
    text: str


@dataclass(frozen=True)
class WriteFile:
    """Write `content` to a file, in place of what it held."""

    path: str
    content: str


@dataclass(frozen=True)
class AppendFile:
    """Add `content` to the end of a file."""

    path: str
    content: str


@dataclass(frozen=True)
class ReadFile:
    path: str


@dataclass(frozen=True)
class ListFiles:
    path: str


@dataclass(frozen=True)
class DeleteFile:
    path: str


@dataclass(frozen=True)
class RunCode:
    """Run a fenced block or a command."""

    language: ScriptLanguage
    code: str


Step = PrintScript | WriteFile | AppendFile | ReadFile | ListFiles | DeleteFile | RunCode


MOST_INSTRUCTION_CHARACTERS = 4000  # matching is quadratic at worst; fenced blocks may be longer


def parse_goal(goal: str) -> list[Step] | None:
    """The steps of `goal`, in order; None if any part of it is not understood."""
    if not _is_utf8(goal):
        return None
    whole = _instruction(goal.strip())
    if whole is not None:
        return whole
    steps: list[Step] = []
    is_introduced = False  # the line before announced a step
    for item in _items(goal):
        if item is None:
            return None
        if isinstance(item, RunCode):
            steps.append(item)
            is_introduced = False
        elif _is_lead_in(item):
            is_introduced = True
        else:
            found = _instruction(item)
            if found is None:
                return None
            steps += found
            is_introduced = False
    return None if is_introduced else steps or None


def script_name(language: ScriptLanguage) -> str:
    """The file a script is written to."""
    return "hello.py" if language == "python" else "hello.sh"


def script_source(step: PrintScript) -> str:
    """A script that prints exactly the step's text, and a line break."""
    if step.language == "python":
        is_plain = step.text.isprintable() and not set(step.text) & {'"', "\\"}
        return f'print("{step.text}")\n' if is_plain else f"print({step.text!r})\n"
    return f"#!/usr/bin/env bash\nprintf '%s\\n' {shlex.quote(step.text)}\n"


def _is_utf8(goal: str) -> bool:
    try:
        goal.encode()
    except UnicodeEncodeError:  # a lone surrogate: no file or terminal can hold it
        return False
    return True


def _regex(pattern: str) -> "re.Pattern[str]":
    """Compiled so that blanks once taken are never given back: a long run of them would make matching explode."""
    return re.compile(re.sub(r"\\s([*+])", r"\\s\1+", pattern), re.IGNORECASE | re.DOTALL)


# A goal's lines and fenced blocks

_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\s]*)[^`]*")
_FENCE_LANGUAGES: Final[dict[str, ScriptLanguage]] = {
    "bash": "bash",
    "sh": "bash",
    "shell": "bash",
    "python": "python",
    "python3": "python",
    "py": "python",
}


def _items(goal: str) -> Iterator[RunCode | str | None]:
    """Fenced blocks and lines that aren't blank; None for a block that can't be run."""
    lines = iter(goal.splitlines())
    for line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is not None:
            yield _block(opening["info"].lower(), opening["fence"], lines)
        elif line.strip():
            yield line.strip()


def _block(info: str, fence: str, lines: Iterator[str]) -> RunCode | None:
    """The block up to its closing fence (CommonMark: the same character, at least as long)."""
    language = _FENCE_LANGUAGES.get(info)
    code: list[str] = []
    for line in lines:
        mark = line.strip()
        if len(mark) >= len(fence) and set(mark) == {fence[0]}:
            is_runnable = language is not None and any(part.strip() for part in code)
            return RunCode(language, "\n".join(code) + "\n") if language and is_runnable else None
        code.append(line)
    return None


_LEAD_IN = _regex(
    r"(?:[^`$]{0,200}[:：])"  # "Run the following:" announces the step on the next line
    r"|#{1,6}\s.{0,200}"  # a heading
    r"|(?:and\s+)?(?:then|next|after that|finally)[,.]?|first[,.]?"
    r"|(?:然后|接着|接下来|随后|最后|首先|再)[，,。]?"
    r"|(?:please\s+)?(?:run|execute)(?:\s+(?:this|these|it|the following))?"
    r"(?:\s+(?:code|commands?|scripts?|blocks?))?[.]?"
    r"|(?:请|帮我|请帮我)?(?:运行|执行)(?:一下)?(?:以下|下面|这段|这些|下列)?的?(?:代码|命令|脚本|代码块)?[。]?"
)


def _is_lead_in(line: str) -> bool:
    return _LEAD_IN.fullmatch(_NUMBER.sub("", line, count=1).strip()) is not None


# One instruction

_NUMBER = _regex(
    r"\s*(?:[(（]?(?:\d{1,3}|[一二三四五六七八九十]{1,3})\s*[.、)）．](?!\d)|[-*•](?=\s)"
    r"|第\s*(?:\d{1,3}|[一二三四五六七八九十]{1,3})\s*步\s*[：:，,、]?|step\s+\d{1,3}\s*[:.)])\s*"
)
_POLITE = _regex(
    r"(?:(?:please|kindly|hi|hey|hello)[,!]?\s+|(?:can|could|would|will)\s+you\s+|help\s+me\s+(?:to\s+)?"
    r"|i(?:'d|\s+would)\s+like\s+you\s+to\s+|i\s+(?:want|need)\s+you\s+to\s+"
    r"|(?:你好|您好)[，,！!]?\s*|(?:请问|请|麻烦|劳驾|烦请)(?:你|您)?[，,]?\s*"
    r"|(?:你|您)?(?:能不能|能否|可不可以|可否|可以|能)\s*|(?:帮我|帮忙|帮|给我|替我)\s*"
    r"|(?:我想|我要|我需要|需要)(?:你|您)?\s*)+"
)

_QUOTES: Final[dict[str, str]] = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "‘": "’",
    "「": "」",
    "『": "』",
    "«": "»",
    "＂": "＂",
}
_ANY_QUOTE = "[" + "".join(_QUOTES) + "]"
_QUOTED = "|".join(f"{opening}[^{closing}\\n]+{closing}" for opening, closing in _QUOTES.items())

# What the patterns below are made of; `<name>` in a pattern stands for the value of that name here.
_WORDS: Final[dict[str, str]] = {
    "X": r"(?P<text>.+)",
    "lang": r"(?P<language>python\s?3?|py|bash|shell|sh)",
    "name": rf"(?P<name>{_QUOTED}|[\w./+@-]+)",
    "lazy name": rf"(?P<name>{_QUOTED}|[\w./+@-]+?)",
    # without the word "file", only what looks like a file's name is taken for one
    "file name": rf"(?P<name>{_QUOTED}|(?:[\w.+@-]+/)*[\w.+@-]*[\w+@-]\.[A-Za-z0-9_]{{1,12}})",
    "open": _ANY_QUOTE,
    "end": r"\s*[.!。！]?",
    # English
    "make": r"(?:write|create|make|generate|build|produce)\s+(?:me\s+)?(?:(?:a|an|one|the)\s+)?",
    "small": r"(?:(?:(?:very|really)\s+)?(?:simple|small|short|tiny|basic|little|minimal|quick|new)\s+)*",
    "kind": r"(?:script|program|file|one-liner)",
    "that": r"(?:\s*,)?\s+(?:that|which|to)\s+(?:(?:can|will|should)\s+)?(?:just\s+|only\s+|simply\s+)?",
    "prints": r"(?:prints?|printing|outputs?|outputting|echo(?:es|ing)?|displays?|shows?|says?)(?:\s+out)?"
    r"(?:\s+(?:the\s+)?(?:text|words?|string|message|phrase|line)(?=\s*:?\s*<open>))?(?::(?=\s)|(?=\s|<open>))\s*",
    "the file": r"(?:(?:a|an|the|this|my)\s+)?(?:(?:new|text|plain|empty)\s+)*file\s+(?:(?:named|called)\s+)?",
    "content": r"(?:\s*,)?\s+(?:with|containing|that\s+contains|which\s+contains|that\s+says|saying)"
    r"(?:\s+(?:the\s+)?(?:following\s+)?(?:contents?|text|words?|line)(?:\s+of)?)?(?::(?=\s)|(?=\s|<open>))\s*",
    # Chinese
    "写": r"(?:编写|写出|写|创建|新建|生成|制作|做|实现)\s*(?:一个|一段|一份|个|段|份)?\s*",
    "简单": r"(?:(?:非常|很|最)?(?:简单|简短|简易|基础|基本|小)的?\s*)?",
    "脚本": r"(?:小脚本|小程序|脚本文件|脚本|程序|代码|文件)",
    "打印": r"(?:来|去|能够|能|可以|会|用来|用于|让它|使其|只)?\s*(?:打印|输出|显示|print|echo)"
    r"(?:出来|出(?=[\s\x21-\x7e“‘「『：]))?\s*(?:(?:文字|文本|字符串)(?=\s*[：:]?\s*<open>))?\s*(?:：|:(?=\s|<open>))?\s*",
    "中": r"\s*(?:文件)?\s*的?\s*(?:末尾|后面|中|里)?\s*",
    "读": r"(?:读取|读一下|读|查看|显示|打开|打印)\s*(?:一下)?\s*",
    "所有": r"\s*(?:所有|全部)?\s*的?\s*",
    "冒号": r"\s*(?:：|:(?=\s))?\s*",
    "句末": r"\s*(?:吗|呢|吧|好吗|可以吗|谢谢)?\s*[。.!！?？]?",
    "内容": r"\s*[，,]?\s*(?:并)?(?:文件)?(?:其)?(?:内容(?:为|是|写成|写)?|写入|包含)\s*(?:：|:(?=\s|<open>))?\s*",
}


def _compile(pattern: str) -> "re.Pattern[str]":
    """The pattern with its words filled in; a group's second occurrence is numbered (`name2`)."""
    while (filled := _WORD.sub(lambda word: _WORDS[word[1]], pattern)) != pattern:
        pattern = filled
    seen: Counter[str] = Counter()

    def numbered(group: "re.Match[str]") -> str:
        seen[group[1]] += 1
        return f"(?P<{group[1]}{seen[group[1]] if seen[group[1]] > 1 else ''}>"

    return _regex(_GROUP.sub(numbered, pattern))


_WORD = re.compile(r"(?<!\?P)<([^<>=!]+)>")
_GROUP = re.compile(r"\(\?P<(\w+)>")

Match = re.Match[str]


def _print_script(found: Match) -> Step | None:
    text = _unquote(_AND_RUN.sub("", found["text"]) if not _is_quoted(found["text"]) else found["text"])
    language: ScriptLanguage = "python" if found["language"].lower().startswith("py") else "bash"
    if text is None or (language == "bash" and "\0" in text):
        return None
    return PrintScript(language, text)


def _write_file(found: Match) -> Step | None:
    path, text = _path(found), _literal(found["text"])
    return None if path is None or text is None else WriteFile(path, _line(text))


def _write_empty(found: Match) -> Step | None:
    path = _path(found)
    return None if path is None else WriteFile(path, "")


def _append_file(found: Match) -> Step | None:
    path, text = _path(found), _literal(found["text"])
    return None if path is None or text is None or "\0" in text else AppendFile(path, _line(text))


def _read_file(found: Match) -> Step | None:
    path = _path(found)
    return None if path is None else ReadFile(path)


def _delete_file(found: Match) -> Step | None:
    path = _path(found)
    return None if path is None else DeleteFile(path)


def _list_files(found: Match) -> Step | None:
    if _name(found) is None:
        return ListFiles(".")
    path = _path(found)
    return None if path is None else ListFiles(path)


_Make = Callable[[Match], Step | None]

_INSTRUCTIONS: Final[list[tuple["re.Pattern[str]", _Make]]] = [
    (_compile(pattern), make)
    for pattern, make in (
        # Write a simple Python script that prints X
        (r"<make><small><lang>\s+<small><kind><that><prints><X>", _print_script),
        (r"<make><small><lang>\s+<small><kind>\s+(?=printing|outputting|echoing)<prints><X>", _print_script),
        (r"<make><small><kind>\s+(?:in|with|using)\s+<lang><that><prints><X>", _print_script),
        (r"<make><small><lang>\s+[\"“']?(?P<text>hello,?\s+world!?)[\"”']?\s+<kind><end>", _print_script),
        # 写一个[简单的]打印 X 的 Python 脚本; 写一个[简单的] Python 脚本打印 X
        # 用 Python 写一个打印 X 的脚本; 用 Python 打印 X
        (r"<写><简单><打印><X>的\s*<简单><lang>\s*<脚本><句末>", _print_script),
        (r"<写><简单><lang>\s*的?\s*<脚本>\s*[，,：:]?\s*<打印><X>", _print_script),
        (r"[用以]\s*<lang>\s*<写><简单><打印><X>的\s*<脚本><句末>", _print_script),
        (r"[用以]\s*<lang>\s*(?:<写><简单><脚本>|脚本|程序)?\s*[，,]?\s*<打印><X>", _print_script),
        # Create a file NAME with (the content) X
        (r"(?:write|create|make|add)\s+(?:<the file><name>|<file name>)<content><X>", _write_file),
        (
            (r"(?:create|make|add)\s+(?:a|an|the)\s+(?:new\s+)?empty\s+(?:text\s+)?file\s+"
            r"(?:named\s+|called\s+)?<name><end>"),
            _write_empty,
        ),
        (r"(?:write|put|save)\s+(?P<text><open>.+)\s+(?:to|into|in)\s+(?:<the file>)?<name><end>", _write_file),
        # 创建文件 NAME，内容为 X; 把 X 写入 NAME; 在 NAME 中写入 X
        (r"<写>(?:文本)?(?:文件|文档)\s*(?:名为|叫做|叫)?\s*<lazy name><内容><X>", _write_file),
        (r"<写>(?:名为|名叫|叫做|叫)\s*<lazy name>\s*的?\s*(?:文本)?(?:文件|文档)<内容><X>", _write_file),
        (r"<写><file name>\s*(?:文件)?<内容><X>", _write_file),
        (r"[把将]\s*(?P<text><open>.+)(?:写入|写到|保存到|存到)\s*(?:文件)?\s*<lazy name><中><句末>", _write_file),
        (r"[在向往]\s*(?:文件)?\s*<lazy name><中>写入\s*(?:内容)?<冒号><X>", _write_file),
        # Append X to NAME
        (
            (r"(?:append|add)\s+(?:(?:the\s+)?(?:line|text)\s+)?<X>\s+to\s+(?:the\s+end\s+of\s+)?(?:"
            r"<the file>)?<name><end>"),
            _append_file,
        ),
        (r"append\s+to\s+(?:<the file>)?<name>\s*:\s+<X>", _append_file),
        (r"[把将]\s*<X>追加[到至进]\s*(?:文件)?\s*<lazy name><中><句末>", _append_file),
        (r"[在向往]\s*(?:文件)?\s*<lazy name><中>追加\s*(?:内容|一行)?<冒号><X>", _append_file),
        # Read NAME
        (
            (r"(?:read|show|cat|display|open|print)\s+(?:me\s+)?(?:(?:the\s+)?contents?\s+of\s+)?(?:"
            r"(?:the\s+)?file\s+<name>|(?:the\s+)?<file name>)<end>"),
            _read_file,
        ),
        (r"<读>(?:文件|文档)\s*<lazy name>\s*的?<所有>(?:内容)?<句末>", _read_file),
        (r"<读><file name>\s*(?:文件)?\s*的?<所有>(?:内容)?<句末>", _read_file),
        # List files (in NAME)
        (
            (r"(?:list|show)\s+(?:me\s+)?(?:all\s+)?(?:of\s+)?(?:the\s+|my\s+)?files?(?:\s+(?:in|of|under)\s+"
            r"(?:the\s+)?(?:(?:current|work|working)\s+(?:directory|folder|dir)|(?:(?:folder|directory)\s+)?<name>"
            r"(?:\s+(?:folder|directory))?))?<end>"),
            _list_files,
        ),
        (r"列出\s*(?:当前目录|当前文件夹|工作目录)?\s*[下中里]?\s*的?<所有>文件<句末>", _list_files),
        (r"列出\s*(?:目录|文件夹)?\s*<lazy name>\s*(?:目录|文件夹)?\s*[下中里]\s*的?<所有>文件<句末>", _list_files),
        # Delete NAME
        (r"(?:delete|remove)\s+(?:(?:the\s+)?file\s+<name>|(?:the\s+)?<file name>)<end>", _delete_file),
        (r"(?:删除|删掉|移除)\s*(?:文件|文档)\s*<lazy name><句末>", _delete_file),
        (r"(?:删除|删掉|移除)\s*<file name>\s*(?:这个)?(?:文件)?<句末>", _delete_file),
    )
]  # fmt: skip


def _instruction(line: str) -> list[Step] | None:
    """The steps of one instruction; None if it isn't one."""
    if len(line) > MOST_INSTRUCTION_CHARACTERS:
        return None
    bare = _without(_POLITE, _without(_NUMBER, line))
    commands = _commands(bare)
    if commands is not None:
        return commands
    for pattern, make in _INSTRUCTIONS:
        found = pattern.fullmatch(bare)
        step = make(found) if found is not None else None
        if step is not None:
            return [step]
    return None


def _without(start: "re.Pattern[str]", line: str) -> str:
    found = start.match(line)
    return line[found.end() :] if found else line


_COMMANDS = _regex(
    r"(?:(?:run|execute)(?:\s+(?:the\s+)?commands?)?:?\s*|(?:运行|执行)(?:一下)?(?:命令)?[：:]?\s*)?"
    r"(?P<all>`[^`\n]+`(?:\s*(?:,?\s*(?:and\s+then|and|then)|[,，、;；]|[，,]?\s*(?:然后|接着|再|和))?\s*`[^`\n]+`)*)[.。;；]?"
)


def _commands(line: str) -> list[Step] | None:
    """`$ command`, or commands in backticks."""
    if line.startswith("$ ") and "\n" not in line and line[2:].strip():
        return [RunCode("bash", line[2:].strip())]
    found = _COMMANDS.fullmatch(line)
    if found is None:
        return None
    return [RunCode("bash", command.strip()) for command in re.findall(r"`([^`\n]+)`", found["all"]) if command.strip()]


# Literal text and paths

_AND_RUN = _regex(
    r"(?:(?:\s*,)?\s+(?:and\s+then|and|then)\s+(?:run|execute)\s+(?:it|the\s+script|the\s+program)[.]?"
    r"|\s*[，,]?\s*(?:并且|并|然后|再)(?:运行|执行)(?:它|该脚本|这个脚本|脚本|一下)?[。]?)$"
)

# "with a poem about the sea" describes a content, it isn't one
_DESCRIBES = re.compile(r"(?:a|an|the|some|my|your|all|any|random|list|one|two|three|ten|\d+)\s", re.IGNORECASE)
_DESCRIBES_ZH = re.compile(r"[一二两三四五六七八九十几\d]+\s*[首个篇段些份条句封张]")


def _is_quoted(text: str) -> bool:
    stripped = text.strip()
    return bool(stripped) and stripped[0] in _QUOTES and _QUOTED_END.search(stripped) is not None


_QUOTED_END = re.compile(f"[{''.join(_QUOTES.values())}][.。!！]?$")


def _unquote(text: str) -> str | None:
    """What stands between the outermost quotes, or the text of one line without the blanks around it."""
    stripped = text.strip()
    closing = _QUOTES.get(stripped[:1])
    if closing is not None:
        for tail in ("", ".", "。", "!", "！"):
            if stripped.endswith(closing + tail) and len(stripped) > 1 + len(tail):
                return stripped[1 : len(stripped) - 1 - len(tail)]
    return stripped if stripped and len(stripped.splitlines()) == 1 else None


def _literal(text: str) -> str | None:
    """Like `_unquote`, but text that describes a content instead of being it is not taken."""
    is_described = _DESCRIBES.match(text) or _DESCRIBES_ZH.match(text)
    return None if is_described and not _is_quoted(text) else _unquote(text)


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _name(found: Match) -> str | None:
    groups = found.groupdict()
    return groups.get("name") or groups.get("name2")


def _path(found: Match) -> str | None:
    """The path a pattern found, if it stays in the work_dir."""
    path = _unquote(_name(found) or "")
    if path is None or path.startswith(("/", "~", "-")) or "\0" in path or ".." in path.split("/"):
        return None
    return path.removeprefix("./") or None
