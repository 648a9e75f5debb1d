"""What a step costs follows from the network's shapes."""

from pipeline.networks.unet import UNet
from pipeline.planner.costs import Device, step_cost

CPU = Device("cpu", 2, "fp32", 8 * 1024**3)


def test_twice_the_batch_is_twice_the_arithmetic_and_the_activations():
    network = UNet(features=(8, 16))
    one, two, four = (step_cost(network, 1, 2, (32, 32, 32), batch, CPU) for batch in (1, 2, 4))
    assert two.multiply_adds == 2 * one.multiply_adds
    assert four.memory_bytes - two.memory_bytes == 2 * (two.memory_bytes - one.memory_bytes)
    assert one.parameters == two.parameters


def test_more_cores_take_less_time():
    network = UNet(features=(8, 16))
    few, many = (step_cost(network, 1, 2, (32, 32, 32), 2, Device("cpu", n, "fp32", 1)) for n in (2, 16))
    assert many.seconds < few.seconds
    assert many.memory_bytes == few.memory_bytes


def test_a_network_that_refuses_the_patch_has_no_cost():
    assert step_cost(UNet(features=(8, 16)), 1, 2, (33, 32, 32), 2, CPU) is None
