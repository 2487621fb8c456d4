"""
The API as DRF views: one class per method, made from the table.

They answer what the direct lane leaves to Django, byte for byte as the lane would: requests without an API key, whose
session may do, other verbs than POST, unknown paths. There is no content negotiation, no browsable API and no parser:
the body is JSON whatever the headers say, and an ``Accept`` header changes nothing.

By session the API is open to active staff who may add API keys (``realtime.add_apikey``): with that permission they can
issue themselves a key that may call everything. Such a request needs Django's CSRF token in the ``X-CSRFToken`` header,
since any web page can make a browser send a JSON body.
"""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from api.execution import execute, execute_stream
from api.keys import (
    Caller,
    Credentials,
    Decision,
    TrustedCaller,
    Verdict,
    decide,
    read_credentials,
)
from api.lane import refusal
from api.methods import METHODS, Method
from api.replies import FORBIDDEN, METHOD_NOT_ALLOWED, NOT_FOUND, SERVER_ERROR, LaneResponse
from realtime.bootstrap import ensure_node
from realtime.node.node import Node


SESSION_PERMISSION = "realtime.add_apikey"


class KeyUser:
    """The ``request.user`` of a caller with an API key, for DRF; no row of any table."""

    is_authenticated = True
    is_active = True
    is_staff = False
    pk = None

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __str__(self) -> str:
        """Show whose key it is."""
        return self.caller.name


class ApiKeyAuthentication(BaseAuthentication):
    """Wraps the decision that all doors share; leaves requests without a key to the next class."""

    def authenticate(self, request: Request) -> tuple[KeyUser, Decision] | None:
        """Return the caller; a key that is wrong ends the request, whatever session it has."""
        view = cast("AsyncAPIView", request.parser_context["view"])
        credentials = credentials_of(request._request)  # noqa: SLF001 -- DRF's name for Django's request
        node = view.node
        if not (credentials.has_key or node.options.http_api.insecure):
            return None
        decision = decide(
            node.options.http_api, node.configuration.api_keys, credentials, view.method_name
        )
        if decision.caller is None:
            raise _Refusal(refusal(node, decision, view.method_name))
        return KeyUser(decision.caller), decision


class StaffSessionAuthentication(SessionAuthentication):
    """Django's session, with its CSRF check."""

    def enforce_csrf(self, request: Request) -> None:
        """Check the token; a refusal has no body here."""
        # Django's request, since DRF's would try to parse a form: only the header may carry the token.
        django_request = cast("Request", request._request)  # noqa: SLF001 -- DRF's name for it
        try:
            super().enforce_csrf(django_request)
        except PermissionDenied as error:
            raise _Refusal(FORBIDDEN) from error


class MayCall(BasePermission):
    """The scopes of the key, or the permission of the session's user."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raise the answer when the caller may not."""
        view = cast("AsyncAPIView", view)
        decision = request.auth
        if isinstance(decision, Decision):
            if decision.verdict is not Verdict.ALLOWED:
                raise _Refusal(refusal(view.node, decision, view.method_name))
            return True
        user = request.user
        if not user.is_authenticated:
            raise _Refusal(refusal(view.node, Decision(Verdict.UNAUTHORIZED), view.method_name))
        if not (user.is_staff and user.has_perm(SESSION_PERMISSION)):
            raise _Refusal(FORBIDDEN)
        return True


class _Refusal(APIException):
    """An answer raised from an authentication or permission class."""

    def __init__(self, response: LaneResponse) -> None:
        super().__init__()
        self.response = response


