"""Routes about the user's session, and the summary."""

from collections.abc import Sequence

from aiohttp import web

from topology.http_guard import USER
from topology.http_users import COOKIE, LONGEST_NAME, SESSION_S, User, Users
from topology.settings import Settings
from workers.monitor.answers import Latency, Login, Session, Summary
from workers.monitor.history import History
from workers.monitor.routes import RefusedError, Route, answer, body
from workers.monitor.state import MonitorState


class Sessions:
    """Sessions of users."""

    def __init__(self, settings: Settings, state: MonitorState, history: History) -> None:
        self._users = Users(settings)
        self._state = state
        self._history = history

    def routes(self) -> list[Route]:
        """Returns the routes."""
        return [
            Route("GET", "/summary", self._summary, "Rooms by state, latency, versions, and who you are.", Summary),
            Route(
                "POST",
                "/session",
                self._log_in,
                "Changes a token into a cookie that scripts cannot read.",
                Session,
                body=Login,
                public=True,
                needs="",
            ),
            Route("DELETE", "/session", self._log_out, "Takes the cookie back.", Session, public=True, needs=""),
        ]

    async def _summary(self, request: web.Request) -> web.Response:
        user = user_of(request)
        latencies = sorted(self._history.latencies)
        model, index = self._history.versions
        return answer(
            Summary(
                rooms={state: count for state, count in self._state.counts().items() if count},
                latency_ms=Latency(p50=_percentile(latencies, 0.5), p95=_percentile(latencies, 0.95)),
                model_version=model,
                index_version=index,
                who=user.name,
                role=user.role,
            )
        )

    async def _log_in(self, request: web.Request) -> web.Response:
        login = await body(request, Login)
        if not self._users.protects:
            return answer(Session(who=None, role="open"))
        role = self._users.role_of(login.token)
        if role is None:
            raise RefusedError(401, "this is not the token: ask whoever runs the monitor (COPE_HTTP_TOKEN)")
        name = (login.name or "").strip()[:LONGEST_NAME] or None
        response = answer(Session(who=name, role=role))
        response.set_cookie(
            COOKIE,
            self._users.cookie(role, name),
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def _log_out(self, _: web.Request) -> web.Response:
        response = answer(Session(who=None, role=None))
        response.del_cookie(COOKIE, httponly=True, samesite="Strict")
        return response


def user_of(request: web.Request) -> User:
    """Returns the sender of a request, as determined by the guard."""
    return request.get(USER) or User("open", "nothing")


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
