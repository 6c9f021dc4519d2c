"""HTTP of admins: /admin. Who is none gets the answer of a path where nothing is, whatever the parameters or body."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute

from beray.protocol.status import Status
from beray.protocol.types import StopAnswer
from beray.server.admin.bodies import EntryBody, OverviewBody, SeenTaskBody, SeenUserBody, SetRole
from beray.server.admin.overview import Overview
from beray.server.admin.service import Admins
from beray.server.admin.views import entry_view, task_view, user_view
from beray.server.audit import Action
from beray.server.auth.service import Accounts
from beray.server.bodies import Plain
from beray.server.db.admin import EntryFilter, Page, TaskFilter, UserFilter
from beray.server.db.tables import ID_MOST
from beray.server.next_link import next_link
from beray.server.refusals import LOGGED_IN, READING, SIGNED_IN, WRITING, refused_with
from beray.server.tasks.bodies import StopBody

USERS_MOST: Final = 200  # of one page
TASKS_MOST: Final = 500
ENTRIES_MOST: Final = 1000
SEARCH_MOST: Final = 320  # characters, as an address has at most

READ: Final = refused_with(*READING, *SIGNED_IN, "not_found")
CHANGE: Final = (*WRITING, *LOGGED_IN, "not_found")

Before = Annotated[int | None, Query(ge=1)]


def build_router(admins: Admins, overview: Overview, accounts: Accounts) -> APIRouter:
    """The routes of admins, without the `/api/v1` prefix."""
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=_guarded(accounts))

    @router.get("/overview", response_model=OverviewBody, responses=READ)
    async def get_overview() -> dict[str, Any]:
        """How the whole service is doing."""
        return await overview.look()

    @router.get("/users", response_model=list[SeenUserBody], responses=READ)
    async def list_users(
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=USERS_MOST)] = 50,
        before: Before = None,
        q: Annotated[Plain | None, Query(max_length=SEARCH_MOST)] = None,
    ) -> list[dict[str, Any]]:
        """All users, newest first, or those with `q` in their address."""
        page = await admins.list_users(UserFilter(limit, _below(before), search=q))
        return [user_view(row) for row in _linked(request, response, page)]

    @router.put(
        "/users/{user_id}",
        response_model=SeenUserBody,
        responses=refused_with(*CHANGE, "user_not_found", "last_admin", "admin_needs_password"),
    )
    async def set_role(user_id: int, body: SetRole) -> dict[str, Any]:
        """Make a user an admin, or no admin any more."""
        return user_view(await admins.set_admin(user_id, is_admin=body.is_admin))

    @router.get("/tasks", response_model=list[SeenTaskBody], responses=READ)
    async def list_tasks(
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=TASKS_MOST)] = 50,
        before: Before = None,
        status: Annotated[list[Status] | None, Query()] = None,
        user_id: Annotated[int | None, Query(ge=1)] = None,
    ) -> list[dict[str, Any]]:
        """Everybody's tasks, newest first: those that have not ended, unless `status` asks for others.

        A page can have fewer tasks than `limit`, or none, and a next one.
        """
        wanted = TaskFilter(limit, _below(before), tuple(status or ()), _id(user_id))
        return [task_view(row) for row in _linked(request, response, await admins.list_tasks(wanted))]

    @router.post(
        "/tasks/{task_id}/stop",
        response_model=StopBody,
        responses=refused_with(*CHANGE, "task_not_found", "task_already_ended"),
    )
    async def stop_task(task_id: int) -> StopAnswer:
        """Stop anybody's task, as its owner would."""
        return await admins.stop(task_id)

    @router.get("/audit", response_model=list[EntryBody], responses=READ)
    async def list_entries(
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=ENTRIES_MOST)] = 100,
        before: Before = None,
        user_id: Annotated[int | None, Query(ge=1)] = None,
        action: Annotated[Action | None, Query()] = None,
    ) -> list[dict[str, Any]]:
        """The audit log, newest first. A page can have fewer entries than `limit`, or none, and a next one."""
        wanted = EntryFilter(limit, _below(before), _id(user_id), action)
        return [entry_view(row) for row in _linked(request, response, await admins.list_entries(wanted))]

    return router


def _guarded(accounts: Accounts) -> type[APIRoute]:
    """Routes that look who asks before anything else is looked at, the parameters and the body included."""

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_admins(request: Request) -> Response:
                await accounts.authenticate_admin(request)
                if request.method != "GET":  # an API token looks; one that has leaked must change nothing
                    await accounts.authenticate_login(request)
                return await handle(request)

            return handle_admins

    return AdminRoute


def _below(before: int | None) -> int:
    return ID_MOST if before is None else min(before, ID_MOST)


def _id(wanted: int | None) -> int | None:
    """An id that nobody can have is looked up as the largest there may be."""
    return None if wanted is None else min(wanted, ID_MOST)


def _linked(request: Request, response: Response, page: Page[Any]) -> Any:
    """The rows of a page, whose next one the answer names."""
    if page.next_before is not None:
        response.headers["link"] = next_link(request, page.next_before)
    return page.rows
