"""From shards to a checkpoint: models, input pipeline and the training loop."""
