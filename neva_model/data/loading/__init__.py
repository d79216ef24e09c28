"""From samples to the micro batches of a rank: order, workers, bad samples, loaders."""
