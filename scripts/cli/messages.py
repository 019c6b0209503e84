"""Say how a command ends, alone or as one of several processes that train one model."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from common.devices import processes
from scripts.environments.definitions import say

# Set for the processes that `scripts.run.launch` starts: it reads the file in which they leave their message.
LAUNCHED = "FINE_TUNING_LAUNCHED"
# Set by torch's launcher for each of its processes.
MESSAGE_FILE = "TORCHELASTIC_ERROR_FILE"
# The launcher ends all processes when one has ended, so the others first give the first time to mark the record.
SECONDS_FOR_THE_FIRST = 5


def tell(text: str, interrupted: bool = False) -> None:
    """Say how a command ends: on stderr, or, in one of several processes, to the process that started it.

    A process that is not the first then waits SECONDS_FOR_THE_FIRST, unless interrupted.

    Args:
        text: The message.
        interrupted: Whether all processes were told to end.
    """
    file = os.environ.get(MESSAGE_FILE)
    # Without a launcher do not read the environment, whose variables may be the error that is told.
    leads = file is None or processes.world().leads
    if file:
        # In the format that torch's launcher reads.
        Path(file).write_text(json.dumps({"message": text, "timestamp": str(int(time.time()))}))
    # torchrun shows the messages of the others in its own report.
    if not file or (leads and LAUNCHED not in os.environ):
        say(text)
    if file and not leads and not interrupted:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(SECONDS_FOR_THE_FIRST)
