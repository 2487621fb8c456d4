"""TLS of the server's own listeners, from PEM texts."""

from __future__ import annotations

import ssl

from realtime.conf.options import TLSOptions
from realtime.engines.tls import pem_file
from realtime.protocol.errors import ConfigError


def server_context(options: TLSOptions, where: str = "http_server.tls") -> ssl.SSLContext:
    """
    Make the context of a listener.

    With ``client_ca_pem`` clients must show a certificate of that authority.

    Args:
        options: ``enabled`` is not looked at.
        where: The option's path, for errors.

    Raises:
        ConfigError: A certificate or key is missing or wrong; the text doesn't show any of it.

    """
    if not options.cert_pem or not options.key_pem:
        raise ConfigError(f"{where} needs cert_pem and key_pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with pem_file(options.cert_pem) as certificate, pem_file(options.key_pem) as key:
            # An empty password: OpenSSL would ask at the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, key, password="")
        if options.client_ca_pem:
            context.load_verify_locations(cadata=options.client_ca_pem)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{where}: certificate or key can't be used: {error}") from error
    return context
