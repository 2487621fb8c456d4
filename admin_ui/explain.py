"""
Why may this client do that? The server's own answer, with its reasons.

The decisions, their order and their reasons come from ``realtime.session``, and tokens are verified by
``realtime.auth.tokens``. Here the steps are collected and a refusal is put down as the client sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec
from asgiref.sync import async_to_sync

from realtime.auth.tokens import (
    ConnectionToken,
    SubscriptionToken,
    TokenExpired,
    TokenInvalid,
    TokenVerifier,
)
from realtime.conf.durations import format_duration
from realtime.conf.options import ProcessOptions
from realtime.namespaces.options import STREAM_TYPE
from realtime.namespaces.table import Channel, NamespaceTable
from realtime.protocol import errors
from realtime.protocol.errors import ClientError, Disconnect
from realtime.session.grants import GrantedOptions, grant_options
from realtime.session.manner import Batching
from realtime.session.map_writes import authorize_map_write, map_key
from realtime.session.permissions import (
    authorize_history,
    authorize_presence,
    authorize_publish,
    authorize_subscribe,
    check_channel,
    check_subscribe,
)
from realtime.session.rules import Step


@dataclass(frozen=True, slots=True)
class Question:
    """
    What is to be explained; ``operation`` is ``subscribe``, ``publish``, ``remove``, ``history`` or ``presence``.

    A subscribe asks for what the channel is, and a publish to a map is one of a key.
    """

    operation: str
    channel: str
    user: str = ""
    connection_token: str = ""
    subscription_token: str = ""
    is_subscribed: bool = False
    data: bytes = b""


@dataclass(slots=True)
class Explanation:
    """
    An answer with its reasons.

    Attributes:
        steps: The rules in the order in which they were tried; the last one decides.
        refusal: As the client gets it, ``None`` where the operation is allowed.
        is_connected: Whether the connection token, if there is one, lets the client in at all.
        user: Who asks: from the question, or from the token.
        channel: What the name stands for, as far as it was looked up.
        granted: Of a subscribe that is allowed: how the subscription works if the client asks for nothing.

    """

    steps: list[Step] = field(default_factory=list)
    refusal: ClientError | Disconnect | None = None
    is_connected: bool = True
    user: str = ""
    channel: Channel | None = None
    granted: GrantedOptions | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether the client may."""
        return self.refusal is None

    @property
    def is_disconnect(self) -> bool:
        """Whether the refusal ends the connection."""
        return isinstance(self.refusal, Disconnect)

    @property
    def code(self) -> int:
        """The error or close code, 0 where the operation is allowed."""
        return self.refusal.code if self.refusal else 0

    @property
    def text(self) -> str:
        """The fixed text that goes with the code."""
        if isinstance(self.refusal, Disconnect):
            return self.refusal.reason
        return self.refusal.message if self.refusal else ""


def explain(
    question: Question, table: NamespaceTable, options: ProcessOptions, now: float
) -> Explanation:
    """
    Decide as the server would.

    Args:
        question: What is asked.
        table: The configuration.
        options: Of the process: keys of tokens, ``client.insecure``.
        now: Unix seconds.

    """
    return _Explainer(question, table, options, now).run()


