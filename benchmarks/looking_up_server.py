"""`beray serve` that looks up each token anew, as one does that shares its database with others.

python -m benchmarks.looking_up_server serve --port 0 --data FOLDER
"""

from beray.cli.main import main
from beray.server.auth.service import Accounts


def _remember_nothing(accounts: Accounts) -> None:
    """In place of `Accounts.remember_tokens`."""


if __name__ == "__main__":
    Accounts.remember_tokens = _remember_nothing  # type: ignore[method-assign]  # there is no setting for it
    main()
