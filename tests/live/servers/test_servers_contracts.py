"""
What we use of uvicorn, httptools, Daphne, autobahn and Twisted that they don't promise.

A new version of one of them that fails here needs a look at ``realtime/servers`` before its pin is raised.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import daphne.server
import httptools
import pytest
import uvicorn
from autobahn.websocket.protocol import WebSocketProtocol as AutobahnProtocol
from daphne.cli import CommandLineInterface
from daphne.http_protocol import HTTPFactory
from daphne.management.commands.runserver import Command as RunserverCommand
from daphne.server import Server as DaphneServer
from daphne.ws_protocol import WebSocketProtocol as DaphneProtocol
from twisted.internet.abstract import FileDescriptor
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState


PINNED = ("uvicorn", "httptools", "daphne", "autobahn", "Twisted", "websockets")


@pytest.mark.parametrize("package", PINNED)
def test_the_version_is_pinned_exactly_and_installed(package: str) -> None:
    """Nothing else was tried."""
    requirements = (Path(__file__).parents[3] / "requirements.txt").read_text(encoding="utf-8")

    assert f"{package}=={version(package)}\n" in requirements


def test_the_upgrade_exception_says_where_the_frames_begin() -> None:
    """httptools gives the offset of the first byte behind the request."""
    head = b"GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    parser = httptools.HttpRequestParser(object())

    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        parser.feed_data(head + b"frames")

    assert upgrade.value.args[0] == len(head)


def test_an_exception_in_a_parser_callback_stops_the_parser() -> None:
    """It is how a refused request keeps the ones behind it from being read."""

    class Refusing:
        seen = 0

        def on_headers_complete(self) -> None:
            self.seen += 1
            raise ValueError

    refusing = Refusing()
    with pytest.raises(httptools.HttpParserError):
        httptools.HttpRequestParser(refusing).feed_data(b"GET / HTTP/1.1\r\n\r\n" * 2)

    assert refusing.seen == 1


def test_uvicorn_makes_its_protocols_as_ours_expects() -> None:
    """A class for ``http``, called with these names."""
    config = uvicorn.Config(lambda: None, http=HttpToolsProtocol, log_config=None)  # type: ignore[arg-type,return-value]
    config.load()
    parameters = inspect.signature(HttpToolsProtocol.__init__).parameters

    assert config.http_protocol_class is HttpToolsProtocol
    assert list(parameters) == ["self", "config", "server_state", "app_state", "_loop"]


async def test_the_http_protocol_has_the_attributes_that_ours_uses() -> None:
    """State, hooks and timers."""
    config = uvicorn.Config(lambda: None, log_config=None)  # type: ignore[arg-type,return-value]
    protocol = HttpToolsProtocol(config, ServerState(), {})

    for name in (
        *("app", "parser", "connections", "tasks", "pipeline", "cycle", "flow", "scope", "headers"),
        *(
            "server_state",
            "app_state",
            "timeout_keep_alive",
            "timeout_keep_alive_task",
            "access_log",
        ),
        *("root_path", "asgi_version", "server", "client", "scheme", "expect_100_continue"),
    ):
        assert hasattr(protocol, name), name
    for method in (
        *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"),
        *("on_message_complete", "on_response_complete", "_start_asgi_task", "_get_upgrade"),
        *("_should_upgrade", "_unset_keepalive_if_required", "_unsupported_upgrade_warning"),
        *("handle_websocket_upgrade", "send_400_response", "shutdown"),
    ):
        assert callable(getattr(protocol, method)), method


def test_uvicorn_looks_at_no_more_of_a_cycle_than_our_stand_in_has() -> None:
    """``_LaneCycle`` takes the place of a request that uvicorn would have made."""
    from realtime.servers.http_protocol import _LaneCycle

    source = inspect.getsource(HttpToolsProtocol)

    used = set(re.findall(r"(?:self\.cycle|existing_cycle)\.(\w+)", source))
    assert used <= set(dir(_LaneCycle)), used


def test_a_cycle_is_made_of_what_we_give_it() -> None:
    """For requests that the lane has read and passes on."""
    assert list(inspect.signature(RequestResponseCycle.__init__).parameters)[1:] == [
        *("scope", "transport", "flow", "logger", "access_logger", "access_log"),
        *("default_headers", "message_event", "expect_100_continue", "keep_alive", "on_response"),
    ]


def test_uvicorn_closes_connections_before_the_lifespan_ends() -> None:
    """Which is why our server drains first; and it still has the steps that ours wraps."""
    source = inspect.getsource(uvicorn.Server.shutdown)

    assert source.index("connection.shutdown()") < source.index("self.lifespan.shutdown()")
    assert inspect.iscoroutinefunction(uvicorn.Server.startup)
    assert "capture_signals" in inspect.getsource(uvicorn.Server.serve)
    assert "self.servers" in inspect.getsource(uvicorn.Server.startup)


def test_daphne_looks_its_classes_up_where_ours_are_put() -> None:
    """The command line, ``runserver`` and the server's own ``run``."""
    assert isinstance(CommandLineInterface.server_class, type)
    assert "self.server_class(" in inspect.getsource(CommandLineInterface.run)
    assert isinstance(RunserverCommand.server_cls, type)
    assert "self.server_cls(" in inspect.getsource(RunserverCommand.inner_run)
    assert "WebSocketFactory(self" in inspect.getsource(DaphneServer.run)
    assert hasattr(daphne.server, "WebSocketFactory")
    assert "requestFactory = WebRequest" in inspect.getsource(HTTPFactory.buildProtocol)
    assert "self.endpoints:" in inspect.getsource(DaphneServer.run)


def test_daphne_still_has_what_ours_works_around() -> None:
    """When it mends one of these, ours can go."""
    assert "reason" not in inspect.getsource(DaphneProtocol.handle_reply)
    assert 'details["application_instance"]' in inspect.getsource(
        DaphneServer.kill_all_applications
    )
    assert 'if message.get("text", None)' in inspect.getsource(DaphneProtocol.handle_reply)


def test_autobahn_calls_what_ours_overrides() -> None:
    """Every close passes through one method, every failure through another."""
    for name in ("sendClose", "_fail_connection", "onCloseFrame"):
        assert "self.sendCloseFrame(" in inspect.getsource(getattr(AutobahnProtocol, name)), name
    for name in ("_max_message_size_exceeded", "_protocol_violation", "_invalid_payload"):
        assert "self._fail_connection(" in inspect.getsource(getattr(AutobahnProtocol, name)), name
    parameters = list(inspect.signature(AutobahnProtocol.sendCloseFrame).parameters)
    assert parameters == ["self", "code", "reasonUtf8", "isReply"]


def test_twisted_keeps_its_write_buffer_where_we_measure_it() -> None:
    """In two parts, without a name for the sum."""
    descriptor = FileDescriptor()
    descriptor.dataBuffer, descriptor.offset = b"abc", 1
    descriptor._tempDataBuffer, descriptor._tempDataLen = [b"de"], 2

    assert len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen == 4
    assert FileDescriptor.bufferSize == 65536
