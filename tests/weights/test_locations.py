import pytest

from pea_jax.errors import PeaError
from pea_jax.weights.locations import PROJECT, locate, locate_base


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


def test_a_base_model_in_one_file_has_its_configs_elsewhere(tmp_path):
    path, folder = tmp_path / "tuned.safetensors", tmp_path / "base"
    path.touch()
    folder.mkdir()
    assert locate_base(folder) == locate_base(folder, "") == (folder, folder)
    assert locate_base(path, folder) == (path, folder)
    for arguments, message in (
        (
            (path,),
            "neither tokenizers nor scheduler; set base_model_config .*/stable-diffusion-xl-base-1.0",
        ),
        ((path, path), "base_model_config=.*tuned.safetensors: a file"),
        ((path, "no/such/folder"), "'no/such/folder': no such model folder"),
        ((folder, folder), "base: a folder, with configs of its own; leave base_model_config .* empty"),
    ):
        with pytest.raises(PeaError, match=message):
            locate_base(*arguments)
