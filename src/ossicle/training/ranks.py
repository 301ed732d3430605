"""The processes that train one network together: which one this is, what it has of the data, how they agree.

Lightning finds torchrun and SLURM, starts the processes of `--devices` by running the command again, and averages the
gradients. What is decided or written here goes by `Ranks`: rank zero writes, the others wait; a decision is rank zero's
or that of all. They talk through gloo, on the processor, so that no GPU waits for it.

A process that ends takes the run with it: the others find its connection closed and say so.
"""

import contextlib
import datetime
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from unittest import mock

import lightning
import numpy as np
import torch
from jaxtyping import Int64
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.strategies.launchers import subprocess_script
from torch import distributed

from ossicle.devices import choose_device
from ossicle.errors import JobStopped, SettingRefused, interrupt
from ossicle.training.config import TrainConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")
JOINING = datetime.timedelta(minutes=10)  # the longest that all processes take to come together
STEP = datetime.timedelta(minutes=30)  # the longest wait for the others inside a run
WORK = datetime.timedelta(days=2)  # the longest wait for what rank zero does for all, such as decoding
# Signals that end a training where it is whole, beside Ctrl-C; there is no SIGUSR1 on Windows.
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
LAST_WORDS = 3.0  # seconds for another process to say why it ends


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the run; by default it is alone."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # on its machine
    group: Any = None  # of torch.distributed

    @property
    def zero(self) -> bool:
        """Whether this process writes, and speaks for all."""
        return self.rank == 0

    def piece(self, number: int) -> slice:
        """The slice of `number` items that belongs to this process; slices differ by one item at most."""
        least, more = divmod(number, self.world)
        first = self.rank * least + min(self.rank, more)
        return slice(first, first + least + (self.rank < more))

    def pieces(self, number: int) -> list[slice]:
        """The slices of all processes, by rank."""
        return [replace(self, rank=rank).piece(number) for rank in range(self.world)]

    def mine(self, positions: Int64[np.ndarray, "_"]) -> Int64[np.ndarray, "_"]:
        """The positions that belong to this process."""
        return positions[self.piece(len(positions))]

    def wait(self, longest: datetime.timedelta = STEP) -> None:
        """Waits until all processes have come here."""
        if self.world > 1:
            distributed.monitored_barrier(self.group, timeout=longest, wait_all_ranks=True)

    def first(self, write: Callable[[], object]) -> None:
        """Rank zero writes when all have come here, and the others wait until it has."""
        self.wait()
        if self.zero:
            write()
        self.wait(WORK)

    def in_turn(self, make: Callable[[], T]) -> T:
        """What each process makes: rank zero first, then one on each machine, then the others, who find it made."""
        mine = 0 if self.zero else 1 if self.local_rank == 0 else 2
        for turn in range(3 if self.world > 1 else 1):
            if turn == mine:
                made = make()
            self.wait(WORK)
        return made

    def from_zero(self, make: Callable[[], T]) -> T:
        """What rank zero makes, for all: what might come out otherwise elsewhere, such as a measurement."""
        found = [make() if self.zero else None]
        if self.world > 1:
            self.wait(WORK)
            distributed.broadcast_object_list(found, src=0, group=self.group)
        return found[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of the ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value, group=self.group)
        return found

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Which of the flags are set in any process."""
        if self.world == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.group)
        return [bool(flag) for flag in found.tolist()]

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each of the values over all processes."""
        if self.world == 1:
            return values
        found = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(found, group=self.group)
        return (found / self.world).tolist()


ALONE = Ranks()


def settle_processes(config: TrainConfig) -> TrainConfig:
    """The settings with as many processes as a launcher has started, if there is one.

    Raises: SettingRefused for another number in the settings.
    """
    if TorchElasticEnvironment.detect():
        who, world, devices = "torchrun", int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        who, world, nodes = "SLURM", int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", 1))
        devices = world // nodes
    else:
        return config
    nodes = world // devices
    if devices * nodes != world:
        raise SettingRefused(f"{who} has started {world} processes, and not as many on each of {nodes} machines.")
    if who == "SLURM" and world > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:  # which Lightning goes by
        raise SettingRefused(f"SLURM has started {world} processes; give it --ntasks-per-node={devices}, not --ntasks.")
    if (config.devices, config.nodes) not in ((1, 1), (devices, nodes)):
        raise SettingRefused(
            f"{who} has started {devices} processes on each of {nodes} machines, and devices={config.devices} "
            f"nodes={config.nodes} are set; leave these out, or start as many."
        )
    return replace(config, devices=devices, nodes=nodes)


def in_processes(config: TrainConfig, train: Callable[[Ranks], T]) -> T:
    """Calls a training in every process of the settings, and gives what it gives.

    The processes that are not there yet are started here: they run the program of this one from its start.

    Raises:
        SettingRefused: processes that cannot be started from here.
        JobStopped: another process has ended before the run had.
    """
    world = config.devices * config.nodes
    if world == 1:
        return train(ALONE)
    refuse_processes(config)
    children: list[subprocess.Popen[bytes]] = []
    ranks: Ranks | None = None
    training = threading.Event()
    training.set()

    def watch(processes: list[subprocess.Popen[bytes]]) -> None:
        children.extend(processes)
        threading.Thread(target=watch_children, args=(children, training), daemon=True).start()

    try:
        ranks = join(config, watch)
        result = train(ranks)
        ranks.wait(WORK)
        distributed.destroy_process_group()
        return result
    except BaseException as error:
        sentence = None if not is_loss(error) else lost(children, world)
        if ranks is not None and not ranks.zero:
            time.sleep(LAST_WORDS)  # rank zero ends it sooner, if it has something to say
            if sentence is None:
                sentence = f"rank {ranks.rank} of the {world} processes: {error}"
        for child in children:
            child.kill()
        if sentence is None or isinstance(error, KeyboardInterrupt):
            raise
        raise JobStopped(sentence) from (None if is_loss(error) else error)
    finally:
        training.clear()


