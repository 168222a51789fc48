"""Whether the process that wrote a run is gone: said only where it is known."""

import subprocess
import sys

import pytest

from secateur import Ledger
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.liveness import gone, this_process

HERE = this_process()
SLEEPING = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.mark.parametrize("shared", [False, True])
def test_of_an_older_version_or_another_container_nothing_is_known(shared: bool):
    assert not gone(None, "x", shared=shared)
    assert not gone(HERE | {"space": "pid:[1]"}, "x", shared=shared)


def test_another_machine_matters_only_where_machines_share_a_ledger():
    elsewhere = HERE | {"machine": "another one, or this one before it was started again"}
    assert not gone(elsewhere, "x", shared=True)
    assert gone(elsewhere, "x", shared=False)


def test_a_process_is_gone_when_it_ended_whoever_has_its_number_now():
    with subprocess.Popen(SLEEPING, stdin=subprocess.PIPE) as other:
        asked = [sys.executable, "-c", _ASKS.format(pid=other.pid)]
        began = int(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
        process = HERE | {"pid": other.pid, "began": began}
        assert not gone(process, "x", shared=True)
        assert gone(process | {"began": began - 1}, "x", shared=True)
        other.kill()
        other.wait()
    assert gone(process, "x", shared=True)


_ASKS = "print(open('/proc/{pid}/stat').read().rpartition(')')[2].split()[19])"


async def test_of_its_own_runs_a_process_knows_which_go_on(ledger_url: str, make):
    start = make.start()
    assert gone(HERE, start.run, shared=True), "it never began here"
    async with Ledger.open(ledger_url) as ledger:
        log = await ledger.start(start)
        assert not gone(HERE, start.run, shared=True)
        await log.finish(RunStatus.DONE)
        assert gone(HERE, start.run, shared=True)
