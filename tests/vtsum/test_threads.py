"""How threads share the cores: what is asked of PyTorch while another thread imports it."""

import os
import subprocess
import sys

TORCH_THAT_LOADS_SLOWLY = """
import time
open("begun", "w").close()
time.sleep(1)
counts = []
def get_num_threads():
    return 4
def set_num_threads(count):
    counts.append(count)
"""
ASKED_MIDWAY = """
import os, threading, time
from vtsum.threads import torch_threads
importing = threading.Thread(target=__import__, args=("torch",))
importing.start()
while not os.path.exists("begun"):
    time.sleep(.01)
with torch_threads(spare=1):
    pass
importing.join()
import torch
print(torch.counts)
"""


def test_a_pytorch_that_another_thread_is_importing_is_waited_for(tmp_path):
    """A recogniser or a reader of the screen imports PyTorch in its own thread while the pictures are watched."""
    (tmp_path / "torch.py").write_text(TORCH_THAT_LOADS_SLOWLY)
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", ASKED_MIDWAY],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[3, 4]"
