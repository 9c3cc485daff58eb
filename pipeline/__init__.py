"""From a trained checkpoint to evaluated, exported, published artifacts and a report on the run."""
