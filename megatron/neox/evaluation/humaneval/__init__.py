"""HumanEval: its tasks, samples of them in two file formats, four protocols, verdicts and what they come to."""
