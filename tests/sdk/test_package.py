import pickle
import subprocess
import sys

import pytest

import beray


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_no_http_library() -> None:
    loaded = run_python("import sys, beray; print(sorted({'requests', 'urllib3', 'orjson', 'ssl'} & set(sys.modules)))")

    assert loaded == "[]"


def test_the_client_loads_nothing_of_the_server() -> None:
    loaded = run_python(
        "import sys, beray; beray.BeRayClient('http://h');"
        "print(sorted(name for name in sys.modules if name.startswith(('beray.server', 'beray.cli.', 'fastapi'))))"
    )

    assert loaded == "[]"


@pytest.mark.parametrize("name", beray.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(beray, name).__name__ == name
    assert name in dir(beray)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        beray.nothing  # noqa: B018


def test_the_types_ship() -> None:
    path = run_python("import importlib.resources as r; print((r.files('beray') / 'py.typed').is_file())")

    assert path == "True"


def test_public_errors_pickle_by_their_own_module() -> None:
    assert pickle.loads(pickle.dumps(beray.APIError)) is beray.APIError
