"""What processes of one training tell each other: real ones, connected as ``torchrun`` connects them."""

import os
import socket
import subprocess
import sys

ENDING = """
import torch
from tubelet.models.errors import CannotTrain
from tubelet.models.training.processes import (
    any_process, from_first, own_share, process_group, rank, size, sum_
)

with process_group():
    own = torch.tensor(own_share([1.0, 2.0, 4.0, 8.0], together=2))
    both = own.clone()
    sum_(both)
    shared = from_first(float(rank() + 5)), any_process(rank() == 1)
    print(rank(), size(), own.tolist(), both.tolist(), *shared)
    if rank() == 0:
        raise SystemExit
    try:
        from_first(0.0)
    except CannotTrain as error:
        print(error)
"""


def test_processes_share_what_they_compute_and_notice_when_one_ends() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ENDING], env=shared | {"RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    first, second = (process.communicate(timeout=100)[0].splitlines() for process in started)
    assert first == ["0 2 [1.0, 2.0] [5.0, 10.0] 5.0 True"]
    assert second == [
        "1 2 [4.0, 8.0] [5.0, 10.0] 5.0 True",
        "another process of this training has ended; it says why",
    ]
