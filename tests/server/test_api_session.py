"""The API by session: who may, and that nobody else's page can."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient

from realtime import commands
from tests.server.api_world import KEY, make_options, open_world


pytestmark = pytest.mark.django_db(transaction=True)

HELLO = b'{"channel":"chat","data":1}'


def _make_user(*, is_staff: bool = True, may: bool = True, is_active: bool = True) -> User:
    user = User.objects.create_user("ann", is_staff=is_staff)
    if may:
        user.user_permissions.add(Permission.objects.get(codename="add_apikey"))
    user.is_active = is_active
    user.save()
    return user


async def _signed_in(client: AsyncClient, **facts: bool) -> str:
    """Sign in; return the CSRF token to send."""
    user = await sync_to_async(_make_user)(**facts)
    await client.aforce_login(user)
    client.cookies["csrftoken"] = "x" * 32
    return "x" * 32


async def test_staff_with_the_permission_may_call() -> None:
    """The answer is the one that a key would get."""
    client = AsyncClient(enforce_csrf_checks=True)
    token = await _signed_in(client)
    async with open_world(make_options()):
        response = await client.post(
            "/api/publish", HELLO, content_type="application/json", headers={"x-csrftoken": token}
        )

    assert (response.status_code, response.content) == (200, b'{"result":{}}')


async def test_a_form_content_type_does_not_use_up_the_body() -> None:
    """Django would read such a body as a form when it looks for the CSRF token."""
    client = AsyncClient(enforce_csrf_checks=True)
    token = await _signed_in(client)
    async with open_world(make_options()):
        response = await client.generic(
            "POST",
            "/api/publish",
            HELLO,
            content_type="application/x-www-form-urlencoded",
            headers={"x-csrftoken": token},
        )

    assert (response.status_code, response.content) == (200, b'{"result":{}}')


async def test_without_csrf_token_a_session_is_refused() -> None:
    """Another site's page can make the browser send the cookie, but not the token."""
    client = AsyncClient(enforce_csrf_checks=True)
    await _signed_in(client)
    async with open_world(make_options()) as world:
        response = await client.post("/api/publish", HELLO, content_type="text/plain")

        assert world.node.publications == 0
    assert (response.status_code, response.content) == (403, b"")
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize(
    ("facts", "status"),
    [({"is_staff": False}, 403), ({"may": False}, 403), ({"is_active": False}, 401)],
)
async def test_other_users_are_refused(facts: dict[str, bool], status: int) -> None:
    """Neither staff without the permission nor the permission without staff is enough."""
    client = AsyncClient(enforce_csrf_checks=True)
    token = await _signed_in(client, **facts)
    async with open_world(make_options()) as world:
        response = await client.post(
            "/api/publish", HELLO, content_type="application/json", headers={"x-csrftoken": token}
        )

        assert world.node.publications == 0
    assert (response.status_code, response.content) == (status, b"")


async def test_a_wrong_key_is_not_helped_by_a_session() -> None:
    """Whoever shows a key is judged by it, as in the lane."""
    client = AsyncClient(enforce_csrf_checks=True)
    token = await _signed_in(client)
    headers = {"x-csrftoken": token, "x-api-key": "wrong"}
    async with open_world(make_options()):
        response = await client.post(
            "/api/publish", HELLO, content_type="application/json", headers=headers
        )

    assert (response.status_code, response.content) == (401, b"")


async def test_a_key_needs_no_csrf_token_even_with_a_session() -> None:
    """No page of another site knows the key."""
    client = AsyncClient(enforce_csrf_checks=True)
    await _signed_in(client, may=False)
    async with open_world(make_options()):
        response = await client.post(
            "/api/publish", HELLO, content_type="application/json", headers={"x-api-key": KEY}
        )

    assert (response.status_code, response.content) == (200, b'{"result":{}}')


async def test_the_stream_and_batches_work_by_session() -> None:
    """A session may call everything."""
    client = AsyncClient(enforce_csrf_checks=True)
    headers = {"x-csrftoken": await _signed_in(client)}
    async with open_world(make_options()):
        stream = await client.post(
            "/api", b'{"method":8,"params":{}}', content_type="application/json", headers=headers
        )
        batch = await client.post(
            "/api/batch",
            b'{"commands":[{"channels":{}}]}',
            content_type="application/json",
            headers=headers,
        )

    assert stream.content == b'{"result":{"channels":{}}}'
    assert batch.content == b'{"replies":[{"channels":{"channels":{}}}]}'


async def test_a_function_that_is_not_async_may_use_the_database() -> None:
    """It runs in a thread that Django looks after."""
    await sync_to_async(_make_user)()
    commands.register_rpc("users", lambda params: User.objects.count())
    try:
        async with open_world(make_options()):
            response = await AsyncClient().post(
                "/api/rpc",
                b'{"method":"users"}',
                content_type="application/json",
                headers={"x-api-key": KEY},
            )
    finally:
        commands.unregister_rpc("users")

    assert response.content == b'{"result":{"data":1}}'
