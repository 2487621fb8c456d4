"""Debian's nginx as a process of a test's own, with the configuration that the README shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.live.harness import ROOT, free_port
from tests.unit.servers.certificates import self_signed


# A worker of nginx's own user could not reach a folder of root's.
_USER = "user root;" if os.geteuid() == 0 else ""

_AROUND = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


def readme_site() -> str:
    """Return the site that the README shows."""
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


class Nginx:
    """
    One nginx in front of one server.

    Args:
        folder: Gets its files.
        upstream: The server's port.
        prefix: The path under which the server is put, and which nginx cuts off; empty is none.

    """

    def __init__(self, folder: Path, upstream: int, prefix: str = "") -> None:
        self.port = free_port()
        self.certificate = folder / "site.pem"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        certificate, key = self_signed()
        self.certificate.write_text(certificate)
        (folder / "site.key").write_text(key)
        site = readme_site()
        replaced = {
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "/etc/ssl/rt.example.com.pem": str(self.certificate),
            "/etc/ssl/rt.example.com.key": str(folder / "site.key"),
        }
        if prefix:
            replaced |= {
                "location / {": f"location {prefix}/ {{",
                "proxy_pass http://tidewire;": "proxy_pass http://tidewire/;",
            }
        for shown, used in replaced.items():
            assert shown in site
            site = site.replace(shown, used)
        (folder / "nginx.conf").write_text(_AROUND.format(user=_USER, folder=folder, site=site))

    @property
    def url(self) -> str:
        """Where the site is."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def errors(self) -> str:
        """What nginx wrote about trouble."""
        return (self._folder / "error.log").read_text()

    def __enter__(self) -> Nginx:
        """Start, and wait until connections are taken."""
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        assert program, "nginx is missing: run tests/services.sh"
        command = [program, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        self._process = subprocess.Popen(
            [*command, "-e", str(self._folder / "error.log")], stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, self._process.communicate()
                assert time.monotonic() < deadline, self.errors
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        """End."""
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=30)
