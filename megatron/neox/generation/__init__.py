"""Text from a trained model: prompts in, samples out, batched, with keys and values kept between tokens."""
