"""Every setting of the server: name, type, default, unit and meaning, in one frozen dataclass.

Each field is read once, at start, from `BERAY_<NAME>` (a CLI option of the same name wins) and passed along; nothing
else reads the environment. A wrong value stops the start with the name, the value and what would be right.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

CONFINEMENTS = ("files", "processes", "signals", "network", "metadata", "process_count", "memory", "disk")
"""What a sandbox may confine; its probe says which of them it does."""


class SettingError(ValueError):
    """A setting has a value it cannot have; the text names it, shows the value, and says what would be right."""


@dataclass(frozen=True)
class Setting:
    """How one field is read and explained, in English and Chinese (docs/generate.py makes the settings' page of it)."""

    help: str
    help_zh: str
    parse: Callable[[str], Any]
    is_secret: bool = False


def _text(raw: str) -> str:
    return raw.strip()


def _path(raw: str) -> Path:
    return Path(raw).expanduser().absolute()


def _whole(least: int, most: int | None = None, meaning: str = "") -> Callable[[str], int]:
    def parse(raw: str) -> int:
        value = int(raw) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", raw) else None
        if value is None or value < least or (most is not None and value > most):
            upper = "or more" if most is None else f"to {most}"
            raise ValueError(f"a whole number of {least} {upper}{meaning} is needed")
        return value

    return parse


_positive = _whole(1)
_not_negative = _whole(0)
_port = _whole(0, 65535, " (0: any free port)")


def _money(raw: str) -> float:
    if re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,6})?\s*", raw) is None:
        raise ValueError("a number of US dollars, 0 or more, is needed (0: no limit)")
    return float(raw)


def _flag(raw: str) -> bool:
    word = raw.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("1 or 0 is needed")


def _words(raw: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in raw.split(",") if word.strip())


def _url_path(raw: str) -> str | None:
    path = raw.strip()
    if path and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) is None:
        raise ValueError("a path like /beray-files is needed")
    return path or None


def _some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    def parse(raw: str) -> tuple[str, ...]:
        names = _words(raw)
        for name in names:
            if name not in choices:
                raise ValueError(f"{name!r} is none of {', '.join(choices)}")
        return names

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        word = raw.strip().lower()
        if word not in choices:
            raise ValueError(f"one of {', '.join(choices)} is needed")
        return word

    return parse


def default_data_dir() -> Path:
    """Where an embedded server keeps its data when nothing else is said.

    As root `/var/lib/beray`: the sandbox's uid must be able to pass every parent, which it can't below `/root` (0700).
    """
    if os.geteuid() == 0:
        return Path("/var/lib/beray")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "beray"


