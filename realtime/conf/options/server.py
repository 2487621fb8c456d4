"""Options of the process and its HTTP server: ports, log, node, shutdown, and pages for operators."""

from __future__ import annotations

from realtime.conf.options.base import Duration, Options, PortText, TLSOptions, UrlPrefix


class TLSAutocertOptions(Options, frozen=True, kw_only=True):
    """Certificates by ACME, which here is the reverse proxy's work."""

    enabled: bool = False
    host_whitelist: tuple[str, ...] = ()
    cache_dir: str = ""
    email: str = ""
    server_name: str = ""
    http: bool = False
    http_addr: str = ":80"


class HTTP3Options(Options, frozen=True, kw_only=True):
    """HTTP/3 beside HTTP/1.1, on UDP and the same port; only in ``manage.py serve``, with TLS and one worker."""

    enabled: bool = False


class HTTPServerOptions(Options, frozen=True, kw_only=True):
    """
    Where ``manage.py serve`` listens.

    Attributes:
        address: Empty means all interfaces.
        internal_port: A second listener for the API, health and metrics; empty means one for all.
        h2c_external: HTTP/2 without TLS on the external port.

    """

    address: str = ""
    port: int = 8000
    internal_address: str = ""
    internal_port: PortText = ""
    tls: TLSOptions = TLSOptions()
    tls_autocert: TLSAutocertOptions = TLSAutocertOptions()
    tls_external: bool = False
    internal_tls: TLSOptions = TLSOptions()
    http3: HTTP3Options = HTTP3Options()
    h2c_external: bool = False


class LogOptions(Options, frozen=True, kw_only=True):
    """
    Where the log goes and how much of it.

    Attributes:
        level: ``none``, ``trace``, ``debug``, ``info``, ``warn``, ``error`` or ``fatal``.
        file: Appended to; empty means the terminal.

    """

    level: str = "info"
    file: str = ""


class NodeOptions(Options, frozen=True, kw_only=True):
    """
    This process as the others see it.

    Attributes:
        name: Unique; empty means ``hostname_port``.
        info_metrics_aggregate_interval: How often ``info`` carries a fresh metrics snapshot.

    """

    name: str = ""
    info_metrics_aggregate_interval: Duration = 60.0


class ShutdownOptions(Options, frozen=True, kw_only=True):
    """How long a stopping server may take to send its clients away."""

    timeout: Duration = 30.0


class UsageStatsOptions(Options, frozen=True, kw_only=True):
    """Accepted from Centrifugo's files; nothing is ever sent anywhere."""

    disabled: bool = False


class AdminOptions(Options, frozen=True, kw_only=True):
    """Centrifugo's admin page; accepted from its files, since Django's admin has its place here."""

    enabled: bool = False
    handler_prefix: UrlPrefix = ""
    password: str = ""
    secret: str = ""
    insecure: bool = False
    web_path: str = ""
    web_proxy_address: str = ""
    external: bool = False


class PrometheusOptions(Options, frozen=True, kw_only=True):
    """Metrics for Prometheus."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/metrics"
    instrument_http_handlers: bool = False
    recovered_publications_histogram: bool = False
    native_histograms: bool = False


class HealthOptions(Options, frozen=True, kw_only=True):
    """The endpoint a load balancer asks."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/health"


class SwaggerOptions(Options, frozen=True, kw_only=True):
    """The server API's description for humans."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/swagger"


class DebugOptions(Options, frozen=True, kw_only=True):
    """Pages that look inside the process."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/debug/pprof"


class InitOptions(Options, frozen=True, kw_only=True):
    """An endpoint that clients may warm a connection with."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/init"


class GraphiteOptions(Options, frozen=True, kw_only=True):
    """Metrics for Graphite."""

    enabled: bool = False
    host: str = "localhost"
    port: int = 2003
    prefix: str = "centrifugo"
    interval: Duration = 10.0
    tags: bool = False


class OpenTelemetryOptions(Options, frozen=True, kw_only=True):
    """Traces."""

    enabled: bool = False
    api: bool = False
    consuming: bool = False
    google_cloud_adc_auth: bool = False
