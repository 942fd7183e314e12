import os
import pathlib
import pwd

import pytest

from pea_jax.data import kept_files


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch):
    """As in a container whose user is a number alone."""

    def unknown(_: int):
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_nothing_is_kept_for_others(homeless):
    folder = kept_files.default_folder()
    assert folder == kept_files.default_folder()
    assert pathlib.Path(folder).stat().st_mode & 0o077 == 0
    assert kept_files.write(kept_files.places("gs://bucket/a.tar", ".index"), b"found") is not None


def test_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_files.default_folder() == os.path.join(tmp_path, "pea_jax")
