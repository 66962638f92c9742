"""Model artefacts and the back ends that run them: written by training, read by serving."""