def join(config: TrainConfig, watch: Callable[[list[subprocess.Popen[bytes]]], None]) -> Ranks:
    """Starts the processes that are not there yet, and waits for all.

    Args:
        watch: called with those that were started here
    """
    quiet_lightning()
    device = choose_device(config.device)
    strategy = DDPStrategy(process_group_backend="gloo" if device.type == "cpu" else None, timeout=STEP)
    fabric = lightning.Fabric(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        plugins=environment_plugins(),
    )
    with mock.patch.object(subprocess_script, "_launch_process_observer", watch):  # its own kills without a word
        fabric.launch()
    group = distributed.new_group(backend="gloo", timeout=STEP)
    ranks = Ranks(rank=fabric.global_rank, world=fabric.world_size, local_rank=fabric.local_rank, group=group)
    if not ranks.zero:
        logging.getLogger("ossicle").setLevel(logging.CRITICAL)  # rank zero speaks for all
        threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    ranks.wait(JOINING)
    where = "" if config.nodes == 1 else f" on {config.nodes} machines"
    logger.info(
        f"{ranks.world} processes{where}, {'ddp' if config.strategy == 'auto' else config.strategy}, on {device.type}"
    )
    return ranks


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Lets the signals of `STOPPING` raise KeyboardInterrupt, as Ctrl-C does; they do as before when it ends."""
    before = {}
    with contextlib.suppress(ValueError):  # the main thread alone may set handlers
        before = {number: signal.signal(number, interrupt) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python has not set
                signal.signal(number, handler)


def quiet_lightning() -> None:
    """Lets Lightning log errors only: what a user should know, the callbacks log."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def environment_plugins() -> list[Any]:
    """SLURM without Lightning's requeueing: a job that starts again by itself should have been told to."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def refuse_processes(config: TrainConfig) -> None:
    """Raises SettingRefused where other processes cannot be started, or not used."""
    import __main__

    external = TorchElasticEnvironment.detect() or SLURMEnvironment.detect() or "LOCAL_RANK" in os.environ
    if not external and not hasattr(__main__, "__file__"):
        raise SettingRefused(
            f"devices={config.devices}: the other processes run this program from its start, and there is no file of "
            "it; use `ossicle train --devices`, a script, or torchrun."
        )
    kind = choose_device(config.device).type
    if kind == "mps":
        raise SettingRefused(f"devices={config.devices}: Apple's GPU is one; use --set device=cpu, or one process.")
    if kind == "cuda" and (there := torch.cuda.device_count()) < config.devices:
        raise SettingRefused(f"devices={config.devices}: there are {there} GPUs here.")
    if config.strategy == "fsdp":
        refuse_sharding(config, kind)


def refuse_sharding(config: TrainConfig, kind: str) -> None:
    """Raises SettingRefused where no process may have a mere part of the network."""
    if kind != "cuda":
        raise SettingRefused(f"strategy=fsdp needs GPUs, and the device is {kind}; use strategy=ddp.")
    for name, value in (("average", "none"), ("clip_gradient", 0.0), ("freeze_epochs", 0), ("compile", False)):
        if getattr(config, name) != value:
            raise SettingRefused(
                f"strategy=fsdp needs {name}={value}, as no process has the whole network; set that, or strategy=ddp."
            )


def is_loss(error: BaseException) -> bool:
    """Whether it says that another process is gone, or silent for too long."""
    if isinstance(error, distributed.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in ("gloo", "monitoredBarrier", "NCCL"))


def lost(children: Sequence[subprocess.Popen[bytes]], world: int) -> str:
    """The sentence on a run that another process has left."""
    ended: list[tuple[int, int]] = []
    until = time.monotonic() + LAST_WORDS
    while children and not ended and time.monotonic() < until:
        ended = [(rank, code) for rank, child in enumerate(children, 1) if (code := child.poll()) is not None]
        time.sleep(0.05)
    who = f"another of the {world} processes has ended, or was silent for too long"
    if ended:
        rank, code = ended[0]
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has ended with exit code {code}"
        who = f"rank {rank} of the {world} processes {how}"
    return f"{who}, so the run stops; if it has a checkpoint, --resume continues it from there."


def watch_children(children: Sequence[subprocess.Popen[bytes]], training: threading.Event) -> None:
    """Ends this process when one of its children has ended and it does not notice by itself: it may be joining them."""
    while training.is_set():
        if any(child.poll() is not None for child in children):
            time.sleep(2 * LAST_WORDS)
            if training.is_set():
                for child in children:
                    child.kill()
                print(f"ossicle: {lost(children, len(children) + 1)}", file=sys.stderr, flush=True)
                os._exit(1)
        time.sleep(0.2)


def end_with_parent(parent: int) -> None:
    """Ends this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    with contextlib.suppress(Exception):
        print("ossicle: the process that started this one is gone, so it ends.", file=sys.stderr, flush=True)
    os._exit(1)
