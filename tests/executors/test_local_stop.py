"""A run that is asked to stop: its ranks save and end with 75, and nobody hurries them."""

import os
import signal

from neva_recipes.run_directory.state import read_state

SAVES_WHEN_ASKED = """
    assert signal.sigwait({signal.SIGUSR2}) == signal.SIGUSR2
    if rank == 0:
        wait("other-has-ended")
        time.sleep(0.5)
        (run_dir / "saved").touch()
    else:
        (run_dir / "other-has-ended").touch()
    sys.exit(75)
"""


def test_every_rank_is_asked_and_waited_for(script, start):
    run = start(script(SAVES_WHEN_ASKED), world_size=2)
    # So early that the ranks' own programs are hardly loaded.
    os.kill(read_state(run.path).supervisor["pid"], signal.SIGUSR2)
    assert run.wait() == 75
    status = run.status()
    assert (status.state, status.exit_code, status.reason) == ("cancelled", 75, "stopped on request")
    assert (run.path / "saved").exists()


def test_a_rank_that_fails_while_another_stops_is_a_failure(script, start):
    run = start(script("sys.exit(75 if rank else 3)"), world_size=2)
    assert run.wait() == 3
    assert run.status().state == "failed"
