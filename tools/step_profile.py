"""Where the time of a training step goes: ``--profile``."""
import torch

from utils import distributed
from utils.files import replacing

SKIPPED, WARMUP, STEPS = 2, 2, 10  # the first steps allocate and compile


class StepProfile:
    """Records ten training steps, from the fifth on, for ``--profile``; training goes on as usual.

    Written into the experiment's folder: ``profile.txt``, the operators that take longest, and ``profile.json``, a
    trace for https://ui.perfetto.dev.
    """

    def __init__(self, experiment):
        self.experiment, self.profiler = experiment, None
        if experiment.args.profile and distributed.is_main():
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] * (experiment.device.type == "cuda")
            self.profiler = torch.profiler.profile(
                activities=kinds, on_trace_ready=self.write,
                schedule=torch.profiler.schedule(skip_first=SKIPPED, wait=0, warmup=WARMUP, active=STEPS, repeat=1))

    def __enter__(self):
        if self.profiler:
            self.profiler.start()
        return self

    def __exit__(self, *error):
        if self.profiler:
            self.profiler.stop()

    def step(self):
        """Say that a training step is done."""
        if self.profiler:
            self.profiler.step()

    def write(self, profiler):
        """Write what was recorded."""
        folder = self.experiment.folder
        by = f"self_{self.experiment.device.type}_time_total"
        with replacing(folder / "profile.txt") as file:
            file.write(profiler.key_averages().table(sort_by=by, row_limit=30).encode())
        profiler.export_chrome_trace(str(folder / "profile.json"))
        self.experiment.log.info("Profile of %d steps: %s, and %s for https://ui.perfetto.dev", STEPS,
                                 folder / "profile.txt", folder / "profile.json")
