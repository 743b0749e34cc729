"""The training loop: accelerate, EMA, schedules, checkpoints that resume exactly, a JSON-lines log."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sdatc_cli.errors import ModelError, OutputError

from .batches import Batch
from .losses import Discriminator, discriminator_loss
from .recipe import Recipe

CHECKPOINT = "checkpoint.pt"
# What every checkpoint holds; other parts come with a discriminator or a scaler.
NEEDED = {"tag": str, "step": int, "seconds": (int, float), "net": dict, "ema": dict, "optimizer": dict}


class Stage(Protocol):
    """What a stage gives the loop. `net` holds what it trains (and perhaps frozen parts)."""

    @property
    def net(self) -> nn.Module: ...

    def loss(self, net: nn.Module, batch: Batch, fraction: float, judge: Discriminator | None) -> "StageLoss": ...


@dataclass
class StageLoss:
    """The loss, its terms for the log, and the (fake, real) images that the discriminator is to judge, if any."""

    total: Tensor
    terms: dict[str, float]
    judged: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Limits:
    """The run ends at `steps`, or after `minutes` of training, whichever is set and comes first."""

    steps: int | None = None
    minutes: float | None = None
    checkpoint_minutes: float = 3.0
    log_every: int = 20

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / (self.minutes * 60) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))


@dataclass
class Progress:
    """What the callback is told."""

    step: int
    fraction: float
    seconds: float
    terms: dict[str, float]


def learning_rate(recipe: Recipe, step: int, fraction: float) -> float:
    """Linear warm-up, then a cosine from lr to final_lr * lr over the run."""
    warm = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))
    return recipe.lr * warm * (recipe.final_lr + (1 - recipe.final_lr) * cosine)


def warming_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """EMA for AveragedModel whose decay grows with the n-th update as min(decay, (1 + n) / (10 + n)).

    A constant 0.999 still holds a seventh of the untrained weights after 2,000 steps: a short run would be thrown away.
    """

    def update(averaged: Any, current: Any, n: Any) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(n)) / (10 + int(n))))(averaged, current, n)

    return update


class Trainer:
    """One stage being trained in `run` (a folder)."""

    def __init__(self, stage: Stage, recipe: Recipe, limits: Limits, run: Path, seed: int, precision: str, tag: str):
        """`precision`: accelerate's "no" | "bf16" | "fp16". `tag` names the configuration a checkpoint belongs to."""
        self.stage, self.recipe, self.limits, self.run, self.seed, self.tag = stage, recipe, limits, run, seed, tag
        self.accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu())
        trainable = [p for p in stage.net.parameters() if p.requires_grad]
        self.ema = AveragedModel(stage.net, multi_avg_fn=warming_average(recipe.ema))
        self.ema.to(self.accelerator.device)
        judge = Discriminator() if recipe.weights.adversarial else None
        optimizer = torch.optim.AdamW(trainable, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        self.net, self.optimizer = self.accelerator.prepare(stage.net, optimizer)
        self.averaged = self.accelerator.prepare_model(cast(nn.Module, self.ema.module), evaluation_mode=True)
        self.judge = self.judge_optimizer = None
        if judge is not None:
            judge_optimizer = torch.optim.AdamW(judge.parameters(), lr=recipe.lr, betas=(0.5, 0.99))
            self.judge, self.judge_optimizer = self.accelerator.prepare(judge, judge_optimizer)
        self.step, self.seconds, self.stopped = 0, 0.0, False

    def stop(self) -> None:
        """End the run, with a checkpoint, after the step that is under way."""
        self.stopped = True

    def state(self) -> dict[str, Any]:
        unwrap = self.accelerator.unwrap_model
        return {
            "tag": self.tag,
            "step": self.step,
            "seconds": self.seconds,
            "net": unwrap(self.net).state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "judge": unwrap(self.judge).state_dict() if self.judge is not None else None,
            "judge_optimizer": self.judge_optimizer.state_dict() if self.judge_optimizer is not None else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
        }

    def save(self) -> None:
        """Write beside and rename: the last good checkpoint survives a full disk."""
        if not self.accelerator.is_main_process:
            return
        partial = self.run / f"{CHECKPOINT}.partial"
        try:
            with partial.open("wb") as file:
                torch.save(self.state(), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.run / CHECKPOINT)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"cannot write a checkpoint in {self.run} ({error}); the last good one is kept"
            ) from error

    def resume(self) -> bool:
        """Take up the run's checkpoint if there is one. ModelError when it is damaged or of another configuration."""
        path = self.run / CHECKPOINT
        if not path.exists():
            return False
        state = read_checkpoint(path)
        if state["tag"] != self.tag:
            raise ModelError(f"{path} belongs to another configuration ({state['tag']}, this run is {self.tag})")
        unwrap = self.accelerator.unwrap_model
        unwrap(self.net).load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.judge is not None and self.judge_optimizer is not None and state["judge"] is not None:
            unwrap(self.judge).load_state_dict(state["judge"])
            self.judge_optimizer.load_state_dict(state["judge_optimizer"])
        if self.accelerator.scaler is not None and state.get("scaler") is not None:  # earlier versions stored none
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def train(
        self,
        batches: Iterator[Batch],
        progress: Callable[[Progress], None],
        held_out: Sequence[Batch] = (),
        notice: Callable[[str], None] = print,
    ) -> None:
        """Run to the limits, or to the step in which `stop` is called. `progress` hears from the first process.

        The loss on `held_out` goes to the log and to `notice` at the start, with every checkpoint and at the end.
        ModelError on a NaN loss, with the last checkpoint kept.
        """
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        with (self.run / "log.jsonl").open("a") as log:

            def examine() -> None:
                if held_out and self.accelerator.is_main_process:
                    found = {name: round(value, 5) for name, value in self.loss_on(held_out).items()}
                    told = {"step": self.step, "seconds": round(self.seconds, 1), "held_out": found}
                    print(json.dumps(told), file=log, flush=True)
                    terms = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
                    notice(f"step {self.step}, held out: {terms}")

            examine()
            while (fraction := self._fraction()) < 1:
                terms = self.one_step(next(batches).to(self.accelerator.device), fraction)
                self.step += 1
                self.seconds = time.monotonic() - began
                if self.step % self.limits.log_every == 0 and self.accelerator.is_main_process:
                    line = {"step": self.step, "seconds": round(self.seconds, 1), **terms}
                    print(json.dumps({k: round(v, 5) for k, v in line.items()}), file=log, flush=True)
                    progress(Progress(self.step, fraction, self.seconds, terms))
                if time.monotonic() - saved > self.limits.checkpoint_minutes * 60:
                    self.save()
                    examine()
                    saved = time.monotonic()
            self.save()
            examine()

    @torch.no_grad()
    def loss_on(self, batches: Sequence[Batch]) -> dict[str, float]:
        """The mean loss, as "loss", and its terms on batches that are not trained on, by the averaged weights.

        The same noise and windows each time, so that only the weights make a difference. Without the discriminator.
        """
        sums: Counter[str] = Counter()
        for number, batch in enumerate(batches):
            torch.manual_seed(number)
            result = self.stage.loss(self.averaged, batch.to(self.accelerator.device), 1.0, None)
            sums.update({"loss": result.total.item(), **result.terms})
        return {name: value / len(batches) for name, value in sums.items()}

    def _fraction(self) -> float:
        """How much of the run is done; every process takes the first one's word, so that all end at the same step."""
        done = 1.0 if self.stopped else self.limits.fraction(self.step, self.seconds)
        fraction = torch.tensor(done, device=self.accelerator.device)
        return cast(Tensor, broadcast(fraction)).item()

    def _check_finite(self, loss: Tensor) -> None:
        """ModelError in every process when the loss of any of them is NaN or infinite."""
        losses = cast(Tensor, self.accelerator.gather(loss.detach().reshape(1)))
        if not torch.isfinite(losses).all():
            raise ModelError(f"the loss became {loss.item()} at step {self.step}; the last checkpoint is kept")

    def one_step(self, batch: Batch, fraction: float) -> dict[str, float]:
        """One update of the network and, once it has joined, of the discriminator."""
        torch.manual_seed(hash((self.seed, self.accelerator.process_index, self.step)) % 2**63)
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step, fraction)
        unwrap = self.accelerator.unwrap_model
        judge = self.judge if fraction >= self.recipe.adversarial_from else None
        if judge is not None:
            judge.requires_grad_(False)
        # The wrapped discriminator would wait for gradients that this pass does not give it.
        result = self.stage.loss(self.net, batch, fraction, unwrap(judge) if judge is not None else None)
        self._check_finite(result.total)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(result.total)
        self.accelerator.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.ema.update_parameters(unwrap(self.net))
        if judge is not None and result.judged is not None:
            assert self.judge_optimizer is not None
            judge.requires_grad_(True)
            loss = discriminator_loss(judge, *result.judged)
            self.judge_optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            self.judge_optimizer.step()
            result.terms["judge"] = loss.item()
        return result.terms


def on_cpu() -> bool:
    """Whether to train on the CPU: when `accelerate launch --cpu` says so, or when several processes have no GPU.

    accelerate joins processes without a GPU only when it is told so.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or ("LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; tensors and plain values only. ModelError when it cannot be read or lacks something."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"cannot read the checkpoint {path}, it is damaged: {reason}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} is not a checkpoint of a training run: it holds a {type(state).__name__}")
    for key, kind in NEEDED.items():
        if not isinstance(state.get(key), kind):
            raise ModelError(f"{path} is not a checkpoint of a training run: it has no {key}, or one of another kind")
    return state
