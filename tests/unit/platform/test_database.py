from __future__ import annotations

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.database import dialect_of, mask


def test_every_password_is_masked() -> None:
    assert mask("postgresql://me:p@ss:w@db:5432/x") == "postgresql://me:***@db:5432/x"
    assert (
        mask("postgresql://db/x?user=me&password=a%20b&sslmode=on")
        == "postgresql://db/x?user=me&password=***&sslmode=on"
    )
    assert mask("sqlite:////home/a@b/sage.db") == "sqlite:////home/a@b/sage.db"


def test_a_url_names_its_database() -> None:
    assert dialect_of("sqlite:///a.db") == "sqlite"
    assert dialect_of("postgresql://db/sage") == dialect_of("postgres://db/sage") == "postgresql"
    with pytest.raises(StoreError, match="not a store URL"):
        dialect_of("postgresql+psycopg2://db/sage")
