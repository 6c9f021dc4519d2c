"""What a command finds inside: folders it can read, its environment variables, and where python is."""

import os
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.guard.egress import PORT as PROXY_PORT

USER = "beray"
"""Name under which a command sees itself."""

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

ETC_FOLDERS = ("/etc/alternatives", "/etc/fonts", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/certs")
ETC_SMALL_FILES = tuple(
    f"/etc/{name}"
    for name in (
        "debian_version",
        "host.conf",
        "hosts",
        "ld.so.cache",
        "localtime",
        "mime.types",
        "nsswitch.conf",
        "os-release",
        "protocols",
        "redhat-release",
        "resolv.conf",
        "services",
        "ssl/openssl.cnf",
        "timezone",
    )
)

# For Landlock, where a file that is not granted is still seen. That kills programs (EACCES is not ENOENT), so all that
# tools open by habit is granted; files that may hold secrets are not, and the variables below keep tools from them.
# Tried with shells, compilers, git, perl, node and python.
ETC_SEEN = tuple(
    f"/etc/{name}"
    for name in (
        "bash.bashrc",
        "ca-certificates",
        "group",
        "inputrc",
        "ld.so.conf",
        "ld.so.conf.d",
        "locale.alias",
        "lsb-release",
        "magic",
        "passwd",
        "perl",
        "profile",
        "profile.d",
        "python3",
        "python3.11",
        "python3.12",
        "python3.13",
        "python3.14",
        "terminfo",
    )
)

# For Landlock, where /proc is the machine's: never whole, since it shows every process.
MACHINE_FILES = (
    *(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems")),
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu",
)

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


GITCONFIG = f"[user]\n\tname = BeRay\n\temail = {USER}@localhost\n"


@dataclass(frozen=True)
class Account:
    """Who a command is inside."""

    uid: int
    home: str

    @property
    def passwd(self) -> str:
        """Stands in for /etc/passwd."""
        root = "root:x:0:0:root:/nonexistent:/usr/sbin/nologin"
        return f"{root}\n{USER}:x:{self.uid}:{self.uid}:{USER}:{self.home}:/bin/sh\n"

    @property
    def group(self) -> str:
        """Stands in for /etc/group."""
        return f"root:x:0:\n{USER}:x:{self.uid}:\n"


@dataclass(frozen=True)
class Layout:
    """The sandbox's own folder in the data folder, and the interpreter that was found.

    Attributes:
        root: `<data_dir>/sandbox`.
        interpreter_paths: Folders and files outside the system's that the interpreter needs, read-only inside.
        interpreter: The interpreter, as called inside.
    """

    root: Path
    interpreter_paths: tuple[str, ...] = ()
    interpreter: str | None = None

    @property
    def bin(self) -> Path:
        """First folder of PATH: `python` and `python3`."""
        return self.root / "bin"

    @property
    def gitconfig(self) -> Path:
        """Stands in for /etc/gitconfig: a name to commit under; a repository's own settings win."""
        return self.root / "gitconfig"

    @property
    def read_only(self) -> tuple[str, ...]:
        """What a command may read beside the system and its own folders."""
        own = [str(path) for path in (self.bin, self.gitconfig) if path.exists()]
        return (*own, *self.interpreter_paths)


def command_environment(layout: Layout, home: str) -> dict[str, str]:
    """The environment of a command: all of it; nothing comes from the server's."""
    return {
        "PATH": f"{layout.bin}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": home,
        "TMPDIR": f"{home}/tmp",  # noqa: S108 - below the home, not /tmp
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_SYSTEM": str(layout.gitconfig),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def proxy_environment() -> dict[str, str]:
    """How programs find the way out; plain http is sent there too, since the answer says why it is refused."""
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    inside = "localhost,127.0.0.1,::1"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    return dict.fromkeys(names, proxy) | {"NO_PROXY": inside, "no_proxy": inside, "NODE_USE_ENV_PROXY": "1"}
