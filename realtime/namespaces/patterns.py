r"""
Compile ``channel_regex`` in Go's dialect, in linear time.

The subject is a channel name, chosen by an attacker, so a backtracking engine would be a way to stop the server. RE2 is
the engine whose dialect Go's ``regexp`` has: no look-around, no back-references, ``\d`` and ``\w`` are ASCII, ``$``
without ``(?m)`` is the very end of the text, and ``\z`` says the same.
"""

from __future__ import annotations

import re

import re2  # type: ignore[import-untyped]  # it ships none


class PatternError(ValueError):
    """The text is no regular expression of the dialect; the message says where it goes wrong."""


# One byte in RE2, unknown to Go. An even number of backslashes before it is that many literal backslashes.
_ANY_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
_LITERAL = re.compile(r"(?<!\\)((?:\\\\)*)\\Q.*?(?:\\E|\Z)", re.DOTALL)


class ChannelPattern:
    """A compiled expression."""

    __slots__ = ("_expression", "text")

    def __init__(self, text: str) -> None:
        """
        Compile ``text``.

        Raises:
            PatternError: It does not compile.

        """
        options = re2.Options()
        options.log_errors = False  # else RE2 writes to the process's stderr
        options.never_capture = True
        try:
            pattern = text.encode()
        except UnicodeEncodeError as error:
            raise PatternError("not valid unicode text") from error
        if _ANY_BYTE.search(_LITERAL.sub(r"\1", text)):
            raise PatternError(r"invalid escape sequence: \C")
        try:
            self._expression = re2.compile(pattern, options)
        except re2.error as error:
            raise PatternError(_reason(error)) from error
        self.text = text

    def is_found_in(self, subject: str) -> bool:
        """Search ``subject``, which may be any text; what has no UTF-8 form is never found."""
        try:
            encoded = subject.encode()
        except UnicodeEncodeError:
            return False
        return self._expression.search(encoded) is not None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else "does not compile"
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
