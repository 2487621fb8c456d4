"""``manage.py bench``: what this server costs on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from realtime.bench import BenchError, report, scenarios
from realtime.bench.plan import (
    LIMITS,
    SCENARIOS,
    WITH_VARIANTS,
    Plan,
    Sizes,
    make_plan,
    with_variants,
)
from realtime.bench.report import Result
from realtime.bench.server import (
    HISTORY_NAMESPACE,
    NAMESPACE,
    RunningServer,
    ScratchServer,
    allow_open_files,
    parse_target,
    scratch_folder,
)
from realtime.conf import loader
from realtime.conf.options import TokenOptions
from realtime.conf.rendering import document
from realtime.management.base import ConfigCommand
from realtime.management.tokens import make_token
from realtime.protocol.errors import ConfigError


API_KEY_VARIABLE = "BENCH_API_KEY"
TOKEN_SECRET_VARIABLE = "BENCH_TOKEN_SECRET"  # noqa: S105 -- a name
INTERRUPTED = 130
TOKEN_SECONDS = 3600
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class _Option:
    """A size that may be given."""

    name: str
    kind: type[int] | type[float]
    help: str


_SIZES = (
    _Option("clients", int, "Sockets."),
    _Option("channels", int, "Channels; more than there are sockets are held by them in turn."),
    _Option("publications", int, "Publications; of inbound, by each socket."),
    _Option("publishers", int, "HTTP connections that publish, each one request at a time."),
)
_OTHERS = (
    _Option("size", int, "Bytes of padding in a payload."),
    _Option("rate", float, "Publications a second over HTTP; 0 is as fast as they are answered."),
    _Option("hold", float, "Seconds that sockets are left idle before memory is read."),
    _Option("ramp", int, "Sockets that connect at a time."),
    _Option("processes", int, "Client processes; by default a core fewer than there are, up to 8."),
    _Option("max_seconds", float, "Give up on connecting, and on publishing, after so long."),
)


class Command(ConfigCommand):
    """Measure a server of our own, or a running one."""

    help = (
        "Measure deliveries a second, the server's CPU time for each, latency and memory for a socket. By default it "
        "starts a server of its own, with a scratch database, on this project's engine; --url measures a running one. "
        "Every scenario is bounded in number and time. Exit status: 0 if nothing was lost and nothing failed, 1 if "
        "something was, 130 after Ctrl-C. Scenarios: "
        + "; ".join(f"{name} ({text})" for name, text in SCENARIOS.items())
        + "."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take scenarios, sizes and, for a running server, where it is and its keys."""
        parser.add_argument(
            "scenarios",
            nargs="*",
            metavar="SCENARIO",
            help=f"Of {', '.join(SCENARIOS)}; by default all.",
        )
        defaults = {each.name: each.default for each in fields(Plan)}
        for option in (*_SIZES, *_OTHERS):
            low, high = LIMITS[option.name].low, LIMITS[option.name].high
            text = f"{option.help} {low:,.0f} to {high:,.0f}"
            if option in _OTHERS and option.name != "processes":
                text += f" ({defaults[option.name]:g})"
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=option.kind,
                metavar="N" if option.kind is int else "X",
                help=f"{text}.",
            )
        parser.add_argument(
            "--delta",
            action="store_true",
            help=f"Once more with deltas: {' and '.join(WITH_VARIANTS)}, whose publications then change by their time.",
        )
        parser.add_argument(
            "--filters",
            type=int,
            default=0,
            metavar="N",
            help=f"Once more with N different tags filters, {LIMITS['filters'].high:,.0f} at most, all of which let "
            "everything through.",
        )
        parser.add_argument("--json", action="store_true", help="Print JSON and no table.")
        own = parser.add_argument_group("a server of its own")
        own.add_argument(
            "--history", action="store_true", help="Channels with history and recovery."
        )
        own.add_argument(
            "--serve",
            default="",
            metavar="ARGUMENTS",
            help='More arguments for manage.py serve, as one text: --serve="--workers 2".',
        )
        running = parser.add_argument_group("a running server")
        running.add_argument("--url", help="Measure this one: http://127.0.0.1:8000.")
        running.add_argument(
            "--api-key",
            help=f"Its API key; better in {API_KEY_VARIABLE}, since arguments are for everybody to see.",
        )
        running.add_argument(
            "--token-secret",
            help=f"Its client.token.hmac_secret_key; better in {TOKEN_SECRET_VARIABLE}.",
        )
        running.add_argument(
            "--pid",
            type=int,
            action="append",
            default=[],
            metavar="PID",
            help="A process of it, whose CPU time and memory are measured with all its children; may be given several "
            "times. By default what listens on the URL's port, if that is on this machine.",
        )
        running.add_argument(
            "--prefix",
            help=f"What channel names begin with ({NAMESPACE}:); clients must be allowed to subscribe to these and, "
            "for inbound, to publish.",
        )
        running.add_argument(
            "--allow-remote",
            action="store_true",
            help="Measure a server that is not on this machine's loopback; make sure that it is yours.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure and report."""
        try:
            plans = _plans(options)
            allow_open_files(plans)
            results, facts = asyncio.run(self._measure(plans, options))
        except BenchError as error:
            raise CommandError(str(error)) from error
        except _Interrupted:
            self.stderr.write("interrupted; all processes were ended")
            sys.exit(INTERRUPTED)
        problems = [problem for result in results for problem in result.problems()]
        facts = {
            "command": command_line(options),
            "machine": report.machine(),
            "versions": report.versions(),
            **facts,
        }
        if options["json"]:
            self.stdout.write(report.to_json(facts, results))
        else:
            self.stdout.write(_text(facts, results))
        if facts["error"]:
            problems.append(facts["error"])
        if problems:
            raise CommandError("\n".join(problems))

    async def _measure(
        self, plans: Sequence[Plan], options: dict[str, Any]
    ) -> tuple[list[Result], dict[str, Any]]:
        """Return the results, and what there is to say of the server."""
        with _interruptible():
            try:
                async with _server(options) as server:
                    return await self._carry_out(plans, server)
            except asyncio.CancelledError as error:
                raise _Interrupted from error

    async def _carry_out(
        self, plans: Sequence[Plan], server: ScratchServer | RunningServer
    ) -> tuple[list[Result], dict[str, Any]]:
        """Carry the plans out one after another, each on a fresh server if it is ours."""
        results: list[Result] = []
        problem = None
        tokens = token_maker(server.token_secret)
        for number, plan in enumerate(plans, start=1):
            self._tell(f"[{number}/{len(plans)}] {plan.scenario}: {_describe(plan)}")
            try:
                async with server:
                    results.append(await scenarios.run(plan, server, tokens))
            except BenchError as error:
                if not results:
                    raise
                # What was measured before is still worth a look.
                problem = str(error)
                break
        is_scratch = isinstance(server, ScratchServer)
        about = {
            "is_scratch": is_scratch,
            "url": None if is_scratch else server.target.url,
            "engine": server.engine or None,
        }
        return results, {"server": about, "error": problem}

    def _tell(self, text: str) -> None:
        # Not by self.stderr, which is red; and not on standard output, which programs read.
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class _Interrupted(Exception):  # noqa: N818 -- no error: somebody asked for the end
    """A signal came, and all is put away."""


@contextlib.contextmanager
def _interruptible() -> Any:
    """Have signals cancel the task, once: what is put away then must not be interrupted again."""
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    is_cancelled = False

    def cancel() -> None:
        nonlocal is_cancelled
        if not is_cancelled:
            is_cancelled = True
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _server(options: dict[str, Any]) -> AsyncIterator[ScratchServer | RunningServer]:
    """Give what is measured; ``async with`` that again for each scenario."""
    if options["url"]:
        target = parse_target(options["url"], allow_remote=options["allow_remote"])
        api_key = options["api_key"] or os.environ.get(API_KEY_VARIABLE, "")
        secret = options["token_secret"] or os.environ.get(TOKEN_SECRET_VARIABLE, "")
        if not api_key or not secret:
            raise BenchError(
                f"--url needs the server's --api-key and --token-secret, or {API_KEY_VARIABLE} and "
                f"{TOKEN_SECRET_VARIABLE} in the environment"
            )
        yield RunningServer(target, api_key, secret, options["pid"])
        return
    try:
        configured = document(loader.get_options())
    except ConfigError as error:
        raise BenchError(f"this project's configuration: {error}") from error
    with scratch_folder() as folder:
        server = ScratchServer(
            Path(folder), configured, settings.SETTINGS_MODULE, tuple(options["serve"].split())
        )
        await server.prepare()
        yield server


def token_maker(secret: str) -> scenarios.MakeTokens:
    """Return what signs a JWT for each of the sockets it is given."""
    keys = TokenOptions(hmac_secret_key=secret)

    def make_tokens(sockets: Sequence[int]) -> list[str]:
        return [make_token("token", keys, f"bench{each}", TOKEN_SECONDS) for each in sockets]

    return make_tokens


def _plans(options: dict[str, Any]) -> list[Plan]:
    """Read what is to be done."""
    for name in options["scenarios"]:
        if name not in SCENARIOS:
            raise BenchError(f"there is no scenario {name}; there are {', '.join(SCENARIOS)}")
    _check_combination(options)
    prefix = options["prefix"] or f"{HISTORY_NAMESPACE if options['history'] else NAMESPACE}:"
    if not prefix.isprintable() or '"' in prefix or "\\" in prefix or not prefix.isascii():
        raise BenchError(
            f"--prefix {prefix!r}: expected plain ASCII without quotes and backslashes"
        )
    others = {each.name: options[each.name] for each in _OTHERS if options[each.name] is not None}
    others.setdefault("processes", min(8, max(1, (os.cpu_count() or 1) - 1)))
    sizes = Sizes(
        **{each.name: options[each.name] for each in _SIZES}, others={**others, "prefix": prefix}
    )
    names = options["scenarios"] or tuple(SCENARIOS)
    delta, filters = options["delta"], options["filters"]
    if (delta or filters) and not set(names) & set(WITH_VARIANTS):
        raise BenchError(f"--delta and --filters are for {' and '.join(WITH_VARIANTS)}")
    return [
        plan
        for name in names
        for plan in with_variants(make_plan(name, sizes), delta=delta, filters=filters)
    ]


def _check_combination(options: dict[str, Any]) -> None:
    """Refuse options that would have no effect."""
    if options["url"]:
        useless = [name for name in ("history", "serve") if options[name]]
        reason = "is for a server of its own, not for --url"
    else:
        names = ("api_key", "token_secret", "pid", "prefix", "allow_remote")
        useless = [name for name in names if options[name]]
        reason = "is for a running server: give its --url"
    if useless:
        raise BenchError(f"--{useless[0].replace('_', '-')} {reason}")


def _describe(plan: Plan) -> str:
    if plan.scenario == "publish":
        return f"{plan.publications:,} publications by {plan.publishers} publishers"
    held = f"{plan.clients:,} sockets, {plan.channels:,} channel{'s' if plan.channels > 1 else ''}"
    if plan.variant:
        held += f", {plan.variant}"
    if plan.scenario == "connect":
        return held
    if plan.scenario == "inbound":
        return f"{held}, {plan.publications:,} publications by each"
    return f"{held}, {plan.publications:,} publications by {plan.publishers} publishers"


def command_line(options: dict[str, Any]) -> str:
    """Return the command that repeats a run; a key or secret is not shown."""
    words = ["manage.py bench", *options["scenarios"]]
    words += [
        f"--{each.name.replace('_', '-')} {options[each.name]}"
        for each in (*_SIZES, *_OTHERS)
        if options[each.name] is not None
    ]
    if options["filters"]:
        words.append(f"--filters {options['filters']}")
    words += [f"--{name}" for name in ("delta", "history", "json") if options[name]]
    if options["serve"]:
        words.append(f'--serve="{options["serve"]}"')
    for name in ("url", "prefix"):
        if options[name]:
            words.append(f"--{name} {options[name]}")
    words += [f"--pid {pid}" for pid in options["pid"]]
    if options["allow_remote"]:
        words.append("--allow-remote")
    return " ".join(words)


def _text(facts: dict[str, Any], results: Sequence[Result]) -> str:
    box, server = facts["machine"], facts["server"]
    pids = sorted({pid for result in results for pid in result.pids})
    measured = f"of the processes {', '.join(map(str, pids))}" if pids else "not known: give --pid"
    kind = f"started for this, {server['engine']} engine" if server["is_scratch"] else server["url"]
    notes = []
    if bound := [result.name for result in results if result.is_bound_by_clients]:
        notes.append(
            f"The clients were busy all the time in: {', '.join(bound)}. Units a second and latency are theirs there; "
            "--processes takes more of them, if there are cores for it."
        )
    if not server["is_scratch"] and any(result.kb_per_socket is not None for result in results):
        notes.append(
            "KB/socket is too low for a server that has had as many sockets before: it takes their memory again."
        )
    return "\n".join(
        (
            f"machine   {box['cores']} cores, {box['cpu']}, {box['memory_gb']} GB, {box['system']}",
            "versions  " + ", ".join(f"{name} {each}" for name, each in facts["versions"].items()),
            f"command   {facts['command']}",
            f"server    {kind}; CPU time and memory {measured}",
            "",
            report.to_table(results),
            *notes,
        )
    )
