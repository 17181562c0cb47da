"""PyTorch's older files without PyTorch: EfficientNet-Lite0's, and small ones written by the layout's rules."""

import pickle

import numpy as np
import pytest
import torch_files

from fer_jax import pretrained
from fer_jax.errors import InputError
from fer_jax.pretrained import fetch, registry, torch_legacy


@pytest.fixture(scope="module")
def lite0():
    return pretrained.read(fetch.find(registry.find("efficientnet_lite0")), "efficientnet_lite0")


def test_lite0_is_the_published_network(lite0):
    """4,652,008 parameters with the classifier (Liu 2020, EfficientNet-Lite: 4.7 M); 49 BatchNorms."""
    parameters = {leaf: 0 for leaf in ("kernel", "bias", "scale", "mean", "var")}
    for leaves in lite0.layers.values():
        for leaf, array in leaves.items():
            parameters[leaf] += array.size
    assert parameters["kernel"] + parameters["bias"] + parameters["scale"] == 4_652_008
    norms = [leaves for leaves in lite0.layers.values() if "var" in leaves]
    assert len(norms) == 49 and all(set(leaves) == {"scale", "bias", "mean", "var"} for leaves in norms)
    assert all((leaves["var"] >= 0).all() and (leaves["var"] > 0).mean() > 0.85 for leaves in norms)
    assert all(np.isfinite(array).all() for leaves in lite0.layers.values() for array in leaves.values())
    assert lite0.refused == {"num_batches_tracked": "PyTorch's 49 batch counts, which our layers do not have"}


def test_lite0s_kernels_are_heights_widths_inputs_outputs(lite0):
    # Name, kernel size, channels in and out, after Tan and Le 2019 with width 1.0 and a fixed stem and head.
    filters, sizes, expansions = (16, 24, 40, 80, 112, 192, 320), (3, 3, 5, 3, 5, 5, 3), (1, 6, 6, 6, 6, 6, 6)
    wanted, channels = {"stem_conv": (3, 3, 3, 32)}, 32
    for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for letter in "abcd"[:repeats]:
            block, wide = f"block{stage + 1}{letter}", channels * expansions[stage]
            if expansions[stage] > 1:
                wanted[f"{block}_expand_conv"] = (1, 1, channels, wide)
            wanted[f"{block}_dwconv"] = (sizes[stage], sizes[stage], 1, wide)
            wanted[f"{block}_project_conv"] = (1, 1, wide, filters[stage])
            channels = filters[stage]
    wanted |= {"top_conv": (1, 1, 320, 1280), "predictions": (1280, 1000)}
    assert {name: leaves["kernel"].shape for name, leaves in lite0.layers.items() if "kernel" in leaves} == wanted
    norms = {name.replace("dwconv", "bn").replace("conv", "bn") for name in wanted} - {"predictions"}
    assert {name for name, leaves in lite0.layers.items() if "var" in leaves} == norms


def test_lite0s_norms_stand_with_their_convolutions(lite0):
    for name, leaves in lite0.layers.items():
        if "var" in leaves:
            conv = name.replace("_bn", "_dwconv" if name.count("_") == 1 and name.startswith("block") else "_conv")
            assert leaves["var"].size == lite0.layers[conv]["kernel"].shape[3], name


def test_lite0s_dead_channels_stay_dead_through_a_block(lite0):
    """A channel that training switched off before the depthwise convolution does not vary after it either."""
    dead = {
        name: np.flatnonzero(leaves["var"] == 0).tolist() for name, leaves in lite0.layers.items() if "var" in leaves
    }
    blocks = [name.removesuffix("_expand_bn") for name in dead if name.endswith("_expand_bn")]
    assert [dead[f"{block}_expand_bn"] for block in blocks] == [dead[f"{block}_bn"] for block in blocks]
    assert sum(map(len, dead.values())) == 130


def test_tensors_are_views_of_storages(tmp_path):
    values = np.arange(24, dtype=np.float32)
    tensors = {
        "whole": (values, 0, (2, 3, 4), (12, 4, 1)),
        "permuted": (values, 0, (4, 3, 2), (1, 4, 12)),
        "part": (values, 5, (2, 3), (4, 1)),
        "scalar": (np.float32([7]), 0, (), ()),
    }
    read = torch_legacy.read(torch_files.write(tmp_path / "x.pth", tensors))
    whole = values.reshape(2, 3, 4)
    np.testing.assert_array_equal(read["whole"], whole)
    np.testing.assert_array_equal(read["permuted"], whole.transpose(2, 1, 0))
    np.testing.assert_array_equal(read["part"], [[5, 6, 7], [9, 10, 11]])
    assert read["scalar"] == 7


