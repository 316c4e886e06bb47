"""How the Triton backend chooses its sizes: the candidates themselves, and the tuner that measures and remembers."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

import triton
from vtsum_kernels.memory_attention.triton import configs as memory_configs
from vtsum_kernels.memory_fuse.triton.launch import join_candidates
from vtsum_kernels.sliding_window_attention.triton import configs
from vtsum_kernels.sliding_window_attention.triton import launch as sliding
from vtsum_kernels.triton_kit import launch as kit
from vtsum_kernels.triton_kit import tuning
from vtsum_kernels.triton_kit.tuning import Config, Tuner

SMALL, LARGE = Config("tile", 16, 32, 1, 1), Config("tile", 128, 64, 8, 2)
TIMES = {SMALL: 3.0, LARGE: 2.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "triton.json"


def tuner(path: Path, version: str = "1") -> Tuner:
    return Tuner(version, lambda: path)


def never(config: Config) -> float:
    raise AssertionError(f"{config} was measured again")


def test_the_quickest_is_chosen_and_remembered(path: Path) -> None:
    first = tuner(path)
    assert first.choose("a", [SMALL, LARGE], TIMES.__getitem__) == LARGE
    assert first.choose("a", [SMALL, LARGE], never) == LARGE
    assert first.choose("b", [SMALL, LARGE], lambda config: -TIMES[config]) == SMALL
    again = tuner(path)
    assert again.choose("a", [SMALL, LARGE], never) == LARGE
    assert again.choose("b", [SMALL, LARGE], never) == SMALL
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_choices_of_two_processes_are_kept(path: Path) -> None:
    one, other = tuner(path), tuner(path)
    one.choices, other.choices = {}, {}  # both began before there was a file
    one.choose("a", [SMALL, LARGE], TIMES.__getitem__)
    other.choose("b", [SMALL], TIMES.__getitem__)
    assert tuner(path).read() == {"a": LARGE, "b": SMALL}


def alone(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that runs a program with what tuning.py defines; the package, and torch with it, stays unread."""
    load = f"tuning = SourceFileLoader('tuning', {tuning.__file__!r}).load_module()"
    lines = ["from importlib.machinery import SourceFileLoader", load, "Config, Tuner = tuning.Config, tuning.Tuner"]
    program = "\n".join([*lines, program])
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options
    )


#: Adds some choices to a file, one by one, beginning with others.
ADDING = """
import sys, time
from pathlib import Path
path, name, begin = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
tuner = Tuner("1", lambda: path)
time.sleep(max(begin - time.time(), 0.0))
for n in range(25):
    tuner.write(f"{name} {n}", Config("tile", 16, 32, 1, 1))
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    begin = time.time() + 2.0
    adding = [alone(ADDING, path, name, begin) for name in "abc"]
    said = [process.communicate()[1] for process in adding]
    assert [process.returncode for process in adding] == [0, 0, 0], said
    assert set(tuner(path).read()) == {f"{name} {n}" for name in "abc" for n in range(25)}


def test_a_lock_that_is_never_given_back_is_waited_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "PATIENCE", 0.05)
    with tuning.locked(path):
        tuner(path).write("a", SMALL)
    assert tuner(path).read() == {"a": SMALL}


def test_what_another_process_measured_meanwhile_is_not_measured_again(path: Path) -> None:
    here = tuner(path)
    assert here.choose("a", [SMALL, LARGE], TIMES.__getitem__) == LARGE
    tuner(path).choose("b", [SMALL, LARGE], TIMES.__getitem__)
    assert here.choose("b", [SMALL, LARGE], never) == LARGE


def test_a_choice_no_longer_offered_is_measured_anew(path: Path) -> None:
    tuner(path).choose("a", [SMALL, LARGE], TIMES.__getitem__)
    assert tuner(path).choose("a", [SMALL], TIMES.__getitem__) == SMALL


def test_another_version_measures_anew(path: Path) -> None:
    tuner(path).choose("a", [SMALL, LARGE], TIMES.__getitem__)
    assert tuner(path, "2").choose("a", [SMALL, LARGE], lambda config: -TIMES[config]) == SMALL
    assert tuner(path, "2").read() == {"a": SMALL}


def test_a_broken_file_is_ignored_with_a_warning_and_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")
    with pytest.warns(UserWarning, match="ignoring the tuned sizes"):
        assert tuner(path).choose("a", [SMALL, LARGE], TIMES.__getitem__) == LARGE
    assert json.loads(path.read_text())["choices"] == {"a": list(LARGE)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuner(path).choose("a", [SMALL, LARGE], never) == LARGE


def test_no_place_to_write_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot write the tuned sizes"):
        assert tuner(tmp_path / "file" / "triton.json").choose("a", [SMALL, LARGE], TIMES.__getitem__) == LARGE


NO_HOME = """
import pwd, warnings
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
assert tuning.cache_file() is None, tuning.cache_file()
tuner, tile = Tuner("1"), Config("tile", 16, 32, 1, 1)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert tuner.choose("a", [tile], lambda config: 1.0) == tile
assert "tuned sizes are not kept" in str(said[0].message), said
assert tuner.choose("a", [tile], None) == tile
"""


def test_a_user_without_a_home_keeps_choices_for_as_long_as_the_process() -> None:
    """As in a container that is run for a number: neither HOME nor a line in /etc/passwd."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    process = alone(NO_HOME, env=environment)
    said = process.communicate()[1]
    assert process.returncode == 0, said


