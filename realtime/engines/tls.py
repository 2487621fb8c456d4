"""TLS towards a backend, from PEM texts."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from realtime.protocol.errors import ConfigError


if TYPE_CHECKING:
    from realtime.conf.options import TLSOptions


def client_context(options: TLSOptions, where: str) -> ssl.SSLContext:
    """
    Make the context of connections to a backend.

    Without ``server_ca_pem`` the machine's authorities are trusted. The host name is not part of a context: who
    connects gives ``options.server_name``, or else the address.

    Args:
        options: ``enabled`` is not looked at.
        where: The option's path, for errors.

    Raises:
        ConfigError: A certificate or key can't be used; the text doesn't show any of it.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if bool(options.cert_pem) != bool(options.key_pem):
        raise ConfigError(f"{where}: cert_pem and key_pem belong together")
    try:
        if options.server_ca_pem:
            context.load_verify_locations(cadata=options.server_ca_pem)
        else:
            context.load_default_certs()
        if options.cert_pem:
            with pem_file(options.cert_pem) as certificate, pem_file(options.key_pem) as key:
                # An empty password: OpenSSL would ask at the terminal for that of an encrypted key.
                context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{where}: certificate or key can't be used: {error}") from error
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def pem_file(text: str) -> Iterator[str]:
    """Name a file with ``text`` for as long as it is needed: ``load_cert_chain`` takes nothing else."""
    descriptor, path = tempfile.mkstemp(prefix="tidewire-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)
