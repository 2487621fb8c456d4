"""
One rule after another: what decisions consist of, and how they explain themselves.

A refusal is an exception, as the client gets it. Each function that decides takes a ``trace``: given a list, it appends a
``Step`` per rule in the order in which rules are tried, up to the one that decides. That is all there is to the admin's
explanation of a decision: it is made by the code that decides.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, NoReturn

from realtime.namespaces.options import ChannelOptions
from realtime.protocol.errors import ClientError, Disconnect, PermissionDeniedError


Outcome = Literal["pass", "grant", "refuse"]
INSECURE_RULE = "client.insecure"
PROXIES_COME_LATER = "that proxy can't be asked: proxies come with a later version"


class Step(NamedTuple):
    """
    One rule, tried.

    ``pass``: the rule lets the request go on to the next one, ``grant``: it is allowed by this rule, ``refuse``: it is
    refused by this rule. ``rule`` is a stable short name, ``text`` a sentence for an operator.
    """

    rule: str
    outcome: Outcome
    text: str


Trace = list[Step] | None


def refuse(trace: Trace, rule: str, error: ClientError | Disconnect, text: str) -> NoReturn:
    """Refuse by a rule; ``text`` says why."""
    if trace is not None:
        trace.append(Step(rule, "refuse", text))
    raise error


class Access(NamedTuple):
    """The three flags that govern an operation, and the names of the two that grant."""

    client_rule: str
    subscriber_rule: str
    for_client: bool
    for_subscriber: bool
    for_anonymous: bool


def history_access(options: ChannelOptions) -> Access:
    """Return who may read history."""
    return Access(
        "allow_history_for_client",
        "allow_history_for_subscriber",
        options.allow_history_for_client,
        options.allow_history_for_subscriber,
        options.allow_history_for_anonymous,
    )


def presence_access(options: ChannelOptions) -> Access:
    """Return who may read presence."""
    return Access(
        "allow_presence_for_client",
        "allow_presence_for_subscriber",
        options.allow_presence_for_client,
        options.allow_presence_for_subscriber,
        options.allow_presence_for_anonymous,
    )


def authorize(
    access: Access, trace: Trace, *, user: str, is_subscribed: bool, is_insecure: bool
) -> None:
    """Refuse who has no access."""
    if not has_access(
        access, trace, is_anonymous=not user, is_subscribed=is_subscribed, is_insecure=is_insecure
    ):
        refuse(trace, "denied", PermissionDeniedError(), "no rule grants it")


def has_access(
    access: Access, trace: Trace, *, is_anonymous: bool, is_subscribed: bool, is_insecure: bool
) -> bool:
    """Try the rules that may grant, each by what stands in its way."""
    anonymous = (
        "" if not is_anonymous or access.for_anonymous else "on, but not for anonymous clients"
    )
    not_subscribed = "" if is_subscribed else "on, but the client is not subscribed"
    return (
        does_grant(trace, access.client_rule, anonymous if access.for_client else "off")
        or does_grant(
            trace,
            access.subscriber_rule,
            not_subscribed or anonymous if access.for_subscriber else "off",
        )
        or does_grant(trace, INSECURE_RULE, "" if is_insecure else "off")
    )


def does_grant(trace: Trace, rule: str, obstacle: str) -> bool:
    """Try one rule that may grant; ``obstacle`` says why it doesn't."""
    if trace is not None:
        trace.append(Step(rule, "pass", obstacle) if obstacle else Step(rule, "grant", "on"))
    return not obstacle
