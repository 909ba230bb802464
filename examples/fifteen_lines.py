"""The same as `fedtiny run`, with the rounds in your own hands."""

import sys

import fedtiny

preset, folder = sys.argv[1:] or ["fashion-mini", "runs/by-hand"]
config = fedtiny.load_config(preset, ["pruning.density=0.1", "train.rounds=10"])

with fedtiny.Experiment(config) as experiment:
    for record in experiment:
        print(f"round {record.round}: accuracy {record.accuracy:.1%}, {record.bytes_up:,} bytes up")
        if record.accuracy > 0.85:
            break
    experiment.save(folder)
    print(experiment.selection, experiment.model.graph.layer_names)
