"""Weights from the playground: a safetensors file, written here by hand as its format says."""

import json

import pytest
import torch

import utils
from model import NetMicro

KINDS = {torch.float32: "F32", torch.int64: "I64"}


def write(path, state):
    header, data = {}, b""
    for name, tensor in state.items():
        numbers = tensor.numpy().tobytes()
        place = [len(data), len(data) + len(numbers)]
        kind = KINDS[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": place}
        data += numbers
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_load_weights_reads_a_safetensors_file(tmp_path):
    network = NetMicro()
    write(tmp_path / "a.safetensors", network.state_dict())
    loaded = utils.load_weights(tmp_path / "a.safetensors", NetMicro())
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("length", [0, 5, 40, 3000])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, length):
    path = tmp_path / "a.safetensors"
    write(path, NetMicro().state_dict())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged, or not a file of weights"):
        utils.load_weights(path, NetMicro())
