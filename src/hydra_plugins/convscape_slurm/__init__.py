"""Hydra's launcher for SLURM, made for sweeps: jobs share the runs, and a job may be lost.

Every program that uses Hydra imports this, so nothing else is imported before it launches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

try:
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as _Launcher
except ImportError:  # an extra: hydra/launcher=slurm says how to install it
    BaseQueueConf = SlurmQueueConf = _Launcher = object

_OURS = ("runs_per_job", "minutes_per_job", "cancel")


if _Launcher is not object:
    # plain keys instead of a config class: a job imports this module twice, and then the class of
    # the config that it got is not the one found under that name
    keys: Any = OmegaConf.to_container(OmegaConf.structured(SlurmQueueConf))
    keys |= {"_target_": f"{__name__}.SlurmLauncher", **dict.fromkeys(_OURS)}
    ConfigStore.instance().store(group="hydra/launcher", name="convscape_slurm", node=keys)


class SlurmLauncher(_Launcher):
    """Submits arrays of jobs that take runs until none is left, and waits until all have ended."""

    def __call__(
        self, folder: str, limit: Any, first: int, state: dict[type, Singleton]
    ) -> list[str]:
        """Take runs in a job; returns what went wrong, in words."""
        import submitit

        from convscape.base.errors import code_of_stop
        from convscape.sweeps.launching import errors_of
        from convscape.sweeps.shared_runs import SharedRuns
        from convscape.sweeps.slurm import requeue_if_preempted

        environment = submitit.JobEnvironment()
        rank = environment.global_rank  # each of several tasks takes runs
        job = environment.job_id + (f".{rank}" if rank else "")
        problems: list[str] = []
        for number, overrides in SharedRuns(Path(folder)).take(job, limit):
            words = ("hydra.sweep.dir", first + number, f"run_{first + number}", state)
            try:
                problems += errors_of([super().__call__(overrides, *words)])
            except KeyboardInterrupt as stop:
                if code_of_stop(stop) == 143:  # SIGTERM, not SIGINT as with cancel=true
                    requeue_if_preempted(environment.job_id)
                raise
        return problems

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit what no running job has taken; wait for all, including those that get lost.

        Raises:
            ConfigError: if jobs cannot be submitted from here.
        """
        from convscape.base.files import make_folder
        from convscape.sweeps.jobs import Jobs
        from convscape.sweeps.shared_runs import Limit
        from convscape.sweeps.slurm import check_is_here

        limit = Limit(self.params["runs_per_job"], self.params["minutes_per_job"])
        check_is_here()
        place = Path(self.params["submitit_folder"]).parent
        make_folder(place, within=place)

        def submit(shared: Path, size: int, after: str | None) -> Sequence[Any]:
            job = _Job(shared)
            job.write(self, str(shared), limit, initial_job_idx, Singleton.get_state())
            return self._executor(after).submit_array([job] * size)

        jobs = Jobs(place, job_overrides)
        ends_them = self.params["cancel"]
        jobs.submit(submit, limit.runs, self.params["array_parallelism"], ends_them)
        jobs.wait(ends_them)
        return [_answer(problem) for problem in jobs.problems()]

    def _executor(self, after: str | None) -> Any:
        """The executor of submitit, with the config's parameters for sbatch.

        - `after`: the array that must end before this one begins.
        """
        import submitit

        executor = submitit.AutoExecutor(
            self.params["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=self.params["max_num_timeout"],
        )
        of_sbatch = self.params.keys() - {*_OURS, "submitit_folder", "max_num_timeout"}
        generic = set(BaseQueueConf.__dataclass_fields__)
        parameters = {
            name if name in generic else f"slurm_{name}": self.params[name] for name in of_sbatch
        }
        if after is not None:
            parameters["slurm_dependency"] = f"afterany:{after}"
        executor.update_parameters(**parameters)
        return executor


class _Job:
    """What every job of an array calls: the launcher, from the file in the folder `shared`.

    submitit writes a file for each job, though most jobs of a large array never start, and to
    pickle Hydra's state takes 10 ms.
    """

    def __init__(self, shared: Path) -> None:
        self._file = shared / "launcher.pkl"

    def write(self, launcher: SlurmLauncher, *arguments: Any) -> None:
        """Write the file, before the jobs are submitted."""
        from submitit.helpers import DelayedSubmission

        DelayedSubmission(launcher, *arguments).dump(self._file)

    def __call__(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission.load(self._file).result()

    def checkpoint(self) -> Any:
        """The same job, which submitit puts back into the queue when its time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _answer(problem: str) -> JobReturn:
    from convscape.base.errors import ConfigError

    return JobReturn(_return_value=ConfigError(problem), status=JobStatus.FAILED)
