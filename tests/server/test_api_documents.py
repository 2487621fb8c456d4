"""What is beside the API: the OpenAPI document with its page, the health check, and routes that are off."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.contrib.staticfiles import finders
from django.db import OperationalError
from django.test import AsyncClient, override_settings
from drf_spectacular.validation import validate_schema

from api import health, urls
from api.methods import METHODS
from realtime.conf.options import ProcessOptions
from realtime.engines.memory_maps import MemoryMaps
from realtime.protocol import api_messages
from realtime.protocol.errors import EngineError
from tests.server.api_world import KEY, make_options, open_world


replace = msgspec.structs.replace


@pytest.fixture
def routes() -> Iterator[Any]:
    """Serve the API's routes as other options make them."""
    module = types.ModuleType("tests_api_routes")
    overrides = []

    def use(options: ProcessOptions) -> None:
        module.urlpatterns = [  # type: ignore[attr-defined]
            *urls.api_routes(options),
            *urls.health_routes(options),
            *urls.swagger_routes(options),
        ]
        override = override_settings(ROOT_URLCONF=module)
        override.enable()
        overrides.append(override)

    yield use
    for override in overrides:
        override.disable()


def _with(options: ProcessOptions, section: str, **values: Any) -> ProcessOptions:
    return replace(options, **{section: replace(getattr(options, section), **values)})


@pytest.fixture
def swagger(routes: Any) -> AsyncClient:
    routes(_with(ProcessOptions(), "swagger", enabled=True))
    return AsyncClient()


async def _document(client: AsyncClient) -> dict[str, Any]:
    response = await client.get("/swagger/openapi.json?format=json")
    assert response.status_code == 200
    document: dict[str, Any] = msgspec.json.decode(response.content)
    return document


async def test_the_document_is_valid_and_complete(swagger: AsyncClient) -> None:
    """One POST per method, named as the reference names it."""
    document = await _document(swagger)

    validate_schema(document)
    assert {path: list(verbs) for path, verbs in document["paths"].items()} == {
        f"/api/{name}": ["post"] for name in METHODS
    }
    operation = document["paths"]["/api/presence_stats"]["post"]
    assert operation["operationId"] == "CentrifugoApi_PresenceStats"
    assert operation["tags"] == ["presence"]
    assert set(operation["responses"]) >= {"200", "400", "401", "500"}
    assert {"ApiKeyAuth": []} in operation["security"]
    assert document["components"]["securitySchemes"]["ApiKeyAuth"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
    }


async def test_schemas_are_the_messages(swagger: AsyncClient) -> None:
    """Every message of the API is a schema of its name, and every reference leads somewhere."""
    document = await _document(swagger)

    schemas = document["components"]["schemas"]
    messages = {
        name
        for name, value in vars(api_messages).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and name[0] != "_"
    }
    assert messages <= set(schemas)
    text = msgspec.json.encode(document).decode()
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= set(schemas)
    assert list(schemas["PublishRequest"]["properties"]) == list(
        api_messages.PublishRequest.__struct_fields__
    )
    assert schemas["HistoryResult"]["required"] == ["publications", "epoch", "offset"]


async def test_the_page_needs_nobody_else_s_server(swagger: AsyncClient) -> None:
    """Scripts and styles are static files of a package."""
    redirect = await swagger.get("/swagger")
    response = await swagger.get("/swagger/")

    assert (redirect.status_code, redirect.headers["Location"]) == (307, "/swagger/")
    assert response.status_code == 200
    page = response.content.decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) >= 3
    for source in sources:
        assert source.startswith("/static/")
        assert finders.find(source.removeprefix("/static/"))
    assert "//" not in page.replace("https://www.w3.org", "").split("<body>")[0]


async def test_routes_follow_the_options(routes: Any) -> None:
    """Another prefix moves all of them, and what is off is not there."""
    options = _with(make_options(handler_prefix="/rt/v1"), "health", handler_prefix="/alive")
    routes(_with(options, "health", enabled=True))
    client = AsyncClient()
    headers = {"x-api-key": KEY}
    async with open_world(options):
        publish = await client.post(
            "/rt/v1/info", b"null", content_type="application/json", headers=headers
        )
        stream = await client.post(
            "/rt/v1", b'{"method":8,"params":{}}', content_type="text/plain", headers=headers
        )
        unknown = await client.post("/rt/v1/nope", b"", content_type="text/plain")
    alive = await client.get("/alive")

    assert publish.status_code == 200
    assert stream.content == b'{"result":{"channels":{}}}'
    assert (unknown.status_code, unknown.content) == (404, b"404 page not found\n")
    assert alive.status_code == 200
    assert not urls.swagger_routes(options)
    assert not urls.health_routes(ProcessOptions())
    assert not urls.api_routes(make_options(disabled=True))


@pytest.mark.parametrize("verb", ["GET", "POST", "HEAD", "PUT"])
async def test_health_answers_any_verb(routes: Any, verb: str) -> None:
    """It asks nobody, so it needs neither node nor database."""
    routes(_with(ProcessOptions(), "health", enabled=True))

    response = await AsyncClient(enforce_csrf_checks=True).generic(verb, "/health")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.content == (b"" if verb == "HEAD" else b"{}")


class AwayMaps(MemoryMaps):
    """Maps on a server that is away."""

    async def check(self) -> None:
        """Fail."""
        message = "away"
        raise EngineError(message)


@pytest.mark.django_db(transaction=True)
async def test_deep_health_asks_database_and_engine(routes: Any) -> None:
    """A broken engine makes it 503, and so does a server of maps that is away."""
    routes(_with(ProcessOptions(), "health", enabled=True))
    async with open_world(make_options()) as world:
        well = await AsyncClient().get("/health?deep=1")
        world.engine.is_broken = True
        ill = await AsyncClient().get("/health?deep=1")
        world.engine.is_broken = False
        world.node.maps = AwayMaps()
        mapless = await AsyncClient().get("/health?deep=1")

    assert (well.status_code, well.content) == (200, b"{}")
    assert (ill.status_code, ill.content) == (503, b"{}")
    assert mapless.status_code == 503


async def test_deep_health_without_database(routes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a database that doesn't answer."""

    def fail() -> None:
        message = "away"
        raise OperationalError(message)

    monkeypatch.setattr(health, "_ask_database", fail)
    routes(_with(ProcessOptions(), "health", enabled=True))
    async with open_world(make_options()):
        response = await AsyncClient().get("/health?deep=1")

    assert response.status_code == 503
