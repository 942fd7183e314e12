"""What the three trainings share: a resumable state file, a log, a learning-rate schedule."""

import json
import math
import os
import pathlib
import time

import torch


class Run:
    """Optimizer, schedule, log and checkpoint of one stage; `steps` yields the step numbers that are left."""

    def __init__(
        self,
        folder: pathlib.Path,
        modules: dict[str, torch.nn.Module],
        *,
        lr: float,
        steps: int,
        seed: int,
        save_every: int = 250,
        weight_decay: float = 0.01,
        warmup: int = 200,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log = folder / "state.pt", folder / "log.jsonl"
        self.modules, self.total, self.save_every = modules, steps, save_every
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))) + 0.01),
        )
        self.parameters, self.first, self.started = parameters, 0, time.time()
        torch.manual_seed(seed)
        if self.path.exists():
            self._restore()

    def _restore(self) -> None:
        saved = torch.load(self.path, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["rng"])
        self.first = saved["step"]

    def save(self, step: int) -> None:
        saved = dict(
            modules={name: module.state_dict() for name, module in self.modules.items()},
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            rng=torch.get_rng_state(),
            step=step,
        )
        torch.save(saved, self.path.with_suffix(".tmp"))
        os.replace(self.path.with_suffix(".tmp"), self.path)

    def steps(self):
        for step in range(self.first, self.total):
            yield step
            if (step + 1) % self.save_every == 0 or step + 1 == self.total:
                self.save(step + 1)

    def update(self, step: int, loss: torch.Tensor, **terms: torch.Tensor) -> None:
        """One optimizer step; every 50th is written to the log."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        if (step + 1) % 50 == 0:
            entry = dict(
                step=step + 1,
                seconds=round(time.time() - self.started, 1),
                loss=loss.item(),
                **{name: float(value) for name, value in terms.items()},
            )
            with self.log.open("a") as file:
                print(json.dumps(entry), file=file)
