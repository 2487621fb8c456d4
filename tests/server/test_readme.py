"""The README's examples say what is true."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest
from django.test import override_settings

import realtime
from realtime import calling, handlers
from realtime.conf import loader
from realtime.conf.schema import leaves


README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_run(django_capture_on_commit_callbacks, db, monkeypatch):
    """They publish what they say; with ``on_commit`` after the commit. A handler is registered."""
    monkeypatch.setattr(handlers, "_handlers", {})
    posted = []

    def post(method, request):
        posted.append((method, request.channel))
        return {}

    with (
        mock.patch.object(calling, "_post", post),
        django_capture_on_commit_callbacks(execute=True),
    ):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), {})

    methods = {"publish", "map_publish", "map_remove", "shared_poll_publish"}
    assert {method for method, _ in posted} == methods
    assert posted[-2:] == [("map_publish", "scores:game"), ("shared_poll_publish", "prices:market")]
    assert handlers.handler_names("shared_poll_refresh") == {"prices", "rates"}


def test_every_option_the_readme_names_exists():
    """A dotted name in code is an option, or an attribute of one."""
    named = set(
        re.findall(r"`((?:client|channel|http_api|websocket|http_server)\.[a-z_.]+)`", README)
    )

    assert named
    assert named <= set(leaves()) | {"channel.namespaces"}


def test_every_command_the_readme_names_exists():
    """``manage.py x`` is there for every x."""
    commands = {path.stem for path in Path("realtime/management/commands").glob("*.py")}

    assert set(re.findall(r"manage\.py ([a-z]+)", README)) <= commands | {
        "check",
        "runserver",
        "shell",
    }


def test_what_is_exported_exists():
    """Every name of ``from realtime import ...`` can be imported."""
    for name in realtime.__all__:
        assert callable(getattr(realtime, name)), name


@override_settings(REALTIME={})
def test_a_process_without_a_server_says_what_is_missing():
    """``publish()`` never publishes into an engine that nobody else can see."""
    loader.reset()
    try:
        with (
            mock.patch.dict("os.environ", {"TIDEWIRE_API_URL": ""}),
            pytest.raises(realtime.EngineError, match="API_URL"),
        ):
            realtime.publish("a", 1)
    finally:
        loader.reset()