def _set(default: Any, parse: Callable[[str], Any], help: str, help_zh: str, *, is_secret: bool = False) -> Any:
    metadata = {"setting": Setting(help, help_zh, parse, is_secret)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What the operator sets. Zero settings is a working server: SQLite, local disk, mail printed to the terminal."""

    host: str = _set("127.0.0.1", _text, "Address to listen on.", "监听的地址。")
    port: int = _set(8000, _port, "Port to listen on; 0 takes a free one.", "监听的端口；0 表示任选一个空闲端口。")
    data_dir: Path = _set(
        default_data_dir,
        _path,
        "Folder for the database, work_dirs and outbox.",
        "存放数据库、工作目录和发件箱的文件夹。",
    )
    database_url: str | None = _set(
        None,
        _text,
        "postgresql://user:password@host:5432/database, for several processes; unset: SQLite in the data folder.",
        "postgresql://用户:密码@主机:5432/数据库，供多个进程共用；未设置时使用数据文件夹中的 SQLite。",
        is_secret=True,
    )
    work_dirs: Path | None = _set(
        None,
        _path,
        "Folder of the work_dirs; several machines need a shared volume. Unset: `tasks` in the data folder.",
        "工作目录所在的文件夹；多台机器需要共享卷。未设置时为数据文件夹中的 `tasks`。",
    )
    role: str = _set(
        "all",
        _one_of("all", "api", "worker"),
        "What the process does: all, api (`beray serve --no-worker`) or worker (`beray worker`).",
        "进程的职责：all（全部）、api（`beray serve --no-worker`）或 worker（`beray worker`）。",
    )
    retention_days: int = _set(
        0,
        _whole(0, 36_500),
        "Tasks ended longer ago are deleted daily, with events and files; 0: kept until their users delete them.",
        "每天删除结束超过这么多天的任务及其事件和文件；0：保留到用户自行删除。",
    )
    secret_key: str | None = _set(
        None,
        _text,
        "Key for verification codes and webhooks' secrets, 32 bytes or more. Unset: one is made once and kept in the "
        "data folder; with PostgreSQL only workers start without it.",
        "验证码和 webhook 密钥所用的密钥，至少 32 字节。未设置时自动生成一次，保存在数据文件夹中；"
        "使用 PostgreSQL 时必须设置，只有 worker 不需要。",
        is_secret=True,
    )
    language: str = _set(
        "zh",
        _one_of("zh", "en"),
        "Language of messages where the client asks for none: zh or en.",
        "客户端未指定语言时消息所用的语言：zh 或 en。",
    )

    smtp_url: str | None = _set(
        None,
        _text,
        "smtp://user:password@host:587 (or smtps://); unset: mails go to the outbox folder.",
        "smtp://用户:密码@主机:587（或 smtps://）；未设置时邮件写入发件箱文件夹。",
        is_secret=True,
    )
    mail_from: str = _set("BeRay <beray@localhost>", _text, "Sender of mails.", "邮件的发件人。")
    token_days: int = _set(30, _positive, "Days until an access token expires.", "访问令牌的有效天数。")
    code_minutes: int = _set(10, _positive, "Minutes until a verification code expires.", "验证码的有效分钟数。")
    trusted_proxies: tuple[str, ...] = _set(
        (),
        _words,
        "Comma-separated addresses whose X-Forwarded-For is believed; none by default.",
        "以逗号分隔的地址，来自它们的 X-Forwarded-For 才被采信；默认没有。",
    )
    x_accel_prefix: str | None = _set(
        None,
        _url_path,
        "Where nginx serves the folder of the work_dirs to itself, such as /beray-files: it then sends the files.",
        "nginx 在内部提供工作目录的位置，例如 /beray-files；设置后由 nginx 自己发送文件。",
    )
    rate_limits: bool = _set(
        True,
        _flag,
        "1: limit the rate of codes and logins; 0 switches that off.",
        "1：限制获取验证码和登录的频率；0：不限制。",
    )

    webhook_allow_private: tuple[str, ...] = _set(
        (),
        _words,
        "Hosts and networks of your own that webhooks may call, by http too, like hooks.lan, 10.0.0.0/8; 1: any.",
        "允许 webhook 调用（包括用 http）的自有主机和网络，例如 hooks.lan, 10.0.0.0/8；1 表示任意。",
    )

    model: str | None = _set(
        None,
        _text,
        "Model as provider:name, for example openai:gpt-5; rules = fixed rules, no AI.",
        "模型，写作 提供商:模型名，例如 openai:gpt-5；rules 表示固定规则，不用 AI。",
    )
    models: tuple[str, ...] = _set(
        (),
        _words,
        "Further models that a task may ask for, comma-separated, each as provider:name.",
        "任务还可以指定的其他模型，以逗号分隔，各写作 提供商:模型名。",
    )
    model_fallback: tuple[str, ...] = _set(
        (),
        _words,
        "Models that take over in this order when a run's model has failed for good, comma-separated.",
        "运行中的模型彻底失败后依次接替的模型，以逗号分隔。",
    )
    model_base_url: str | None = _set(
        None,
        _text,
        "Base URL of BERAY_MODEL's server, for all models of its provider.",
        "BERAY_MODEL 所用服务的根地址，用于该提供商的所有模型。",
    )
    model_api_key: str | None = _set(
        None,
        _text,
        "Key for BERAY_MODEL's server, for all models of its provider.",
        "BERAY_MODEL 所用服务的密钥，用于该提供商的所有模型。",
        is_secret=True,
    )
    model_probe: bool = _set(
        True,
        _flag,
        "1: look for a local model server on loopback when no model is set.",
        "1：未设置模型时，在本机回环地址上查找模型服务。",
    )
    model_timeout_seconds: int = _set(
        120, _positive, "Seconds a model's stream may stay silent.", "模型的流可以保持静默的秒数。"
    )

    model_vision: str = _set(
        "auto",
        _one_of("auto", "1", "0"),
        "Whether models can be shown pictures: auto (by the model's name), 1 or 0.",
        "模型能否看图片：auto（按模型名判断）、1（能）或 0（不能）。",
    )

    max_requests: int = _set(50, _positive, "Model requests a run may make.", "一次运行最多可以发出的模型请求数。")
    max_tool_calls: int = _set(100, _positive, "Tool calls a run may make.", "一次运行最多可以进行的工具调用次数。")
    max_tokens: int = _set(
        500_000, _positive, "Tokens (in and out) a run may use.", "一次运行最多可以使用的词元数（输入与输出合计）。"
    )
    max_run_seconds: int = _set(3600, _positive, "Wall time of a run, in seconds.", "一次运行的时间上限，单位为秒。")
    max_cost_usd: float = _set(
        0.0, _money, "Money a run may cost, in US dollars; 0: no limit.", "一次运行的费用上限，单位为美元；0：不限制。"
    )
    max_requests_per_user_day: int = _set(
        0,
        _not_negative,
        "Model requests of one user's tasks in a day (UTC); 0: no limit.",
        "一个用户的任务每天（UTC）最多可以发出的模型请求数；0：不限制。",
    )
    max_tool_calls_per_user_day: int = _set(
        0,
        _not_negative,
        "Tool calls of one user's tasks in a day (UTC); 0: no limit.",
        "一个用户的任务每天（UTC）最多可以进行的工具调用次数；0：不限制。",
    )
    max_tokens_per_user_day: int = _set(
        0,
        _not_negative,
        "Tokens (in and out) of one user's tasks in a day (UTC); 0: no limit.",
        "一个用户的任务每天（UTC）最多可以使用的词元数（输入与输出合计）；0：不限制。",
    )
    max_run_seconds_per_user_day: int = _set(
        0,
        _not_negative,
        "Seconds that one user's tasks may work in a day (UTC), added up; 0: no limit.",
        "一个用户的任务每天（UTC）的运行时间合计上限，单位为秒；0：不限制。",
    )
    max_cost_usd_per_user_day: float = _set(
        0.0,
        _money,
        "Money one user's tasks may cost in a day (UTC), in US dollars; 0: no limit.",
        "一个用户的任务每天（UTC）的费用上限，单位为美元；0：不限制。",
    )
    max_requests_per_day: int = _set(
        0,
        _not_negative,
        "Model requests of all users' tasks in a day (UTC); 0: no limit.",
        "所有用户的任务每天（UTC）最多可以发出的模型请求数；0：不限制。",
    )
    max_tool_calls_per_day: int = _set(
        0,
        _not_negative,
        "Tool calls of all users' tasks in a day (UTC); 0: no limit.",
        "所有用户的任务每天（UTC）最多可以进行的工具调用次数；0：不限制。",
    )
    max_tokens_per_day: int = _set(
        0,
        _not_negative,
        "Tokens (in and out) of all users' tasks in a day (UTC); 0: no limit.",
        "所有用户的任务每天（UTC）最多可以使用的词元数（输入与输出合计）；0：不限制。",
    )
    max_run_seconds_per_day: int = _set(
        0,
        _not_negative,
        "Seconds that all users' tasks may work in a day (UTC), added up; 0: no limit.",
        "所有用户的任务每天（UTC）的运行时间合计上限，单位为秒；0：不限制。",
    )
    max_cost_usd_per_day: float = _set(
        0.0,
        _money,
        "Money all users' tasks may cost in a day (UTC), in US dollars; 0: no limit.",
        "所有用户的任务每天（UTC）的费用上限，单位为美元；0：不限制。",
    )
    prices: Path | None = _set(
        None,
        _path,
        "JSON file of prices that count before the built-in ones, in US dollars for a million tokens.",
        "价格表（JSON 文件），优先于内置价格，单位为每百万词元的美元数。",
    )
    model_context_tokens: int = _set(
        0,
        _not_negative,
        "Tokens a model's context takes, in place of what is known of it; 0: as known.",
        "模型上下文可容纳的词元数，代替已知的值；0：按已知值。",
    )
    stuck_detection: bool = _set(
        True,
        _flag,
        "1: warn, then end, a run that repeats itself without progress; 0 switches that off.",
        "1：运行毫无进展地重复时先警告、再结束；0：关闭。",
    )
    answer_seconds: int = _set(
        600,
        _whole(0, 86_400),
        "Seconds a question waits for its user's answer; the task keeps its place meanwhile; 0: none is asked.",
        "智能体的提问等待用户回答的秒数，等待期间任务仍占用名额；0：不提问。",
    )
    max_running_tasks_per_user: int = _set(
        3,
        _positive,
        "Tasks of one user that run, or wait for an answer, at the same time.",
        "一个用户同时运行（含等待回答）的任务数。",
    )
    max_running_tasks: int = _set(
        16,
        _positive,
        "Tasks that run, or wait for an answer, at the same time in this process.",
        "本进程中同时运行（含等待回答）的任务数。",
    )
    max_streams_per_user: int = _set(
        100,
        _not_negative,
        "Event streams one user may hold open at the same time, at each process; 0: no limit.",
        "一个用户在每个进程上同时可以打开的事件流数；0：不限制。",
    )
    max_stored_bytes: int = _set(
        10 << 30,  # ten files of the largest size: room for work, while a usual disk of 40 GB takes several users
        _not_negative,
        "Bytes on disk of one user's tasks; then uploads and tasks are refused, writing commands ended; 0: no limit.",
        "一个用户的所有任务可占用的磁盘字节数，达到后拒绝上传和新任务，并终止继续写入的命令；0：不限制。",
    )

    max_upload_bytes: int = _set(
        1 << 30, _positive, "Largest file that may be uploaded, in bytes.", "可以上传的最大文件，单位为字节。"
    )
    max_body_bytes: int = _set(
        2 << 20, _positive, "Largest JSON or form body, in bytes.", "JSON 或表单请求体的上限，单位为字节。"
    )

    sandbox: str = _set(
        "auto",
        _one_of("auto", "bubblewrap", "landlock", "container", "none"),
        "What confines the agent's commands: auto, bubblewrap, landlock, container or none (none only on loopback).",
        "用什么隔离智能体的命令：auto、bubblewrap、landlock、container 或 none（none 仅限回环地址）。",
    )
    sandbox_container_engine: str = _set(
        "auto",
        _text,
        "Engine of the container sandbox: podman, docker, the path of one, or auto (podman, else docker).",
        "container 沙箱所用的引擎：podman、docker、其中一个的路径，或 auto（优先 podman，其次 docker）。",
    )
    sandbox_container_image: str = _set(
        "beray-sandbox",
        _text,
        "Image of the container sandbox; it must be in the engine's store, it is never pulled.",
        "container 沙箱所用的镜像；必须已在引擎的本地存储中，服务器从不拉取。",
    )
    sandbox_container_runtime: str | None = _set(
        None,
        _text,
        "Runtime of the container sandbox, such as runsc (gVisor) or kata; unset: the engine's own.",
        "container 沙箱所用的运行时，例如 runsc（gVisor）或 kata；未设置时用引擎自己的默认值。",
    )
    sandbox_python: str | None = _set(
        None,
        _text,
        "Interpreter for the python tool; unset: one is found at start.",
        "python 工具所用的解释器；未设置时在启动时查找。",
    )
    sandbox_memory_bytes: int = _set(
        4 << 30,
        _positive,
        "Memory a command may have, all its processes together, in bytes.",
        "一个命令的所有进程合计可用的内存，单位为字节。",
    )
    sandbox_processes: int = _set(256, _positive, "Processes one command may have.", "一个命令可以拥有的进程数。")
    sandbox_file_bytes: int = _set(
        1 << 30, _positive, "Largest file a command may write, in bytes.", "一个命令可以写入的最大文件，单位为字节。"
    )
    sandbox_allow_hosts: tuple[str, ...] = _set(
        (),
        _words,
        "Hosts commands may reach by https, like data.gov, *.example.com, api.example.com:8443; unset: no network.",
        "命令可以用 https 访问的主机，例如 data.gov, *.example.com, api.example.com:8443；未设置时没有网络。",
    )
    mcp_config: Path | None = _set(
        None,
        _path,
        "JSON file of the MCP servers whose tools tasks may use (see the page about MCP servers).",
        "JSON 文件，列出任务可以使用其工具的 MCP 服务器（见 MCP 服务器一页）。",
    )
    web_fetch: bool = _set(
        False,
        _flag,
        "1: the agent has a tool that reads pages of the hosts in BERAY_SANDBOX_ALLOW_HOSTS.",
        "1：智能体有一个工具，可以读取 BERAY_SANDBOX_ALLOW_HOSTS 中主机的网页。",
    )
    sandbox_disk_bytes: int = _set(
        5 << 30,
        _positive,
        "What a task's files may hold on disk together, in bytes; a command that exceeds it is ended.",
        "一个任务的文件合计可占用的磁盘空间，单位为字节；超出的命令会被终止。",
    )
    min_free_bytes: int = _set(
        512 << 20,
        _not_negative,
        "Free disk space that commands and uploads leave alone, in bytes (at most a twentieth of the disk).",
        "命令和上传必须保留的空闲磁盘空间，单位为字节（至多为磁盘的二十分之一）。",
    )
    sandbox_require: tuple[str, ...] = _set(
        (),
        _some_of(*CONFINEMENTS),
        f"What the sandbox must confine for the server to start, of: {', '.join(CONFINEMENTS)}.",
        f"服务器启动时沙箱必须隔离的项目，可选：{', '.join(CONFINEMENTS)}。",
    )
    sandbox_uid_base: int = _set(
        0,
        _not_negative,
        "First uid for tasks when the server is root; 0: chosen at start.",
        "服务器以 root 运行时，任务所用的第一个 uid；0：启动时选定。",
    )

    local_user: bool = _set(
        False,
        _flag,
        "1: make a local user and write its token to server.json (used by `beray run`).",
        "1：创建一个本地用户，并把它的令牌写入 server.json（供 `beray run` 使用）。",
    )
    idle_exit_seconds: int = _set(
        0,
        _not_negative,
        "End this long after the last task and client; 0: never.",
        "最后一个任务和客户端离开后，过多少秒自行退出；0：从不。",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Settings":
        """Read all settings.

        Args:
            environ: Where `BERAY_*` are looked up; default the process' environment.
            overrides: Values that win over the environment (from CLI options); None means not given.

        Raises:
            SettingError: A value can't be used.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for spec in fields(cls):
            raw = source.get(env_name(spec.name))
            if raw is not None and raw.strip() != "":
                values[spec.name] = _parse(spec.name, raw, spec.metadata["setting"])
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)


def env_name(field_name: str) -> str:
    """The environment variable of a field."""
    return f"BERAY_{field_name.upper()}"


def _parse(name: str, raw: str, setting: Setting) -> Any:
    try:
        return setting.parse(raw)
    except ValueError as error:
        shown = "***" if setting.is_secret else repr(raw)
        raise SettingError(f"{env_name(name)}={shown} cannot be used: {error}. {setting.help}") from error
