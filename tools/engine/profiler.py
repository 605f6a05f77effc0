"""Where the time of a training step goes: ``--profile``."""
import torch

from utils import distributed
from utils.files import replacing, saying_what

SKIPPED, WARMUP, STEPS = 2, 2, 10  # the first steps allocate and compile
LAST_STEP = SKIPPED + WARMUP + STEPS


class StepProfile:
    """Records ten training steps, from the fifth on, for ``--profile``; training goes on as usual.

    Written into the experiment's folder: ``profile.txt``, the operators that take longest, and ``profile.json``, a
    trace for https://ui.perfetto.dev.
    """

    def __init__(self, run):
        self.run, self.profiler, self.written = run, None, False
        self.steps = 0
        if run.args.profile and distributed.is_main():
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] * (run.device.type == "cuda")
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
            if not self.written:
                self.run.log.warning("--profile: the run was too short for one")

    def step(self):
        """Say that a training step is done."""
        if self.profiler:
            self.steps += 1
            self.profiler.step()

    def write(self, profiler):
        """Write what was recorded."""
        folder = self.run.folder
        by = f"self_{self.run.device.type}_time_total"
        self.written = True
        with saying_what(folder / "profile.txt"), replacing(folder / "profile.txt") as file:
            file.write(profiler.key_averages().table(sort_by=by, row_limit=30).encode())
        profiler.export_chrome_trace(str(folder / "profile.json"))
        self.run.log.info("Profile of %s steps: %s, and %s for https://ui.perfetto.dev",
                          "the last" if self.steps < LAST_STEP else STEPS, folder / "profile.txt",
                          folder / "profile.json")
