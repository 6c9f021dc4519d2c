"""Ask the vulnerability service about every package that an installation with all extras gets.

A known vulnerability fails the check. Where the service cannot be asked (no network, or an index that does not pass its
answers on) that is said and nothing fails: a machine without it must be able to check the rest.
"""

import json
import subprocess
import sys
import tempfile
from typing import Any

EXPORT = "uv export --quiet --all-extras --no-default-groups --no-emit-project --no-hashes --no-annotate --no-header"
AUDIT = "pip-audit --no-deps --disable-pip --progress-spinner off --format json --timeout 5 --requirement"
PROBE = "requests"  # a package that every service knows
PROBE_SECONDS = 20
SECONDS = 60  # for all packages; one takes some 0.1 s
UNREACHED = ("ConnectionError", "ProxyError", "Timeout", "SSLError", "HTTPError", "ServiceError")


class NotAsked(Exception):
    """The service gave no answer; the argument says why."""


def main() -> int:
    """Print what was found; the exit status."""
    pins = subprocess.run(EXPORT.split(), capture_output=True, text=True, check=True).stdout.splitlines()
    try:
        known = ask([pin for pin in pins if pin.startswith(f"{PROBE}==")], seconds=PROBE_SECONDS)
        if not any("vulns" in package for package in known):
            raise NotAsked("the index in use does not pass on what is known about packages")
        packages = ask(pins, seconds=SECONDS)
    except NotAsked as reason:
        print(f"notice: dependencies were not audited: {reason}")
        return 0
    print("\n".join(report(packages)))
    return 1 if any(package.get("vulns") for package in packages) else 0


def ask(pins: list[str], *, seconds: float) -> list[dict[str, Any]]:
    """What is known about each package: `name`, `version` and `vulns`, or `name` and `skip_reason`.

    Raises:
        NotAsked: No answer, or not in time.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        try:
            ended = subprocess.run([*AUDIT.split(), file.name], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise NotAsked(f"no answer within {seconds:g} s") from None
    return read(ended.stdout, ended.stderr)


def read(output: str, errors: str) -> list[dict[str, Any]]:
    """The packages in pip-audit's output.

    Raises:
        NotAsked: It could not reach the service.
        RuntimeError: It failed for another reason.
    """
    if output.strip():
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
        return packages
    last = (errors.strip().splitlines() or ["no output"])[-1]
    if any(name in last for name in UNREACHED):
        raise NotAsked(last[:200])
    raise RuntimeError(f"pip-audit failed:\n{errors}")


def report(packages: list[dict[str, Any]]) -> list[str]:
    """One line per vulnerability, then how many packages were looked at, and which were not."""
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "vulns" not in package]
    lines = [*found, f"{len(packages) - len(skipped)} packages audited, {len(found)} known vulnerabilities"]
    return [*lines, f"notice: nothing is known about {', '.join(skipped)}"] if skipped else lines


if __name__ == "__main__":
    sys.exit(main())
