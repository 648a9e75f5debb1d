"""The inspect command: one layer, a network, and what it refuses."""

import pytest

from pipeline.__main__ import main


def test_a_single_layer(capsys):
    assert main(["inspect", "--layer", "Conv3d:1,2,kernel=2x3x3", "--input", "1,1,301,512,512"]) == 0
    said = capsys.readouterr().out
    assert "(1, 2, 300, 510, 510), 38 parameters" in said
    assert "D:  floor((301 + 2 * 0 - 1 * (2 - 1) - 1) / 1) + 1 = 300" in said


def test_a_network_of_a_config(capsys):
    assert main(["inspect", "configs/ct.yaml", "--input", "1,1,64,128,128"]) == 0
    said = capsys.readouterr().out
    assert "sees mm" in said
    assert "output 1x" in said
    assert "for training" in said


def test_a_patch_of_the_config_is_the_default(capsys):
    assert main(["inspect", "configs/mnist3d.yaml"]) == 0
    said = capsys.readouterr().out
    assert "input 1x1x16x16x16, output 1x10" in said
    assert "512" in said or "128" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of the two"),
        (["--layer", "Conv3d:1,2,kernel=3"], "--input too"),
        (["configs/mnist3d.yaml", "--input", "1,1,16"], "five numbers"),
        (["configs/mnist3d.yaml", "--input", "1,1,6,16,16"], "too small"),
        (["configs/mnist3d.yaml", "--input", "1,2,16,16,16", "--set", "network.colour_map=jet"], "one channel"),
    ],
)
def test_what_cannot_be_shown_is_refused(capsys, words, said):
    assert main(["inspect", *words]) in (2, 3)
    assert said in capsys.readouterr().err
