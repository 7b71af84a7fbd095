"""Functions that OpenVINO computes on the CPU, converted from PyTorch.

The one place that imports OpenVINO: its tools report their use to a web address at import unless the package that does
so is not there, so here it is not.
"""

import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cope.errors import UserError
from cope.runtime.cache import cache_folder

# Compiled for so many shapes of input at a time: streams of one shop have few aspect ratios, and each shape takes
# 20 MB and a tenth of a second.
SHAPES = 8


@cache
def core() -> Any:
    """OpenVINO's `Core`, which sends nothing to anybody.

    Raises:
        UserError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails from now on
    try:
        from openvino import Core
    except ModuleNotFoundError:
        raise UserError("the package openvino is not installed; run: pip install 'cope-live[offline]'") from None
    return Core()


def version() -> str:
    """Of OpenVINO."""
    core()
    from openvino import get_version

    return str(get_version())


class _Ready(threading.local):
    """A compiled model with a request of its own for each thread."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        found = self._request.infer([values], share_inputs=True)
        return [np.array(found[number]) for number in range(len(found))]


class Compiled:
    """A function of one array, computed by OpenVINO. Safe to share between threads.

    It is converted once and kept on disk by what it is made of, compiled once for each shape of its input, and gives
    a row of a batch the same bits whatever the others are.
    """

    def __init__(
        self,
        name: str,
        key: str,
        make: Callable[[], tuple[nn.Module, Tensor]],
        shape: Sequence[int],
        threads: int,
        bfloat16: bool = False,
        fixed: bool = True,
    ) -> None:
        """Remembers how to make the function; the first call makes it.

        Args:
            name: Of the function; one edition of each name is kept on disk.
            key: A hash of all that it is made of.
            make: Gives it as a module, with an example of its input.
            shape: Of the input; -1 where it may have any length.
            threads: That compute.
            bfloat16: Compute in bfloat16 where the processor has it.
            fixed: Compile for each shape of input that comes, which is faster, instead of once for any.
        """
        self._name, self._key, self._make, self._shape, self._fixed = name, key, make, list(shape), fixed
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # the roles of a machine would be pinned to the same cores
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        }
        self._lock = threading.Lock()
        self._ready: OrderedDict[tuple[int, ...], _Ready] = OrderedDict()

    def __call__(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The outputs; arrays of the caller's own."""
        shape = values.shape if self._fixed else ()
        with self._lock:
            ready = self._ready.get(shape)
            if ready is None:
                model = self._model()
                if shape:
                    model.reshape(list(shape))
                ready = self._ready[shape] = _Ready(core().compile_model(model, "CPU", self._options))
                if len(self._ready) > SHAPES:
                    self._ready.popitem(last=False)
            self._ready.move_to_end(shape)
        return ready(values)

    def _model(self) -> Any:
        folder = cache_folder("compiled")
        kept = None if folder is None else folder / f"{self._name}-{self._key[:16]}"
        if kept is not None and (kept / "model.xml").is_file():
            try:
                return core().read_model(kept / "model.xml")
            except RuntimeError:  # damaged: made anew
                shutil.rmtree(kept, ignore_errors=True)
        return _as_read(self._converted(), kept, self._name)

    def _converted(self) -> Any:
        core()
        from openvino import PartialShape, convert_model
        from transformers.utils import logging

        module, example = self._make()
        loudness = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # tracing warns of each branch that a shape decides
                return convert_model(module, example_input=example, input=[PartialShape(self._shape)])
        finally:
            logging.set_verbosity(loudness)


def _as_read(model: Any, kept: Path | None, name: str) -> Any:
    """Writes a model and reads it back, since one that was only converted computes other last bits.

    It is kept in the place of earlier editions. Where it cannot be, the next process makes it again.
    """
    from openvino import save_model

    try:
        with tempfile.TemporaryDirectory(
            dir=kept and kept.parent, prefix=".part-", ignore_cleanup_errors=True
        ) as beside:
            save_model(model, Path(beside) / "model.xml", compress_to_fp16=False)
            model = core().read_model(Path(beside) / "model.xml")  # weights are mapped, and stay when the file goes
            if kept is not None:
                os.rename(beside, kept)
                for earlier in kept.parent.glob(f"{name}-*"):
                    if earlier != kept:
                        shutil.rmtree(earlier, ignore_errors=True)
    except (OSError, RuntimeError):  # no place to write, a full disk, or another process was first
        pass
    return model
