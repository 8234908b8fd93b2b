"""A SLURM of two nodes on this machine, for as long as a test needs it; nothing else is touched.

It needs root and Debian's packages: apt-get install slurm-wlm munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
MAX_ARRAY_SIZE = 5  # so few that a sweep of eight runs takes two arrays

# no accounts: what sacct would know of a job is not to be needed
CONFIG = """
ClusterName=convscape
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MaxArraySize={most}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
InactiveLimit=0
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def what_is_missing():
    """Why it cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "to be root"
    programs = [name for name in PROGRAMS if shutil.which(name) is None]
    return ", ".join(programs) and f"apt-get install slurm-wlm munge: no {', '.join(programs)}"


@contextmanager
def running_slurm(folder):
    """Start it with all that it writes in `folder`; yields the environment for its commands."""
    folder.mkdir(mode=0o755)
    (folder / "state").mkdir()
    config = folder / "slurm.conf"
    words = {"host": socket.gethostname().partition(".")[0], "folder": folder}
    config.write_text(CONFIG.format(ports=_free_ports(3), most=MAX_ARRAY_SIZE, **words))
    environment = os.environ | {"SLURM_CONF": str(config)}
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    processes = []

    def start(*command):
        with (folder / f"{len(processes)}.out").open("wb") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )

    try:
        # its socket is in a folder of a test, which belongs to root
        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        _wait_for(lambda: (folder / "munge.socket").exists())
        start("slurmctld", "-D", "-c", "-f", str(config))
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node, "-f", str(config))
        words = ("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%T")
        _wait_for(lambda: _printed(environment, *words).split() == ["idle"] * 2)
        yield environment
        subprocess.run(("scancel", "--user=root", "--signal=KILL"), env=environment, check=False)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _printed(environment, *command):
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stdout


def _wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("SLURM did not start; its logs are in its folder")
        time.sleep(0.2)


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def folder_of(tmp_path_factory) -> Path:
    """A short path: that of a socket has at most 107 letters."""
    return tmp_path_factory.mktemp("slurm") / "c"