class _Explainer:
    """One question on its way through the rules."""

    def __init__(
        self, question: Question, table: NamespaceTable, options: ProcessOptions, now: float
    ) -> None:
        self.question = question
        self.table = table
        self.options = options
        self.now = now
        self.answer = Explanation(user=question.user)
        self.is_subscribed = question.is_subscribed

    def run(self) -> Explanation:
        answer = self.answer
        answer.channel = self.table.resolve(self.question.channel)
        try:
            if self.question.connection_token:
                answer.is_connected = False
                self._connect()
                answer.is_connected = True
            if self.question.operation == "subscribe":
                self._subscribe()
            else:
                self._call()
        except (ClientError, Disconnect) as refusal:
            answer.refusal = refusal
        return answer

    def _connect(self) -> None:
        """Verify the connection token; the answers are those to a connect command."""
        options = self.options.client
        verifier = TokenVerifier(
            options.token, skip_signature=options.insecure_skip_token_signature_verify
        )
        try:
            token: ConnectionToken = async_to_sync(verifier.verify_connection)(
                self.question.connection_token, self.now
            )
        except TokenExpired as error:
            self._refuse("connection_token", errors.TokenExpiredError(), str(error))
        except TokenInvalid as error:
            self._refuse("connection_token", Disconnect(*errors.INVALID_TOKEN), str(error))
        else:
            self._take(token)

    def _take(self, token: ConnectionToken) -> None:
        unknown = [name for name in token.subs if name and self.table.resolve(name) is None]
        if unknown:
            text = f"the token subscribes to {unknown[0]!r}, whose namespace does not exist"
            self._refuse("connection_token", errors.UnknownChannelError(), text)
        if not token.user and self.options.client.disallow_anonymous_connection_tokens:
            text = "client.disallow_anonymous_connection_tokens is on, and the token has no user"
            self._refuse("connection_token", Disconnect(*errors.PERMISSION_DENIED), text)
        self.answer.user = token.user
        who = f"the user is {token.user!r}" if token.user else "the connection is anonymous"
        self._pass("connection_token", f"valid: {who}")
        if self.question.channel in token.subs:
            self.is_subscribed = True
            self._pass("connection_token", "it subscribes the connection to this channel")

    def _subscribe(self) -> None:
        has_token = bool(self.question.subscription_token)
        known = self.answer.channel
        requested = STREAM_TYPE
        if known is not None:
            requested = max(known.options.type_number, STREAM_TYPE)
        channel = check_subscribe(
            self.table,
            self.question.channel,
            requested_type=requested,
            has_token=has_token,
            is_subscribed=self.is_subscribed,
            trace=self.answer.steps,
        )
        user, is_insecure = self.answer.user, self.options.client.insecure
        override = None
        if has_token:
            override = self._verify_subscription().override
        else:
            authorize_subscribe(
                channel, user=user, is_insecure=is_insecure, trace=self.answer.steps
            )
        self.answer.granted = grant_options(
            channel, user=user, is_insecure=is_insecure, override=override
        )

    def _verify_subscription(self) -> SubscriptionToken:
        """Verify the subscription token; the answers are those to a subscribe command."""
        client = self.options.client
        keys = client.subscription_token if client.subscription_token.enabled else client.token
        verifier = TokenVerifier(keys, skip_signature=client.insecure_skip_token_signature_verify)
        rule = "subscription_token"
        try:
            token: SubscriptionToken = async_to_sync(verifier.verify_subscription)(
                self.question.subscription_token, self.now
            )
        except TokenExpired as error:
            self._refuse(rule, errors.TokenExpiredError(), str(error))
        except TokenInvalid as error:
            self._refuse(rule, errors.PermissionDeniedError(), str(error))
        if self.table.resolve(token.channel) is None:
            text = f"the token is for {token.channel!r}, whose namespace does not exist"
            self._refuse(rule, errors.UnknownChannelError(), text)
        if token.channel != self.question.channel:
            text = f"the token is for the channel {token.channel!r}"
            self._refuse(rule, Disconnect(*errors.INVALID_TOKEN), text)
        if token.user != self.answer.user:
            text = f"the token is for the user {token.user!r}"
            self._refuse(rule, Disconnect(*errors.INVALID_TOKEN), text)
        if 0 < token.expire_at <= self.now:
            self._refuse(rule, errors.ExpiredError(), "the subscription's time is over")
        text = "valid, for this channel and user"
        if token.client:
            text += f"; only the connection {token.client} may use it"
        self.answer.steps.append(Step(rule, "grant", text))
        return token

    def _call(self) -> None:
        """Decide on a publish, remove, history or presence call."""
        question, steps = self.question, self.answer.steps
        channel = check_channel(self.table, question.channel, steps)
        user, is_insecure = self.answer.user, self.options.client.insecure
        is_removal = question.operation == "remove"
        if is_removal or (question.operation == "publish" and channel.options.is_map):
            self._write_map(channel, is_removal=is_removal)
            return
        if question.operation == "publish":
            authorize_publish(
                channel,
                data=question.data,
                user=user,
                is_subscribed=self.is_subscribed,
                is_insecure=is_insecure,
                trace=steps,
            )
            return
        authorize = authorize_history if question.operation == "history" else authorize_presence
        authorize(
            channel,
            user=user,
            is_subscribed=self.is_subscribed,
            is_insecure=is_insecure,
            trace=steps,
        )

    def _write_map(self, channel: Channel, *, is_removal: bool) -> None:
        steps = self.answer.steps
        authorize_map_write(
            channel,
            data=self.question.data,
            user=self.answer.user,
            is_removal=is_removal,
            is_subscribed=self.is_subscribed,
            is_insecure=self.options.client.insecure,
            trace=steps,
        )
        # Which key it is changes nothing, as long as there is one.
        map_key(channel, asked="key", client_id="client", user=self.answer.user, trace=steps)

    def _pass(self, rule: str, text: str) -> None:
        self.answer.steps.append(Step(rule, "pass", text))

    def _refuse(self, rule: str, refusal: ClientError | Disconnect, text: str) -> NoReturn:
        self.answer.steps.append(Step(rule, "refuse", text))
        raise refusal


def features(granted: GrantedOptions) -> Sequence[str]:
    """Name what a subscription has, for people."""
    names = {
        "positioned": "positioned",
        "recoverable": "recoverable",
        "is_cache": "cache recovery",
        "presence": "counted in presence",
        "emit_join_leave": "announced by join and leave",
        "push_join_leave": "receives joins and leaves",
    }
    values = msgspec.structs.asdict(granted)
    found = [text for name, text in names.items() if values[name]]
    presence = granted.map_presence
    if presence is not None:
        if presence.clients_prefix or presence.users_prefix:
            found.append("put down in maps of who is there")
        if presence.removes_own_key:
            found.append("takes its own key with it")
    if granted.manner is not None and granted.manner.batching is not None:
        found.append(_gathered(granted.manner.batching))
    if granted.publish_debounce:
        interval = format_duration(granted.publish_debounce / 1000)
        found.append(f"asked to publish at most every {interval}")
    return found


def _gathered(batching: Batching) -> str:
    """Say when messages leave that are gathered."""
    limits = []
    if batching.max_size:
        limits.append(f"{batching.max_size} at a time")
    if batching.max_delay:
        limits.append(f"{format_duration(batching.max_delay)} after the first")
    what = "the latest publication" if batching.latest_only else "messages"
    return f"receives {what} {' or '.join(limits)}"
