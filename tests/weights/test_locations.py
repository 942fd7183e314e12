import pytest

from pea_jax.errors import PeaError
from pea_jax.weights.locations import PROJECT, locate


def test_a_folder_of_the_user_comes_before_the_projects_own(tmp_path, monkeypatch):
    assert locate(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert locate("assets/emoji") == PROJECT / "assets" / "emoji"
    (tmp_path / "assets" / "emoji").mkdir(parents=True)
    assert locate("assets/emoji").resolve() == tmp_path / "assets" / "emoji"


def test_a_file_is_a_model_too(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    assert locate(path) == path


@pytest.mark.parametrize("name", ["", "no/such/folder", "./nothing", "../nothing", "nothing"])
def test_what_is_nowhere_is_named(name):
    with pytest.raises(PeaError, match="no such model folder"):
        locate(name)
