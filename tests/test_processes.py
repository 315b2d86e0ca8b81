"""Several processes under torchrun (gloo) compute together what one computes alone."""

import json
import sys

import pytest
import torch
from helpers import HERE, PATIENCE, torchrun
from torch import nn
from torch.utils.data import DataLoader

from course import processes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torchrun is tested on Linux")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch without gloo")
def test_two_processes_compute_what_one_does(tmp_path):
    done = torchrun(str(HERE / "tests" / "programs" / "together.py"), str(tmp_path))
    output, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, errors
    for rank in (0, 1):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        # Three steps: their gradients are those of the joined batches.
        assert result["gap"] < 1e-5 < 1e-3 < result["moved"]
        assert result["together"] == pytest.approx(result["alone"], rel=1e-5)
        assert result["resumed"] == [2, 0.0]
    assert [path.parent.name for path in tmp_path.rglob("a.pt")] == ["machine 0"]
    assert output.count("only the first says this") == 1


# --- In one process -----------------------------------------------------------------------------


def test_a_process_alone_shares_nothing(monkeypatch, digits, capsys):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    processes.join()
    model, loader = nn.Linear(1, 1), DataLoader(digits, 10)
    assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
    assert processes.gather("value") == ["value"]
    assert processes.wrap(model) is processes.unwrap(model) is model
    assert processes.shard(loader) is loader
    assert processes.average((50.0, 1.5)) == (50.0, 1.5)
    with processes.only_the_first_prints():
        print("heard")
    assert capsys.readouterr().out == "heard\n"
    processes.leave()


@pytest.fixture
def one_of(monkeypatch):
    """Make this process the one with a certain rank; `sent` says what others have sent."""

    def build(rank, world_size, sent=None):
        monkeypatch.setattr(processes, "is_one_of_several", lambda: True)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: world_size)

        def gather(values, value):
            values[:] = [(sent or {}).get(each, value) for each in range(world_size)]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    return build


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_shards_have_equal_sizes_and_hold_every_digit(one_of, digits, world_size):
    """Each process draws random numbers of its own: the order must not depend on them."""
    shards = []
    for rank in range(world_size):
        one_of(rank, world_size)
        torch.manual_seed(rank)
        loader = processes.shard(DataLoader(digits, 8 * world_size, shuffle=True), seed=3)
        assert loader.batch_size == 8 and loader.dataset is digits
        shards.append(list(loader.sampler))
        loader.sampler.set_epoch(1)
        assert list(loader.sampler) != shards[-1], "another order in each epoch"
    assert {len(shard) for shard in shards} == {-(-100 // world_size)}
    assert set(sum(shards, [])) == set(range(100)) and shards[0] != sorted(shards[0])
    one_of(0, world_size)
    other = processes.shard(DataLoader(digits, 8 * world_size, shuffle=True), seed=4)
    assert list(other.sampler) != shards[0], "and for each seed"


def test_a_batch_that_cannot_be_shared(one_of, digits):
    one_of(0, 3)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 128 digits equally"):
        processes.shard(DataLoader(digits, 128))


def test_measurements_are_averaged(one_of):
    one_of(0, 2, {1: (80.0, 1.0)})
    assert processes.average((50.0, 2.0)) == (65.0, 1.5)


def test_the_other_processes_are_silent(one_of, capsys):
    one_of(1, 2)
    with processes.only_the_first_prints():
        print("nothing")
    print("heard")
    assert capsys.readouterr().out == "heard\n"
