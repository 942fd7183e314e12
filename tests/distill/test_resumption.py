"""A run goes on where it was on another number of devices."""

import json
import subprocess
import sys

import numpy as np

from tests import commands


def test_one_device_then_two_then_four(tmp_path):
    """The same samples at every step, and the same losses to 1e-5."""
    arguments = [sys.executable, "-m", "tests.distill.more_devices", str(tmp_path)]
    result = subprocess.run(arguments, cwd=commands.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    alone, resumed = json.loads(result.stdout.splitlines()[-1])
    assert [step["devices"] for step in resumed] == [1] * 4 + [2] * 4 + [4] * 4
    assert [step["rows"] for step in resumed] == [step["rows"] for step in alone]
    losses = [[step["loss"] for step in steps] for steps in (resumed, alone)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert len(set(losses[1])) == len(losses[1])
    epochs = [sorted(row for step in alone[first : first + 5] for row in step["rows"]) for first in (0, 5)]
    assert epochs == [list(range(40))] * 2
