"""What the tests of health share."""

from __future__ import annotations

import pytest

from tests.federation.health.servers import Certificate, make_certificate


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that only its own file vouches for."""
    return make_certificate(tmp_path_factory.mktemp("tls"))
