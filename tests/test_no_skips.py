"""The plugin that fails skipped parity tests, on a small project of its own."""

import pathlib

import pytest

pytest_plugins = ["pytester"]

SKIPPING = """
    import pytest

    def test_passes():
        pass

    def test_skips():
        pytest.skip("no such package")

    @pytest.mark.xfail(reason="not equal yet")
    def test_expected_to_fail():
        assert False
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Runs SKIPPING in the given folder with the plugin loaded; returns the outcome counts."""
    package = pytester.mkpydir("tests")
    (package / "no_skips.py").write_text(pathlib.Path(__file__).with_name("no_skips.py").read_text())

    def run_in(folder: str, source: str = SKIPPING) -> dict[str, int]:
        path = pytester.makepyfile(source)
        target = pytester.path / folder / "test_it.py"
        target.parent.mkdir(parents=True)
        path.rename(target)
        result = pytester.runpython_c("import pytest, sys; sys.exit(pytest.main(['-p', 'tests.no_skips', '-rf']))")
        counts = result.parseoutcomes()
        assert (result.ret != 0) == bool({"failed", "error", "errors"} & set(counts))
        return counts

    return run_in


def test_skipped_and_expected_failures_fail_in_a_parity_folder(run):
    assert run("tests/models") == {"passed": 1, "failed": 2}


def test_skips_are_allowed_elsewhere(run):
    assert run("tests/data") == {"passed": 1, "skipped": 1, "xfailed": 1}


def test_a_missing_package_in_a_parity_folder_is_an_error(run):
    assert "errors" in run("tests/weights", "import pytest\npytest.importorskip('no_such_package')")
