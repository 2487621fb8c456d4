from __future__ import annotations

import pytest


# What it asserts is what a failure has to show.
pytest.register_assert_rewrite("tests.live.followers")
