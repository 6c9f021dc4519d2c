"""Write the tables of the documentation that the code already knows: settings, error codes, model providers.

    uv run python docs/generate.py           rewrite what is between the marks in the pages
    uv run python docs/generate.py --check   only say whether something would change (exit status 1)

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else of a page is written by people.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Final, Literal

from beray.server.agent.models.choice import KEY_ORDER, PROVIDERS, Provider
from beray.server.errors import STATUS_OF
from beray.server.messages import MESSAGES
from beray.server.settings import Setting, Settings, env_name

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")

DOCS: Final = Path(__file__).parent
MARKED = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

UNITS: Final[dict[str, tuple[str, str]]] = {
    "bytes": ("字节", "bytes"),
    "seconds": ("秒", "seconds"),
    "minutes": ("分钟", "minutes"),
    "days": ("天", "days"),
}
KINDS: Final[dict[Any, tuple[str, str]]] = {
    bool: ("1 或 0", "1 or 0"),
    int: ("整数", "whole number"),
    float: ("美元", "US dollars"),
    Path: ("路径", "path"),
    Path | None: ("路径", "path"),
    tuple[str, ...]: ("逗号分隔", "comma-separated"),
}
TEXT: Final = ("文本", "text")
MADE_DEFAULTS: Final[dict[str, tuple[str, str]]] = {
    "data_dir": (
        "`~/.local/share/beray`；root：`/var/lib/beray`",
        "`~/.local/share/beray`; as root `/var/lib/beray`",
    ),
}
RULES_CODES: Final = ("rules_unsupported", "rules_tools_missing", "rules_step_failed")


def task_codes() -> dict[str, str]:
    """Codes of a failed task's `error`, each with its sentence's key: what has a hint beside it, and rules mode's."""
    with_hint = [key for key in MESSAGES if f"{key}_hint" in MESSAGES]
    return {key.removeprefix("task_"): key for key in (*RULES_CODES, *with_hint)}


def settings_table(language: Language) -> str:
    """Every setting: variable, default, unit, meaning."""
    head = ("变量", "默认值", "单位", "含义") if language == "zh" else ("variable", "default", "unit", "meaning")
    return _table(head, [_setting_row(field, language) for field in fields(Settings)])


def _setting_row(field: Field[Any], language: Language) -> tuple[str, ...]:
    setting: Setting = field.metadata["setting"]
    secret = (("（机密）", " (secret)")[_index(language)]) if setting.is_secret else ""
    meaning = setting.help_zh if language == "zh" else setting.help
    return f"`{env_name(field.name)}`", _default(field, language), _unit(field, language), meaning + secret


def _default(field: Field[Any], language: Language) -> str:
    if field.default is MISSING:
        return MADE_DEFAULTS[field.name][_index(language)]
    value = field.default
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{int(value)}`"
    if field.name.endswith("_bytes"):
        return f"`{value}` ({_binary(value)})"
    return f"`{value}`"


def _unit(field: Field[Any], language: Language) -> str:
    unit = UNITS.get(field.name.rsplit("_", 1)[-1]) or KINDS.get(field.type, TEXT)
    return unit[_index(language)]


def _binary(count: int) -> str:
    for shift, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count % (1 << shift) == 0:
            return f"{count >> shift} {name}"
    return f"{count} B"


def errors_table(language: Language) -> str:
    """Every code an HTTP answer may carry, by status."""
    head = ("代码", "状态", "中文", "英文") if language == "zh" else ("code", "status", "Chinese", "English")
    by_status = sorted(STATUS_OF.items(), key=lambda pair: pair[1])
    return _table(head, [(f"`{code}`", str(status), *_sentences(code)) for code, status in by_status])


def task_errors_table(language: Language) -> str:
    """Every code the `error` of a failed task may have."""
    head = ("代码", "中文", "英文") if language == "zh" else ("code", "Chinese", "English")
    return _table(head, [(f"`{code}`", *_sentences(key)) for code, key in task_codes().items()])


def providers_table(language: Language) -> str:
    """Every provider of models: those a key alone chooses come first, in their order."""
    head = (
        ("提供商", "密钥", "地址", "更改地址的变量", "有密钥时选用")
        if language == "zh"
        else ("provider", "key", "address", "moved by", "taken by key")
    )
    names = sorted(PROVIDERS, key=lambda name: KEY_ORDER.index(name) if name in KEY_ORDER else len(KEY_ORDER))
    return _table(head, [_provider_row(name, PROVIDERS[name]) for name in names])


def _provider_row(name: str, provider: Provider) -> tuple[str, ...]:
    keys = ", ".join(f"`{key}`" for key in provider.key_names) or "–"
    moved_by = f"`{provider.base_url_name}`" if provider.base_url_name else "–"
    taken = f"`{provider.default_model}`" if name in KEY_ORDER else "–"
    return f"`{name}`", keys, f"`{provider.base_url}`", moved_by, taken


def _sentences(key: str) -> tuple[str, str]:
    chinese, english = MESSAGES[key]
    return _cell(chinese), _cell(english)


def _cell(sentence: str) -> str:
    """A sentence as Markdown: its fields as code, nothing in it as markup."""
    escaped = re.sub(r"([\\`*_|<>\[\]])", r"\\\1", sentence)
    return re.sub(r"\{(\w+(?:\\_\w+)*)(?:!r)?\}", lambda match: "`" + match[1].replace("\\", "") + "`", escaped)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _index(language: Language) -> int:
    return LANGUAGES.index(language)


TABLES: Final[dict[str, Callable[[Language], str]]] = {
    "settings": settings_table,
    "errors": errors_table,
    "task-errors": task_errors_table,
    "providers": providers_table,
}


def pages(language: Language) -> list[Path]:
    """The pages of one language, in order of their names."""
    return sorted((DOCS / language).rglob("*.md"))


def filled(text: str, language: Language) -> str:
    """The page `text` with its tables as the code has them now."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{TABLES[mark[2]](language)}\n{mark[3]}", text)


def stale_pages() -> dict[Path, str]:
    """Pages that are not as they should be, each with its new text."""
    found: dict[Path, str] = {}
    for language in LANGUAGES:
        for page in pages(language):
            text = page.read_text(encoding="utf-8")
            fresh = filled(text, language)
            if fresh != text:
                found[page] = fresh
    return found


def main() -> int:
    """Rewrite the tables, or with `--check` only say which pages are not up to date."""
    stale = stale_pages()
    is_check = sys.argv[1:] == ["--check"]
    for page, fresh in stale.items():
        if is_check:
            print(f"{page.relative_to(DOCS.parent)} is not up to date: uv run python docs/generate.py")
        else:
            page.write_text(fresh, encoding="utf-8")
            print(f"{page.relative_to(DOCS.parent)} rewritten")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