def test_the_order_of_bytes_is_the_files(tmp_path):
    values = np.float32([1, 2, 3])
    path = torch_files.write(tmp_path / "x.pth", {"x": (values, 0, (3,), (1,))}, little=False)
    np.testing.assert_array_equal(torch_legacy.read(path)["x"], values)


def test_lite0s_leaves_are_transposed(tmp_path):
    rng = np.random.default_rng(0)
    conv, dense = rng.normal(size=(5, 4, 3, 2)).astype("f4"), rng.normal(size=(7, 6)).astype("f4")
    tensors = {
        "_conv_stem.weight": (conv.ravel(), 0, conv.shape, (24, 6, 2, 1)),
        "_fc.weight": (dense.ravel(), 0, dense.shape, (6, 1)),
        "_blocks.15._bn2.running_var": (conv.ravel(), 0, (3,), (1,)),
        "_blocks.6._bn1.weight": (dense.ravel(), 1, (3,), (1,)),
    }
    layers = pretrained.read(torch_files.write(tmp_path / "x.pth", tensors), "efficientnet_lite0").layers
    for o, i, h, w in np.ndindex(conv.shape):
        assert layers["stem_conv"]["kernel"][h, w, i, o] == conv[o, i, h, w]
    np.testing.assert_array_equal(layers["predictions"]["kernel"], dense.T)
    np.testing.assert_array_equal(layers["block7a_project_bn"]["var"], conv.ravel()[:3])
    np.testing.assert_array_equal(layers["block4b_bn"]["scale"], dense.ravel()[1:4])


@pytest.mark.parametrize("name", ["fc.weight", "_blocks.16._bn0.weight", "_blocks.0._se_reduce.weight", "_bn0.other"])
def test_tensors_of_another_network_are_named(tmp_path, name):
    path = torch_files.write(tmp_path / "x.pth", {name: (np.float32([1]), 0, (1,), (1,))})
    with pytest.raises(InputError, match=f"not of efficientnet_lite0: it contains '{name}'"):
        pretrained.read(path, "efficientnet_lite0")


@pytest.mark.parametrize(
    "name", ["features.0.2.weight", "features.1.conv.6.weight", "features.18.conv.0.weight", "conv.weight"]
)
def test_tensors_of_another_mobilenet_are_named(tmp_path, name):
    path = torch_files.write(tmp_path / "x.pth", {name: (np.float32([1]), 0, (1,), (1,))})
    with pytest.raises(InputError, match=f"not of mobilenet_v2: it contains '{name}'"):
        pretrained.read(path, "mobilenet_v2")


class Call:
    def __reduce__(self):
        return print, ("called",)


def test_a_pickle_that_calls_anything_is_refused(tmp_path, capsys):
    path = tmp_path / "x.pth"
    with open(path, "wb") as file:
        for part in (torch_legacy.MAGIC, torch_legacy.PROTOCOL, {"little_endian": True}, {"x": Call()}):
            pickle.dump(part, file, protocol=2)
    with pytest.raises(InputError, match=r"it asks for __builtin__\.print, which a weight file does not need"):
        pretrained.read(path, "efficientnet_lite0")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2, 2), (4, 1)), (0, (2,), (-1,)), (9, (), ())],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, offset, shape, strides):
    path = torch_files.write(tmp_path / "x.pth", {"x": (np.zeros(4, "f4"), offset, shape, strides)})
    with pytest.raises(InputError, match="beyond its storage"):
        torch_legacy.read(path)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999999])
def test_a_truncated_file_is_refused(tmp_path, part):
    whole = fetch.find(registry.find("efficientnet_lite0")).read_bytes()
    path = tmp_path / "x.pth"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match=r"cannot be read as PyTorch weights .*truncated"):
        pretrained.read(path, "efficientnet_lite0")


def test_a_checkpoint_of_more_than_tensors_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    with open(path, "wb") as file:
        for part in (torch_legacy.MAGIC, torch_legacy.PROTOCOL, {"little_endian": True}, {"state_dict": {}}, []):
            pickle.dump(part, file, protocol=2)
    with pytest.raises(InputError, match="more than a state dict of tensors"):
        torch_legacy.read(path)
