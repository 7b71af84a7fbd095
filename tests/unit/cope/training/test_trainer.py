"""The loop: exact resume, refusals, clear ends, and what it writes."""

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from cope.config import ModelConfig, TrainConfig
from cope.errors import UserError
from cope.runtime.device import choose
from cope.runtime.files import write_whole
from cope.runtime.interruptions import Stopped
from cope.training.averaging import Average
from cope.training.checkpoint import Checkpoints, identity
from cope.training.log import TrainingLog
from cope.training.trainer import Group, Stage, Trainer, schedule
from tests.unit.cope.training.trainer_run import CONFIG, Line, batches, stage

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def run(out: Path, config: TrainConfig = CONFIG, data: str = "data", **changes: Any) -> tuple[Line, dict[str, float]]:
    module = Line()
    return module, Trainer(config, out, CPU, data).run(stage(module, config, **changes))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple[int, dict[str, float]]]:
    return [(line["step"], line["losses"]) for line in lines(out) if "losses" in line]


def process(out: Path, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    script = str(Path(__file__).with_name("trainer_run.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, script, str(out), *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_run_killed_at_any_step_resumes_with_the_same_losses_bit_for_bit(tmp_path: Path) -> None:
    whole, figures = run(tmp_path / "whole")
    killed = process(tmp_path / "killed", "8", "SIGKILL")
    assert killed.returncode == -signal.SIGKILL
    assert [step for step, _ in losses(tmp_path / "killed")] == list(range(1, 9))

    resumed, resumed_figures = run(tmp_path / "killed")

    assert [step for step, _ in losses(tmp_path / "killed")] == list(range(1, 13))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert resumed_figures == figures


def test_ctrl_c_writes_a_checkpoint_ends_with_130_and_the_run_goes_on(tmp_path: Path) -> None:
    stopped = process(tmp_path / "stopped", "6", "SIGINT")
    assert stopped.returncode == 130
    assert "stopped after step 7 of line; start the same command to go on" in stopped.stderr

    run(tmp_path / "stopped")
    run(tmp_path / "whole")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_loaders_that_end_with_the_run_are_no_lack_of_memory(tmp_path: Path) -> None:
    def ends(number: int) -> None:
        if number == 6:
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    with pytest.raises(Stopped, match=r"stopped in step 7 of line; the checkpoint of step 5 is kept") as stopped:
        run(tmp_path, batches=batches(8, ends))
    assert stopped.value.signum == signal.SIGTERM


def test_two_processes_train_as_one_and_resume(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = process(tmp_path, launcher=torchrun)
    assert done.returncode == 0, done.stderr
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 13))
    with pytest.raises(UserError, match=r"processes=2 \(now 1\)"):
        run(tmp_path)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first, figures = run(tmp_path)

    def never(start: int) -> Any:
        raise AssertionError("asked for data")

    again, same = run(tmp_path, batches=never)
    assert torch.equal(again.layer.weight, first.layer.weight)
    assert same == figures


def test_a_checkpoint_of_another_configuration_is_refused_and_the_fields_are_named(tmp_path: Path) -> None:
    run(tmp_path)
    other = replace(CONFIG, batch_products=4, model=ModelConfig(dim=128))
    with pytest.raises(UserError) as refused:
        run(tmp_path, other, data="other data")
    message = str(refused.value)
    for part in ("batch_products=8 (now 4)", "model.dim=256 (now 128)", "data=data (now other data)", "--out"):
        assert part in message
    assert "\n" not in message


def test_fields_that_change_no_weight_may_differ(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, replace(CONFIG, workers=7, save_every=3, evaluate_every=1, gradient_checkpointing=True))


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    class Breaks(Line):
        def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            out = super().forward(batch)
            self.calls = getattr(self, "calls", 0) + 1
            return out if self.calls < 8 else {**out, "straight": out["straight"] * math.nan}

    with pytest.raises(
        UserError, match=r"the loss 'straight' is nan in step 8 of line; the checkpoint of step 5 is"
    ) as e:
        Trainer(CONFIG, tmp_path, CPU).run(stage(Breaks()))
    assert "learning_rate" in str(e.value)
    kept = torch.load(tmp_path / "checkpoints" / "line.last.pt", weights_only=True)
    assert kept["step"] == 5
    assert all(bool(value.isfinite().all()) for value in kept["module"].values())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "gradient_checkpointing"),
        (RuntimeError("CUDA error: out of memory"), "gradient_checkpointing"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "batch_products"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "workers"),
    ],
)
def test_out_of_memory_is_told_with_the_mend(tmp_path: Path, error: RuntimeError, told: str) -> None:
    def fails(number: int) -> None:
        if number == 6:
            raise error

    with pytest.raises(UserError, match=rf"step 7 of line; the checkpoint of step 5 is kept.*{told}"):
        run(tmp_path, batches=batches(8, fails))


