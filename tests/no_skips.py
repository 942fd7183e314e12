"""pytest plugin: a skipped or expected-to-fail test in a parity folder is a failure.

Loaded by `make test` with `-p tests.no_skips`. Parity with PyTorch is what the project rests on, so a missing
package or an unsuitable machine must not quietly take such a test out of the run.
"""

import pytest

PARITY_FOLDERS = ("tests/models/", "tests/sampling/", "tests/text/", "tests/weights/")


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and report.nodeid.startswith(PARITY_FOLDERS):
        report.longrepr = f"a parity test may not be skipped ({_reason(report)})"
        report.outcome = "failed"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        reason = f"expected failure: {report.wasxfail}"
        del report.wasxfail
        return reason
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    report = yield
    _forbid_skip(report)
    return report