def test_where_choices_are_kept_and_whether_any_are_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning.cache_file() == tmp_path / "vtsum_kernels" / "triton.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert tuning.cache_file() == Path("/home/somebody/.cache/vtsum_kernels/triton.json")
    monkeypatch.delenv("VTSUM_KERNELS_AUTOTUNE", raising=False)
    assert tuning.wanted()
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "0")
    assert not tuning.wanted()


@pytest.mark.parametrize(("window", "most"), [(5, (65, 90)), (129, (65, 115))])
def test_a_call_is_not_host_bound(window: int, most: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A short video takes the GPU a few microseconds; each function called in Python takes about half of one.

    What is the same in every call of a kind is found out once.
    """
    monkeypatch.setattr(kit, "start", lambda kernel, grid, arguments, config: None)
    q = torch.zeros(1, 4, 300, 64, dtype=torch.bfloat16)
    options = (None, None, None, None, window // 2, window // 2, 1, False, 0.1, 0.0, 0)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        return sliding.forward(q, q, q, *options, True)

    out, lse = forward()

    def backward() -> Any:
        return sliding.backward(q, q, q, q, *options[:4], None, out, lse, *options[4:])

    backward()
    assert calls_of(forward) <= most[0]
    assert calls_of(backward) <= most[1]


def calls_of(run: Callable[[], Any]) -> int:
    """Functions that are called, those of C among them."""
    events: list[str] = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        run()
    finally:
        sys.setprofile(None)
    return events.count("call") + events.count("c_call")


class Recorder:
    """Stands for a launch: what it was run with, and which sizes have no room."""

    def __init__(self, too_large: set[Config]) -> None:
        self.too_large, self.ran = too_large, []  # type: tuple[set[Config], list[Config]]

    def __call__(self, config: Config) -> str:
        if config in self.too_large:
            raise triton.runtime.errors.OutOfResources(2, 1, "shared memory")
        self.ran.append(config)
        return config.form


def launcher(device: str) -> sliding.Launcher:
    q = torch.zeros(1, 1, 40, 16)
    call = sliding.Launcher(q, q, None, None, None, None, (2, 2, 1, False), 1.0, 0.0, 0)
    call.device = torch.device(device)
    return call


def test_sizes_that_have_no_room_give_way_to_the_next() -> None:
    run = Recorder({SMALL})
    assert launcher("cpu").run("fwd", [SMALL, LARGE], run) == "tile"
    assert run.ran == [LARGE]
    with pytest.raises(triton.runtime.errors.OutOfResources):
        launcher("cpu").run("fwd", [SMALL, LARGE], Recorder({SMALL, LARGE}))


def test_what_a_shifted_window_sees_is_counted_in_32_bits() -> None:
    """Its end is a position and both sides: of the longest sequence there may be, more than 2^31 if both are whole."""
    frames = 2**30 - 2**12
    q = torch.zeros(16).expand(1, 1, frames, 16)
    call = sliding.Launcher(q, q, None, None, None, None, (-1, frames, 1, True), 1.0, 0.0, 0)
    assert frames + call.values["left"] + call.values["right"] < 2**31
    assert call.values["left"] + call.values["right"] == frames - 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A GPU that none is, on which everything takes a millisecond."""
    monkeypatch.setattr(kit, "TUNER", tuner(path))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(kit, "cached_bytes", lambda device: 50 << 20)
    monkeypatch.setattr(sliding, "cached_bytes", lambda device: 50 << 20)
    monkeypatch.setattr(kit, "milliseconds", lambda run: (run(), 1.0)[1])


def test_a_gpu_runs_what_was_measured_unless_told_otherwise(
    gpu: None, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    times = iter([3.0, 2.0])
    monkeypatch.setattr(kit, "milliseconds", lambda run: (run(), next(times))[1])
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "1")
    run = Recorder(set())
    launcher("cuda").run("fwd", [SMALL, LARGE], run)
    assert run.ran == [SMALL, LARGE, LARGE]
    launcher("cuda").run("fwd", [SMALL, LARGE], run)
    assert run.ran[3:] == [LARGE]
    assert list(tuner(path).read()) == ["a GPU fwd torch.float32 D=16 narrow 2 2 few"]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    launcher("cuda").run("bwd", [SMALL, LARGE], run)
    assert run.ran[4:] == [SMALL]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "0")
    launcher("cuda").run("bwd", [SMALL, LARGE], run)
    assert run.ran[5:] == [SMALL]