@pytest.mark.parametrize(
    "moved", ["torch.nn.Module.to", "cope.training.averaging.Average.load", "cope.training.checkpoint.torch.load"]
)
def test_weights_and_checkpoints_that_do_not_fit_are_told_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    run(tmp_path)
    trainer = Trainer(CONFIG, tmp_path, CPU, "data")

    def fails(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(moved, fails)
    with pytest.raises(UserError, match=r"out of memory on cpu: it cannot hold .* of line; end what else runs there"):
        trainer.run(stage(Line()))


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(number: int) -> None:
        if number == 6:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(UserError, match=r"cannot write .*no space left on device.*free some space"):
        run(tmp_path, batches=batches(8, fill), evaluate=None)
    assert torch.load(tmp_path / "checkpoints" / "line.last.pt", weights_only=True)["step"] == 5
    assert not list((tmp_path / "checkpoints").glob("*.part"))


def test_pytorch_names_the_full_disk_when_it_writes(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    tmp_path.joinpath("x.pt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        write_whole(tmp_path / "x.pt", lambda file: torch.save({"x": torch.zeros(100_000)}, file))
    assert full.value.errno == errno.ENOSPC
    assert not (tmp_path / "x.pt").exists()


def test_a_half_written_file_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "line.last.pt.part").write_bytes(b"half")
    assert Checkpoints(tmp_path, {}).load("line.last", CPU) is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "line.last.pt").write_bytes(b"PK half")
    with pytest.raises(UserError, match=r"line.last.pt is damaged .*remove it"):
        Checkpoints(tmp_path, {})


def test_a_second_run_in_the_same_folder_is_kept_away(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path, {"seed": 1})
    with pytest.raises(UserError, match=f"another training writes to {tmp_path.parent}; wait until it has ended"):
        Checkpoints(tmp_path, {})
    del mine
    Checkpoints(tmp_path, {})


def test_frozen_towers_are_not_written(tmp_path: Path) -> None:
    run(tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "line.best.pt", weights_only=True)["module"]
    assert set(state) == {"layer.weight", "layer.bias"}


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    def halves(start: int) -> Any:
        for x, y in batches(8)(start // 2):
            yield x[:4], y[:4]
            yield x[4:], y[4:]

    plain = replace(CONFIG, ema=0.0, evaluate_every=0)
    modules = [Line(), Line()]
    for module in modules:
        module.drop.p = 0.0
    Trainer(plain, tmp_path / "whole", CPU).run(stage(modules[0], plain, evaluate=None))
    halved = replace(plain, accumulate=2)
    Trainer(halved, tmp_path / "halves", CPU).run(stage(modules[1], halved, evaluate=None, batches=halves))
    torch.testing.assert_close(modules[0].layer.weight, modules[1].layer.weight)
    for (_, a), (_, b) in zip(losses(tmp_path / "whole"), losses(tmp_path / "halves"), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_the_weights_that_did_best_are_handed_back_and_kept(tmp_path: Path) -> None:
    figures = iter([1.0, 3.0, 2.0])
    seen: list[Tensor] = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Line)
        assert not module.training
        seen.append(module.layer.weight.detach().clone())
        return {"figure": next(figures)}

    module, found = run(tmp_path, evaluate=evaluate)
    assert found == {"figure": 3.0}
    assert torch.equal(module.layer.weight, seen[1])
    assert [line["step"] for line in lines(tmp_path) if "figures" in line] == [4, 8, 12]


def test_averaged_weights_follow_the_formula_and_leave_the_real_ones_alone() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    average = Average(optimiser, 0.5)
    expected = 1.0
    for step in range(20):
        with torch.no_grad():
            weight.add_(1)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.item()
    with average.in_place():
        assert weight.item() == pytest.approx(expected)
    assert weight.item() == 21.0


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_groups_of_one_name_are_clipped_together(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Parameter(torch.zeros(1)) for _ in range(3))

        def forward(self, batch: Any) -> dict[str, Tensor]:
            return {"steep": (3 * self.a + 4 * self.b + 0.1 * self.c).sum()}

    module = Two()
    groups = [Group("steep", [module.a], 0.1), Group("steep", [module.b], 0.1), Group("flat", [module.c], 0.1)]
    config = replace(CONFIG, clip_norm=1.0, steps=1, ema=0.0)
    Trainer(config, tmp_path, CPU).run(
        Stage("two", module, groups, batches(), steps=1, batch_size=8, constant=("tower.",))
    )
    assert lines(tmp_path)[0]["norm/steep"] == pytest.approx(5.0)
    assert lines(tmp_path)[0]["norm/flat"] == pytest.approx(0.1)


def test_a_log_without_a_terminal_gets_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    log = TrainingLog(tmp_path, console=Console(file=out, width=80, soft_wrap=True))
    log.begin("line", 0, 100, 8)
    for step in range(100):
        log.step(step, {"square": 0.5, "straight": 0.25}, {"data_wait": 0.01}, 0.5)
    log.close()
    told = out.getvalue().splitlines()
    assert len(told) == 20
    assert told[0].startswith("line  5%  step 5/100  ")
    assert "s left  16/s  1% data wait  loss 0.750  square 0.500  straight 0.250" in told[0]
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_bar_with_the_time_left(tmp_path: Path) -> None:
    out = io.StringIO()
    log = TrainingLog(tmp_path, console=Console(file=out, width=160, force_terminal=True))
    log.begin("line", 4, 10, 8)
    log.step(4, {"square": 0.5}, {}, 0.5)
    log.close()
    assert "5/10" in out.getvalue()
    assert "16/s" in out.getvalue()


def test_tensorboard_gets_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path)
    events = list((tmp_path / "tensorboard").iterdir())
    assert events
    assert b"line/square" in events[0].read_bytes()


def test_the_model_fields_are_part_of_the_identity() -> None:
    found = identity(CONFIG, "abc", 2)
    assert found["model.dim"] == 256
    assert found["data"] == "abc"
    assert "workers" not in found


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"the device 'cuda:99' is not there"):
        choose("cuda:99")
    with pytest.raises(UserError, match=r"the device 'meta' is not there \(COPE computes on cpu, cuda\)"):
        choose("meta")


def test_a_checkpoint_is_read_on_a_processor_with_a_number(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save("line.last", {"weight": torch.ones(2)})
    found = checkpoints.load("line.last", choose("cpu:0"))
    assert found is not None
    assert torch.equal(found["weight"], torch.ones(2))


def test_lines_of_others_in_the_metrics_stay(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n[2]\n{"stage": "line", "st')
    run(tmp_path)
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert kept[:2] == ['{"loss": 1}', "[2]"]
    assert json.loads(kept[2])["step"] == 1
