"""Few-shot pre-training on the server: it learns, it is repeatable, and its statistics are those of its samples."""

from __future__ import annotations

import numpy as np
import torch

from fedtiny.pretrain import pretrain

from .runs import net, samples


def trained(seed=0, epochs=4):
    module = net()
    x, y = samples(40, seed=2)
    loss = pretrain(module, x, y, epochs=epochs, batch=16, lr=0.05, seed=seed)
    return module, x, loss


def bits(module):
    return b"".join(value.numpy().tobytes() for value in module.state_dict().values())


def test_it_learns():
    assert trained(epochs=8)[2] < trained(epochs=1)[2] / 2


def test_a_seed_gives_the_same_bits_whatever_torch_was_doing_before():
    torch.manual_seed(1)
    before = torch.get_num_threads()
    first = bits(trained()[0])
    torch.manual_seed(2)
    torch.set_num_threads(2)
    assert bits(trained()[0]) == first
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert bits(trained(seed=1)[0]) != first


def test_running_statistics_are_those_of_all_samples():
    module, x, _ = trained()
    stem, norm = module.stem[0], module.stem[1]
    with torch.no_grad():
        var, mean = torch.var_mean(stem(torch.from_numpy(x)), (0, 2, 3))
    np.testing.assert_allclose(norm.running_mean, mean, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, var, rtol=1e-4)
    assert norm.momentum == 0.1
    assert not module.training


def test_no_epochs_leave_the_weights_and_measure_the_statistics():
    fresh, (module, _, loss) = net(), trained(epochs=0)
    assert np.isnan(loss)
    assert torch.equal(fresh.stem[0].weight, module.stem[0].weight)
    assert not torch.equal(fresh.stem[1].running_mean, module.stem[1].running_mean)
