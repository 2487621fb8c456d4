"""The pages on which operators edit the configuration, each of them in a module of its own; importing one registers it."""

from __future__ import annotations

from admin_ui import api_key_admin, change_admin, namespace_admin, proxy_admin


__all__ = ["api_key_admin", "change_admin", "namespace_admin", "proxy_admin"]