class AsyncAPIView(APIView, ABC):
    """
    A DRF view whose dispatch is a coroutine.

    With an API key, authentication and permissions are pure, so they run on the loop; a session is looked up in a
    thread.
    """

    authentication_classes = (ApiKeyAuthentication, StaffSessionAuthentication)
    permission_classes = (MayCall,)
    # No rate is configured for a key or a user.
    throttle_classes = ()
    parser_classes = ()
    renderer_classes = ()
    http_method_names = ["post"]  # noqa: RUF012 -- as Django declares it

    method_name: ClassVar[str] = ""
    node: Node

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        """Check the verb, then who calls, then carry out."""
        if request.method != "POST":
            return to_django(METHOD_NOT_ALLOWED)
        self.args, self.kwargs = args, kwargs
        self.node = await ensure_node()
        self.request = self.initialize_request(request, *args, **kwargs)
        # Before anything looks at request.POST, which would use up the body of a form's content type.
        body = await _read_body(request)
        if body is None:
            return to_django(SERVER_ERROR)
        try:
            if settings.SESSION_COOKIE_NAME in request.COOKIES:
                await sync_to_async(self.initial)(self.request)
            else:
                self.initial(self.request)
        except _Refusal as refused:
            return to_django(refused.response)
        return to_django(await self.post(self.request, body))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and authorize; there is nothing to negotiate."""
        self.perform_authentication(request)
        self.check_permissions(request)
        self.check_throttles(request)

    @abstractmethod
    async def post(self, request: Request, body: bytes) -> LaneResponse:
        """Carry out."""


class MethodView(AsyncAPIView):
    """One method of the table."""

    schema = AutoSchema()
    method: ClassVar[Method]

    async def post(self, request: Request, body: bytes) -> LaneResponse:
        """Answer."""
        credentials = credentials_of(request._request)  # noqa: SLF001 -- DRF's name for Django's request
        return await execute(
            self.node,
            self.method,
            _caller(request),
            body,
            is_transport=credentials.is_transport,
        )


class LegacyView(AsyncAPIView):
    """The legacy command stream."""

    schema = None

    async def post(self, request: Request, body: bytes) -> LaneResponse:
        """Answer."""
        return await execute_stream(self.node, _caller(request), body)


def method_view(method: Method) -> type[MethodView]:
    """Make the view class of a method."""
    attributes = {"method": method, "method_name": method.name, "__doc__": method.summary}
    return type(f"{method.title}View", (MethodView,), attributes)


METHOD_VIEWS: dict[str, type[MethodView]] = {
    name: method_view(method) for name, method in METHODS.items()
}


async def unknown_path(request: HttpRequest) -> HttpResponse:
    """
    Answer for a path under the API's prefix that is none of its routes.

    One that is not clean (``/api//publish``) is redirected to the clean one with 307, so that a POST is repeated as it
    was; a key in the query is left out there, since URLs end up in logs.
    """
    path = request.path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return to_django(NOT_FOUND)
    query = "&".join(
        pair
        for pair in request.META.get("QUERY_STRING", "").split("&")
        if pair and not read_credentials((), pair.encode()).parameter
    )
    location = quote(clean) + (f"?{query}" if query else "")
    return to_django(LaneResponse(307, ((b"location", location.encode()),), b""))


def credentials_of(request: HttpRequest) -> Credentials:
    """Read credentials as the lane does: from the raw headers, which Django's own mapping joins."""
    scope: dict[str, Any] = getattr(request, "scope", {})
    return read_credentials(scope.get("headers", ()), scope.get("query_string", b""))


def to_django(response: LaneResponse) -> HttpResponse:
    """Make Django's response of an answer."""
    headers = {name.decode(): value.decode() for name, value in response.headers}
    answer = HttpResponse(response.body, status=response.status, headers=headers)
    if "content-type" not in headers:
        del answer.headers["Content-Type"]
    return answer


def _caller(request: Request) -> Caller:
    user: object = request.user
    return user.caller if isinstance(user, KeyUser) else TrustedCaller(str(user))


async def _read_body(request: HttpRequest) -> bytes | None:
    """
    Read the whole body; ``None`` when the client broke off.

    ``request.body`` would refuse one above ``DATA_UPLOAD_MAX_MEMORY_SIZE``, for which the API has no counterpart.
    """
    try:
        return request.read()
    except OSError:
        return None