def test_what_was_measured_elsewhere_is_taken_without_measuring(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    other_warps = LARGE._replace(warps=4, stages=3, registers=128)
    unknown = LARGE._replace(block_m=256)
    monkeypatch.setattr(tuning, "tuned", lambda: {"a": LARGE, "b": other_warps, "c": unknown})
    here = tuner(path)
    assert here.choose("a", [SMALL, LARGE], never) == LARGE
    assert here.choose("b", [SMALL, LARGE], never) == other_warps
    assert here.choose("c", [SMALL, LARGE], TIMES.__getitem__) == LARGE  # no candidate: measured here
    assert here.choose("c", [SMALL, LARGE], never) == LARGE
    assert here.choose("d", [SMALL, LARGE], never, may_measure=False) == SMALL
    assert tuner(path).choose("a", [SMALL, LARGE], never, may_measure=False) == LARGE
    # What this machine measured goes before what others did.
    monkeypatch.setattr(tuning, "tuned", lambda: {"c": SMALL})
    assert tuner(path).choose("c", [SMALL, LARGE], never) == LARGE


@pytest.mark.parametrize(
    "size",
    [{"warps": 3}, {"warps": 32}, {"stages": 0}, {"stages": 9}, {"block_n": 32}, {"registers": 8}, {"registers": 256}],
)
def test_nonsense_from_elsewhere_is_not_taken(size: dict[str, int]) -> None:
    assert tuning.admitted(LARGE, [SMALL, LARGE]) == LARGE
    assert tuning.admitted(LARGE._replace(**size), [SMALL, LARGE]) is None
    assert tuning.admitted(None, [SMALL, LARGE]) is None


def test_a_capture_reads_what_was_measured_before(gpu: None, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """In another process: in this one nothing was called before the capture."""
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "1")
    tuner(path).choose("a GPU fwd torch.float32 D=16 narrow 2 2 few", [SMALL, LARGE], TIMES.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    run = Recorder(set())
    launcher("cuda").run("fwd", [SMALL, LARGE], run)
    assert run.ran == [LARGE]
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "0")
    launcher("cuda").run("fwd", [SMALL, LARGE], run)
    assert run.ran == [LARGE, SMALL]


def test_a_small_call_does_not_decide_for_one_beyond_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that leaves the GPU idle for one that fills it. A million rows never share a choice with 40,000."""
    monkeypatch.setattr(sliding, "cached_bytes", lambda device: 50 << 20)
    kinds = {}
    for frames in (300, 40_000, 100_000, 110_000, 1_000_000):  # 50 MiB are 102,400 rows of four tensors
        q = torch.empty(1, frames, dtype=torch.bfloat16).expand(64, -1, -1).permute(1, 2, 0)[None]
        assert q.shape == (1, 1, frames, 64)
        call = sliding.Launcher(q, q, None, None, None, None, (2, 2, 1, False), 1.0, 0.0, 0)
        call.tensors(q=q, k=q, v=q, out=q)
        kinds[frames] = call.words("fwd")
    assert [words[-1] for words in kinds.values()] == ["few", "many", "many", "beyond-L2", "beyond-L2"]
    assert len({memory_configs.about(rows) for rows in (300, 40_000, 100_000, 1_000_000)}) == 4


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("an illegal access")])
def test_what_failed_while_it_was_measured_is_not_written(
    gpu: None, monkeypatch: pytest.MonkeyPatch, path: Path, error: RuntimeError
) -> None:
    """Another process, with more memory to itself, measures it again; this one no more, but where nothing ran."""
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "1")
    failing = {LARGE, SMALL}
    ran = []

    def call(config: Config) -> str:
        ran.append(config)
        if config in failing:
            raise error
        return config.form

    with pytest.raises(type(error)):
        launcher("cuda").run("fwd", [LARGE, SMALL], call)
    assert ran == [LARGE, SMALL, LARGE]
    failing.remove(SMALL)
    launcher("cuda").run("fwd", [LARGE, SMALL], call)
    assert ran[3:] == [LARGE, SMALL, SMALL]
    launcher("cuda").run("fwd", [LARGE, SMALL], call)
    assert ran[6:] == [SMALL]
    assert tuner(path).read() == {}
    failing.clear()
    monkeypatch.setattr(kit, "TUNER", tuner(path))
    launcher("cuda").run("fwd", [LARGE, SMALL], call)
    assert ran[7:] == [LARGE, SMALL, LARGE]
    assert list(tuner(path).read().values()) == [LARGE]


def test_where_nothing_has_room_nothing_is_written(gpu: None, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "1")
    with pytest.raises(triton.runtime.errors.OutOfResources):
        launcher("cuda").run("fwd", [SMALL, LARGE], Recorder({SMALL, LARGE}))
    assert tuner(path).read() == {}


def test_a_slow_strip_is_not_measured_for_a_wide_window(gpu: None) -> None:
    strip, run = Config("strip", 16, 0, 4, 1), Recorder(set())
    call = launcher("cuda")
    call.run("fwd", [SMALL, strip], run)
    call.problem = call.problem._replace(left=100)
    call.run("fwd", [SMALL, strip], run)
    call.run("bwd", [strip], run)
    assert run.ran == [SMALL, strip, SMALL, SMALL, SMALL, strip, strip]


def test_what_has_no_room_is_never_chosen(gpu: None) -> None:
    run = Recorder({SMALL})
    launcher("cuda").run("fwd", [SMALL, LARGE], run)
    assert set(run.ran) == {LARGE}


def problems() -> list[configs.Problem]:
    windows = [(0, 0), (2, 2), (4, 0), (8, 8), (0, 32), (16, 16), (17, 16), (128, 128), (0, 5000)]
    made = []
    for float32, d, (left, right), shift in itertools.product((True, False), (16, 32, 64, 128, 256), windows, (0, 1)):
        for options in {bool(shift), True}:
            made.append(configs.Problem(float32, d, left, right, bool(shift), options))
    return made


def test_every_candidate_covers_its_window() -> None:
    """Steps that leave nobody out, blocks that hold the halo, and square ones where diagonals are summed."""
    seen = SimpleNamespace(tile=0, fused=0, strip=0)
    for problem in problems():
        both = [(config, False) for config in configs.forward_candidates(problem)]
        both += [(config, True) for config in configs.backward_candidates(problem)]
        assert {backward for _, backward in both} == {False, True}, problem
        for config, backward in both:
            setattr(seen, config.form, getattr(seen, config.form) + 1)
            assert config.block_m & (config.block_m - 1) == 0, (problem, config)
            assert 1 <= config.warps <= 8, (problem, config)
            if config.form == "strip":
                assert config.block_m >= 1
                continue
            assert config.block_m >= 16, (problem, config)
            assert config.block_n >= 16, (problem, config)
            if config.form == "fused":
                assert backward, problem
                assert problem.narrow, problem
                assert configs.fused_step(config, problem) >= 16, (problem, config)
            elif problem.narrow:
                step = configs.single_step(config, problem.halo)
                assert step >= 8, (problem, config)
                assert step + problem.halo <= config.block_n, (problem, config)
            elif backward and problem.options:
                assert config.block_m == config.block_n, (problem, config)
    assert min(vars(seen).values()) > 50


def test_a_config_says_how_many_registers_a_kernel_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kit.options(LARGE) == {"num_warps": 8, "num_stages": 2}
    assert kit.options(LARGE._replace(registers=128)) == {"num_warps": 8, "num_stages": 2, "maxnreg": 128}
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert kit.options(LARGE._replace(registers=128)) == kit.options(LARGE)  # AMD's compiler knows no such thing
    held = [config for problem in problems() for config in configs.forward_candidates(problem)[:1] if config.registers]
    assert not held  # the default is the compiler's own


def test_every_kind_of_memory_call_has_sizes() -> None:
    """A default of powers of two, which tensors' sizes may fall short of; no size twice."""
    found = [memory_configs.weights_backward_candidates(slots) for slots in (1, 64, 100, 512, 4096, 5000)]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for count in (1, 64, 100, 256, 300, 512, 768, 1024, 5000):
            found.append(memory_configs.weights_forward_candidates(dtype, count))
            for config in found[-1]:
                assert config.form == "walk" or 2 * config.block_n >= count
            found += [join_candidates(dtype, count, split) for split in (False, True)]
            found.append(memory_configs.scores_backward_candidates(dtype, count))
        for width in (16, 64, 128, memory_configs.MAX_DIM_FLASH):
            for options in (False, True):
                found.append(memory_configs.flash_forward_candidates(dtype, width, options))
                rows = memory_configs.flash_rows_candidates(dtype, width, options)
                slots = memory_configs.flash_slots_candidates(dtype, width, options)
                found += [rows, slots]
                fewest = min(config.block_m for config in rows + slots)  # rows that one kernel sums for the other
                assert all(config.block_m % fewest == 0 for config in rows + slots)
        found.append(memory_configs.usage_candidates(dtype))
    for candidates in found:
        assert candidates
        assert len(set(candidates)) == len(candidates), candidates
        for config in candidates:
            for size in config[1:4]:
                assert size.bit_count() == 1, config
